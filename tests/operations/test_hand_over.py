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
from kit.support import Process, cli, problems, process


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
