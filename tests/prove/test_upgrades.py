"""Upgrades under load, as operators do them: nobody notices, and what was answered stays true.

* SIGUSR2: workers are replaced one by one, and a single server hands its port, its Unix socket and
  its SQLite file over. Beside typed clients, which must see nothing, plain stubs that retry nothing
  count what is refused or cut; what they see is printed. What gRPC itself drops in the moment in
  which it hangs up (CANCELLED) is the one thing that no server can spare them.
* The version before beside this one on one PostgreSQL, and after it on one SQLite file and back.

Blind spots: one machine, so no call is on a long way when a connection is closed; the version
before is the commit named in `kit.versions`, to be moved up with each release.
"""

import asyncio
import contextlib
import os
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from idpass import IdPassClient
from kit.open_loop import open_loop, registered
from kit.proving import times
from kit.support import (
    STATUS,
    Calls,
    Process,
    cli,
    problems,
    process,
    report,
)
from kit.versions import BESIDE, unpack
from kit.witness import Call, Witness, callers, check

KINDS = {
    "sqlite": (),
    "unix": (),
    "http": ("--http", "127.0.0.1:0"),
    "postgresql": (),
    "workers": ("--workers", "3"),
}


class Clients:
    """Typed clients that register and cancel on and on, and one that watches."""

    def __init__(self, address: str, count: int = 3) -> None:
        self._address = address
        self._over = threading.Event()
        self._pool = ThreadPoolExecutor(count + 1)
        self.cancelled: list[str] = []
        self.longest_s = 0.0
        self.sequences: list[int] = []
        self._callers = [self._pool.submit(self._call) for _ in range(count)]
        self._watcher = IdPassClient(address)
        self._watching = self._pool.submit(self._watch)

    def _call(self) -> None:
        with IdPassClient(self._address) as client:
            while not self._over.is_set():
                pass_id = client.register().id_pass.id
                began_s = time.monotonic()
                client.cancel(pass_id)
                self.longest_s = max(self.longest_s, time.monotonic() - began_s)
                self.cancelled.append(pass_id)

    def _watch(self) -> None:
        for event in self._watcher.watch():
            self.sequences.append(event.sequence)

    def wait_for_more(self, count: int = 20) -> None:
        aim = len(self.cancelled) + count
        while len(self.cancelled) < aim and not any(each.done() for each in self._callers):
            time.sleep(0.01)

    def end(self) -> None:
        """Raises whatever any of them met."""
        self._over.set()
        for each in self._callers:
            each.result(60)
        with IdPassClient(self._address) as client:
            last = client.account().last_sequence
        while len(self.sequences) < last and not self._watching.done():
            time.sleep(0.01)
        self._watcher.close()
        self._watching.result(60)
        self._pool.shutdown()
        # Others may go on, so that more than these are seen by now.
        assert self.sequences == list(range(1, len(self.sequences) + 1))
        assert len(self.sequences) >= last


def upgrade(server: Process, kind: str, pid: int, count: int) -> int:
    """Sends SIGUSR2, and waits until the upgrade is over. Returns the process that serves then."""
    os.kill(pid, signal.SIGUSR2)
    if kind == "workers":
        server.wait_for("rolled_over", 120, count=count)
        return pid
    next_pid: int = server.wait_for("handed_over", 120, count=count)["pid"]
    return next_pid


@contextlib.contextmanager
def place(kind: str) -> Iterator[tuple[str, ...]]:
    with tempfile.TemporaryDirectory(prefix="idpass-test-") as folder:
        yield ("--listen", f"unix:{folder}/grpc.sock") if kind == "unix" else ()


