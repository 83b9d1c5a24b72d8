"""Promise: whoever asks Prometheus what `server/docs/monitoring.md` says gets the answer.

By what means: a real Prometheus scrapes two real services, one on SQLite with TLS, callers and
HTTP, one of two workers on PostgreSQL of which one is killed. It loads the rules, and is asked each
of the documents' queries and each of the dashboard's.

Blind spots: Grafana itself does not run here, and rules that wait for minutes are seen pending
only; that each fires is promtool's to say (operations/test_metrics.py).
"""

import json
import math
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from kit.metered import DEPLOY, Metered, queries
from kit.support import Calls, Process, eventually, process, refused

PANELS = json.loads((DEPLOY / "grafana/dashboard.json").read_text())["panels"]
DRAWN = [target["expr"] for panel in PANELS for target in panel.get("targets", ())]
QUESTIONS = (
    *("calls", "p99", "disk", "process", "batch", "flood", "strangers", "refused", "refunds"),
    *("overdue", "slots", "certificate"),
)
CONFIG = """
global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}
rule_files: [{rules}]
scrape_configs: [{{job_name: idpass, static_configs: [{{targets: {targets}}}]}}]
"""


class Prometheus:
    """A Prometheus that scrapes some addresses. Args: folder: for its files."""

    def __init__(self, folder: Path, *targets: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        rules = DEPLOY / "prometheus/rules.yml"
        config = folder / "prometheus.yml"
        config.write_text(CONFIG.format(rules=rules, targets=json.dumps(targets)))
        self._http = httpx.Client(base_url=f"http://{self.address}/api/v1", trust_env=False)
        self._process = subprocess.Popen(
            [
                *("prometheus", f"--config.file={config}", "--log.level=warn"),
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={self.address}",
            ]
        )

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        self._http.close()

    def get(self, path: str, **values: str) -> Any:
        answer = self._http.get(path, params=values).json()
        assert answer["status"] == "success", answer
        return answer["data"]

    def values(self, query: str) -> dict[str, float]:
        """What a query answers: a number for each set of labels."""
        found = self.get("/query", query=query.replace("$__rate_interval", "1m"))["result"]
        return {json.dumps(each["metric"]): float(each["value"][1]) for each in found}

    def wait(self, times: int) -> None:
        """Waits until it has scraped every target so many times more."""
        seen = max(self.values("count_over_time(up[1h])").values())
        eventually(lambda: self.scraped(int(seen) + times))

    def scraped(self, times: int) -> bool:
        """Whether it has scraped every target so often."""
        try:
            counts = self.values("count_over_time(up[1h])").values()
        except (httpx.TransportError, ValueError):  # it starts
            return False
        return len(counts) == 2 and min(counts) >= times and all(self.values("up").values())


@pytest.fixture
def sqlite_server(tmp_path: Path) -> Iterator[Metered]:
    running = Metered(tmp_path)
    try:
        yield running
    finally:
        running.kill()


@pytest.fixture
def workers(postgres_db: str) -> Iterator[Process]:
    with process(postgres_db, "--workers", "2", "--metrics", "127.0.0.1:0") as running:
        yield running


def test_prometheus_answers_the_twelve_questions_and_draws_every_panel(
    tmp_path: Path, sqlite_server: Metered, workers: Process
) -> None:
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus is missing: it is a package of Debian's")
    asked = dict(zip(QUESTIONS, queries(), strict=True))
    prometheus = Prometheus(tmp_path, sqlite_server.metrics, workers.wait_for("metrics")["listen"])
    try:
        eventually(lambda: prometheus.scraped(3))
        assert set(prometheus.values(asked["refunds"]).values()) <= {0.0}
        assert not prometheus.values(asked["flood"])

        sqlite_server.drive()
        _drive(workers)
        prometheus.wait(3)  # the first increase of what was not there before is not seen
        _drive(sqlite_server.ann)
        _drive(workers)
        assert refused(sqlite_server.with_token("slow-token").account).reason == "OVERLOADED"
        assert refused(sqlite_server.with_token("none").account).reason
        os.kill(workers.workers()[0], signal.SIGKILL)
        workers.wait_for("worker_started", count=3)
        prometheus.wait(5)

        answers = {name: prometheus.values(query) for name, query in asked.items()}
        for name, found in answers.items():
            print(f"{name}: {found}")
            assert found, name
            assert all(map(math.isfinite, found.values())), name
        assert answers["calls"] == {"{}": 0.0}
        assert list(answers["flood"]) == ['{"caller": "slow"}']
        assert answers["refunds"]['{"currency": "AUD"}'] > 0
        assert answers["flood"]['{"caller": "slow"}'] > 0
        assert answers["strangers"]['{"kind": "token"}'] > 0
        assert 29 < answers["certificate"]["{}"] < 30
        assert {json.loads(each)["step"] for each in answers["disk"]} == {
            *("load", "decide", "save", "commit"),
        }
        empty = [expression for expression in DRAWN if not prometheus.values(expression)]
        assert empty == []
        _judge_rules(prometheus)
    finally:
        prometheus.stop()


def _drive(calls: Calls) -> None:
    for _ in range(5):
        calls.cancel(calls.register().id_pass.id)


def _judge_rules(prometheus: Prometheus) -> None:
    """All rules can be evaluated; what waits is what was brought about, and nothing else."""
    rules = prometheus.get("/rules")["groups"][0]["rules"]
    assert [rule for rule in rules if rule["health"] != "ok"] == []
    waiting = {rule["name"] for rule in rules if rule["state"] != "inactive"}
    print(f"{len(rules)} rules; pending: {waiting}")
    assert "IdPassConfigRejected" in waiting
    assert not waiting & {"IdPassAbsent", "IdPassStoreDown", "IdPassFiguresMissing"}
