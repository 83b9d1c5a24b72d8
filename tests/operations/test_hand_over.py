"""SIGUSR2: the next process takes over, and callers only wait a moment."""

import os
import signal
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from idpass import IdPassClient
from idpass_server.store.sqlite.file import sqlite3
from kit.http import listed
from kit.support import Process, cli, problems, process
from kit.versions import BROKEN, NEXT, Installed


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "idpass.db"
    yield path
    assert problems(path) == []


def end_successor(server: Process, pid: int) -> None:
    os.kill(pid, signal.SIGTERM)
    server.wait_for("stopped", count=2)


def test_the_next_process_takes_over_and_callers_see_nothing(db: Path) -> None:
    over = threading.Event()
    cancelled: list[str] = []

    def cancel_on_and_on(address: str) -> None:
        with IdPassClient(address) as client:
            while not over.is_set():
                cancelled.append(client.cancel(client.register().id_pass.id).id)

    options = ("--http", "127.0.0.1:0", "--probe", "127.0.0.1:0", "--metrics", "127.0.0.1:0")
    with process(db, *options) as server, ThreadPoolExecutor(3) as pool:
        callers = [pool.submit(cancel_on_and_on, server.address) for _ in range(3)]
        while len(cancelled) < 20:
            time.sleep(0.01)
        server.signal(signal.SIGUSR2)
        pid = server.wait_for("handed_over")["pid"]
        assert server.process.wait(30) == 0
        again = server.wait_for("serving", count=2)
        assert again["listen"] == server.address
        done = len(cancelled)
        while len(cancelled) < done + 20:
            time.sleep(0.01)
        for event, key in (("gateway", "http"), ("probe", "listen"), ("metrics", "listen")):
            assert server.wait_for(event)[key] == server.wait_for(event, count=2)[key]
        place = server.wait_for("probe")["listen"]
        assert urllib.request.urlopen(f"http://{place}/readyz", timeout=10).status == 200
        refused = cli(
            "serve", "--listen", server.address, "--db", f"sqlite:///{db.parent}/other.db"
        )
        assert refused.returncode == 1
        assert "cannot be listened on" in refused.stderr
        over.set()
        for each in callers:
            each.result(30)
        for pass_id in cancelled:
            assert server.get(pass_id).cancellation.caller
        end_successor(server, pid)


FAILING_LATE = {
    "store/sqlite/store.py": (
        "        self._path = path\n",
        "        from idpass_server.store import CannotOpen\n"
        "        raise CannotOpen('a disk that has just become full')\n",
    ),
}


@pytest.fixture
def installed(tmp_path: Path) -> Installed:
    return Installed(tmp_path)


@pytest.fixture
def server(db: Path, installed: Installed) -> Iterator[Process]:
    """One with a port and a Unix socket for HTTP to be opened again."""
    with process(db, "--http", "127.0.0.1:0", env=installed.env) as running:
        yield running


def hand_over(server: Process) -> int:
    """Has a server hand over. Returns the process id of its successor."""
    server.signal(signal.SIGUSR2)
    pid: int = server.wait_for("handed_over")["pid"]
    assert server.process.wait(30) == 0
    server.wait_for("serving", count=2)
    return pid


def test_a_successor_that_cannot_serve_changes_nothing(
    server: Process, installed: Installed
) -> None:
    """Neither one that does not even start, nor one that fails when the other has stopped."""
    pass_id = server.register(request_id="r").id_pass.id
    for count, (changes, said) in enumerate(
        [(BROKEN, "it ended (1) before it was ready"), (FAILING_LATE, "has just become full")], 1
    ):
        installed.install(changes)
        server.signal(signal.SIGUSR2)
        assert said in server.wait_for("hand_over_failed", count=count)["error"]
    server.wait_for("serving", count=2)
    with IdPassClient(server.address) as client:
        assert client.register(request_id="r").replayed
        http = server.wait_for("gateway", count=2)["http"]
        assert http == server.wait_for("gateway")["http"]
        assert pass_id in listed(http)
    installed.install(NEXT)
    end_successor(server, hand_over(server))


def test_the_next_version_brings_the_schema_up_to_date(
    server: Process, db: Path, installed: Installed
) -> None:
    server.register(request_id="r")
    installed.install(NEXT)
    pid = hand_over(server)
    assert len(list(db.parent.glob("*.before-from_the_next_version-*"))) == 1
    with IdPassClient(server.address) as client:
        assert client.register(request_id="r").replayed
    end_successor(server, pid)


def test_a_schema_that_is_too_new_is_refused_before_anything_stops(
    server: Process, db: Path
) -> None:
    connection = sqlite3.connect(db)
    connection.execute("UPDATE schema_compatibility SET oldest = 1000")
    connection.execute(
        "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) "
        "VALUES ('idpass', 'from_the_future', '')"
    )
    connection.commit()
    server.signal(signal.SIGUSR2)
    assert "newer idpass-server" in server.wait_for("hand_over_failed")["error"]
    server.register()
    connection.execute("DELETE FROM _sqlite_migrations WHERE name = 'from_the_future'")
    connection.execute("UPDATE schema_compatibility SET oldest = 2")
    connection.commit()
    connection.close()
    assert "draining" not in {line["event"] for line in server.log}


def test_a_server_that_is_stopped_takes_its_successor_along(
    server: Process, installed: Installed
) -> None:
    installed.install(SLOW)
    server.signal(signal.SIGUSR2)
    pid = server.wait_for("handing_over")["pid"]
    server.signal()
    assert server.wait() == 0
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


SLOW = {"processes/running.py": ("import asyncio\n", "import asyncio, time; time.sleep(60)\n")}
