"""What systemd is told, by a server and by a supervisor of workers."""

import asyncio
import contextlib
import os
import signal
import stat
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from idpass_server.processes.systemd import Systemd
from kit.manager import Manager, manager_at_a_path
from kit.postgres import Postgres
from kit.support import process


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest) -> Iterator[Manager]:
    if request.param == "path":
        with manager_at_a_path() as manager:
            yield manager
    else:
        manager = Manager(f"@idpass-test-{uuid.uuid4()}")
        yield manager
        manager.close()


def test_a_server_tells_of_its_life(tmp_path: Path, manager: Manager) -> None:
    env = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "600000"}
    with process(tmp_path / "idpass.db", env=env) as server:
        assert manager.until("READY")["STATUS"] == f"serving at {server.address}"
        manager.until("WATCHDOG")
        before_us = time.monotonic_ns() // 1_000
        server.signal(signal.SIGHUP)
        reloading = manager.until("RELOADING")
        assert before_us <= int(reloading["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1_000
        assert manager.until("READY")["STATUS"] == f"serving at {server.address}"
        server.signal()
        assert manager.until("STOPPING")["STATUS"] == "stopping"
        server.wait()


def test_a_supervisor_speaks_for_its_workers(postgres_db: str, postgres: Postgres) -> None:
    with manager_at_a_path() as manager:
        env = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "600000"}
        with process(postgres_db, "--workers", "2", env=env) as server:
            serving = f"serving at {server.address} with 2 workers"
            assert manager.until("READY")["STATUS"] == serving
            manager.until("WATCHDOG")
            for pid in server.workers().values():
                assert b"NOTIFY_SOCKET" not in Path(f"/proc/{pid}/environ").read_bytes()
            postgres.shut_out(postgres_db.rpartition("/")[2])
            while not manager.next().get("STATUS", "").startswith("not ready: store: worker "):
                pass
            postgres.let_in(postgres_db.rpartition("/")[2])
            manager.until("STATUS", serving)
            server.signal()
            manager.until("STOPPING")
            assert server.wait() == 0


def test_a_server_that_gets_nowhere_gives_no_sign_of_life(tmp_path: Path) -> None:
    with manager_at_a_path() as manager:
        env = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "300000"}
        with process(tmp_path / "idpass.db", env=env) as server:
            manager.until("WATCHDOG")
            server.signal(signal.SIGSTOP)
            manager.expect_silence(1)
            server.signal(signal.SIGCONT)
            manager.until("WATCHDOG")


def test_without_systemd_nothing_is_told_and_a_watchdog_of_another_process_is_ignored() -> None:
    Systemd().ready("serving")
    environment = {"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1", "HOME": "/"}
    nobody = Systemd.of(environment)
    assert environment == {"HOME": "/"}
    assert nobody.environment() == {}
    ours = Systemd.of(
        {"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "5", "WATCHDOG_PID": f"{os.getpid()}"}
    )
    assert ours.environment() == {"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "5"}
    ours.ready("nobody listens there")
    for odd in ("", "soon", "-1", "0"):
        assert Systemd.of({"WATCHDOG_USEC": odd}).environment() == {}


def test_a_status_is_one_line(manager: Manager) -> None:
    systemd = Systemd(manager.address)
    systemd.say("not ready: store: two\nREADY=1")
    assert manager.next() == {"STATUS": "not ready: store: two READY=1"}


async def test_readiness_that_was_not_heard_is_said_again(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    systemd = Systemd(address)
    systemd.ready("serving")
    with contextlib.closing(Manager(address)) as manager:
        informing = asyncio.create_task(systemd.keep_informed("serving", dict))
        assert (await asyncio.to_thread(manager.until, "READY"))["STATUS"] == "serving"
        informing.cancel()


def test_systemd_learns_which_process_serves_after_a_hand_over(tmp_path: Path) -> None:
    with manager_at_a_path() as manager:
        path = Path(manager.address).with_name("grpc.sock")
        options = ("--listen", f"unix:{path}")
        env = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "600000"}
        with process(tmp_path / "idpass.db", *options, env=env) as server:
            manager.until("READY")
            path.chmod(0o660)
            inode = path.stat().st_ino
            server.signal(signal.SIGUSR2)
            manager.until("RELOADING")
            pid = server.wait_for("handed_over")["pid"]
            told = manager.until("MAINPID", str(pid))
            assert told["READY"] == "1"
            assert server.wait() == 0
            assert stat.S_IMODE(path.stat().st_mode) == 0o660
            assert path.stat().st_ino != inode
            server.register()
            manager.until("WATCHDOG")
            os.kill(pid, signal.SIGTERM)
            manager.until("STOPPING")
            server.wait_for("stopped", count=2)
        assert not path.exists()
