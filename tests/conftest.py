from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from guarded import Guarded, caller
from idpass_server import logs
from support import REPORTS, Service, problems

settings.register_profile(
    "default", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("default")
logs.configure("critical")


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """A running server; its database passes an audit in the end."""
    running = Service(tmp_path / "idpass.db")
    try:
        yield running
    finally:
        running.stop()
    assert problems(running.db) == []


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Guarded]:
    """A running server with callers: ann and eve of acme, bob of beta; eve may only read."""
    running = Guarded(tmp_path, caller("ann"), caller("bob", "beta"), caller("eve", "acme", "read"))
    try:
        yield running
    finally:
        running.stop()
    assert problems(running.db) == []


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Prints what tests measured and do not judge."""
    for title, lines in config.stash.get(REPORTS, {}).items():
        terminalreporter.section(title)
        for line in lines:
            terminalreporter.write_line(line)
