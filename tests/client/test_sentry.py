"""Clients whose channels Sentry has taken over, as services that report to it have."""

import subprocess
import sys
from pathlib import Path

import pytest

CALLER = Path(__file__).with_name("sentry_caller.py")

pytest.importorskip("sentry_sdk", reason="only the client's own needs are installed here")


@pytest.mark.long
def test_calls_retries_and_watches_work_and_sentry_sees_every_attempt(address: str) -> None:
    run = subprocess.run(
        [sys.executable, str(CALLER), address],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    spans = [span.rpartition("/")[2] for span in run.stdout.splitlines()]
    for method, attempts in {
        "CancelIdPass": 4,
        "RegisterIdPass": 4,
        "GetIdPass": 1,
        "GetAccount": 2,
    }.items():
        assert spans.count(method) == attempts, run.stdout
    # Five; Sentry on Python 3.10 does not tell of the one that the client's close has ended.
    assert spans.count("WatchIdPasses") >= 4