@pytest.mark.parametrize("rate", [30, 300])
@pytest.mark.parametrize("kind", KINDS)
async def test_nobody_notices_an_upgrade(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str, rate: int
) -> None:
    wanted = "postgresql" if kind in {"postgresql", "workers"} else "sqlite"
    db = request.getfixturevalue("postgres_db") if wanted == "postgresql" else tmp_path / "p.db"
    upgrades = times(2, 1)
    over = asyncio.Event()
    with place(kind) as more, process(db, *KINDS[kind], *more) as server:
        ids = await asyncio.to_thread(registered, server, rate * 8 * upgrades)
        clients = Clients(server.address)
        load = asyncio.create_task(open_loop(server.address, rate, ids, over))
        pid = server.process.pid
        for count in range(1, upgrades + 1):
            await asyncio.to_thread(clients.wait_for_more)
            pid = await asyncio.to_thread(upgrade, server, kind, pid, count)
        await asyncio.to_thread(clients.wait_for_more)
        over.set()
        ended = await load
        await asyncio.to_thread(clients.end)
        failed = [each for each in ended if each.error]
        with grpc.insecure_channel(server.address) as channel:
            calls = Calls(channel)
            for each in ended:
                if not each.error:
                    assert calls.get(each.id_pass).status == STATUS["cancelled"]
                elif each.known:  # told that nothing was changed
                    assert calls.get(each.id_pass).status != STATUS["cancelled"], each
            for pass_id in clients.cancelled:
                assert calls.get(pass_id).status == STATUS["cancelled"]
        os.kill(pid, signal.SIGTERM)
        server.wait_for("stopped", 60, count=upgrades + 1 if kind != "workers" else 1)
    title = f"upgrade under load: {kind}, {rate} plain calls/s"
    report(
        request,
        title,
        f"{upgrades} upgrades, {len(clients.cancelled)} calls of clients, longest "
        f"{clients.longest_s:.2f} s; {len(failed)} of {len(ended)} plain calls failed",
    )
    for error, count in Counter(each.error for each in failed).most_common():
        report(request, title, f"{count:5} {error}")
    assert {each.error for each in failed if not each.known} <= {"CANCELLED: CANCELLED"}
    assert problems(db) == []


@pytest.fixture(scope="session")
def before(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment in which `python -m idpass_server` is the version before."""
    environment = unpack(BESIDE, tmp_path_factory.mktemp("before"))
    if environment is None:
        pytest.skip("the version before is not at hand: this is no full clone")
    return environment


def test_the_version_before_serves_beside_this_one(
    postgres_url: str, before: dict[str, str]
) -> None:
    """Expand: the schema is changed under the former version, and both serve it; then one goes."""
    assert cli("migrate", "--db", postgres_url, env=before).returncode == 0
    witnesses = [Witness(seed) for seed in (1, 2)]
    count = times(30, 60)
    with contextlib.ExitStack() as stack:
        workers = ("--workers", "2")
        old = stack.enter_context(process(postgres_url, *workers, env=before))
        set_slots_with(before, postgres_url)
        old_clients = Clients(old.address, 1)
        with callers(old.address, witnesses[0], 3):
            witnesses[0].wait_for_answers(count)
            planned = cli("migrate", "--plan", "--db", postgres_url)
            assert "stop servers" not in planned.stdout, planned.stdout
            done = cli("migrate", "--db", postgres_url)
            assert done.returncode == 0, done.stderr
            witnesses[0].wait_for_answers(count)
            new = stack.enter_context(process(postgres_url, *workers))
            new_clients = Clients(new.address, 1)
            with callers(new.address, witnesses[1], 3):
                for witness in witnesses:
                    witness.wait_for_answers(count)
            old_clients.end()
        # What one version has answered, the other answers again.
        made = [some(witness.take()) for witness in witnesses]
        check(new, made[0])
        check(old, made[1])
        old.signal()
        assert old.wait() == 0
        check(new, made[1])
        new_clients.wait_for_more()
        new_clients.end()
        for pass_id in old_clients.cancelled + new_clients.cancelled:
            assert new.get(pass_id).status == STATUS["cancelled"]
    assert problems(postgres_url) == []


def some(calls: list[Call]) -> list[Call]:
    """A sample of them; all, where there are few."""
    return calls[:: max(1, len(calls) // times(40, 200))]


def set_slots_with(version: dict[str, str], url: str) -> None:
    done = cli("account", "set", "demo", "--slots", "100000", "--db", url, env=version)
    assert done.returncode == 0, done.stderr


def test_a_file_goes_to_the_next_version_and_back(tmp_path: Path, before: dict[str, str]) -> None:
    """Back as long as no migration has been contracted; what was answered is still the answer."""
    db = tmp_path / "idpass.db"
    answers: list[list[Call]] = []
    for turn, env in enumerate([before, {}, before, {}]):
        with process(db, env=env) as server:
            for made in answers:
                check(server, made)
            witness = Witness(turn)
            with callers(server.address, witness, 3):
                witness.wait_for_answers(times(20, 20))
            answers.append(some(witness.take()))
            sequences = [event.sequence for event in server.events()]
            assert sequences == list(range(1, len(sequences) + 1))
            server.signal()
            assert server.wait() == 0
    assert problems(db) == []
