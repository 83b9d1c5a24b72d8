"""Promise: OK means on disk; whatever instant the power fails at, there is no repair step.

Means: the real server, and the commands beside it, run with a library that logs every change to the
files of the database's folder, the begin and the end of every sync, and every message sent, in one
order and with contents (kit/logged_disk.c). The log is played, and the power is cut after every
change: each 512-byte sector holds any version that no later sync has covered; sizes and names are
apart; none of it, all, a torn prefix, a torn suffix, sectors at random, writes at random, garbage
in holes (kit/power.py). The product opens each such disk: every answer given by then is given again
and once, all invariants hold, and a new pass can be registered. An answer counts from the message
that carries its reference. Phases: creation, load, checkpoint, WAL reset, backup, shutdown; a purge
beside load, a restore over a killed server's database; a migration.

Then cuts after a crash: a commit is killed before one of its calls, or that fails, the server
starts again, the call is sent again, and the power fails after that answer too.

Controls, each of which must be caught: `synchronous=NORMAL`; a disk whose sync does nothing; a
start that serves what it finds in the WAL as it is.

Blind spots: the -shm file is not logged, since the first process to open a database makes it anew
from the WAL; the disks here have garbage in it. The lock file holds nothing. File systems that do
not rename or truncate atomically, or lose what was synced; a sector that is torn itself; power that
fails again during the start after it. Of a failed sync it is assumed that all it should have
written may be lost, as with Linux. PostgreSQL's files are PostgreSQL's promise (see
test_postgres_durability).
"""

import errno
import itertools
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import grpc
import pytest

from idpass_server.ids import new_uuid
from idpass_server.rules.commands import Cancel, Register
from idpass_server.store.opening import make_store, open_store
from kit.cut_disks import Looked
from kit.cut_promises import BACKUP, BackedUp, Migrated, Restored
from kit.disk_log import DiskLog
from kit.logged_service import NOT_FULL, NOT_SETTLED, SMALL_WAL, LoggedService, Recording
from kit.old_schema import STATUSES, make_old_database
from kit.proving import seed_for, times
from kit.serving import url_of
from kit.support import DAY_US, Process, report
from kit.witness import Call, Witness, callers

ROUNDS = times(1, 0.2)
"""How often everything is logged anew."""
DISKS = times(1_500, 1_000) // ROUNDS
"""Number of disks that differ, of each round."""
CRASHES = times(4, 2) // ROUNDS
"""Number of calls of a commit at which it is killed, and at which it fails, in each round."""
SEED = seed_for(14)
CALLERS, PAUSE_S = 2, 0.02
"""How many call, and the pause of each after each pass, seconds."""
EIO = str(errno.EIO)
CAUGHT_WITHIN = 300
"""Number of disks within which each control is caught."""


def life(scratch: Path, seed: int, patch: str = SMALL_WAL) -> Recording:
    """A database is made, used, backed up, and shut down."""
    service = LoggedService(scratch, patch)
    witness = Witness(seed, PAUSE_S)
    with service.server() as server:
        service.log.mark("load")
        with callers(server.address, witness, CALLERS):
            witness.wait_for_answers(100)
            service.log.mark("backup")
            service.run("backup", "--to", str(service.log.folder / BACKUP))
            service.log.mark("load2")
            witness.wait_for_answers(30)
        service.log.mark("shutdown")
        server.signal()
        assert server.wait() == 0
    service.log.mark("end")
    service.keep(witness.take(), after="load")
    return service.recording(BackedUp)


def crashes(
    scratch: Path, seed: int, patch: str = SMALL_WAL, ways: Sequence[str] = ("kill", EIO)
) -> Recording:
    """Commits are killed at each of their calls, or those fail; then the server starts again."""
    service = LoggedService(scratch, patch)
    planned: Iterator[tuple[str, str, int]] = iter(())
    cut_off: Call | None = None
    for number in itertools.count():
        with service.server() as server:
            service.log.mark(f"again{number}")
            made = [cut_off._replace(answer=cut_off.make(server))] if cut_off else []
            service.keep(made, after=f"again{number}")
            if not number:
                planned = _plan(service.log, server, ways, random.Random(seed))
            fault = next(planned, None)
            if fault is None:
                break
            cut_off = _one_call(server, number)
            service.log.set_fault(*fault)
            try:
                cut_off.make(server)
            except grpc.RpcError as error:
                assert error.code() is grpc.StatusCode.UNAVAILABLE
            service.log.clear_fault()
    return service.recording()


def _one_call(server: Process, number: int) -> Call:
    pass_id = server.register(request_id=f"r{number}").id_pass.id
    return Call("cancel", {"pass_id": pass_id, "request_id": f"c{number}"}, None)


def _plan(
    log: DiskLog, server: Process, ways: Sequence[str], draw: random.Random
) -> Iterator[tuple[str, str, int]]:
    """What is done at which call of a commit: at its sync, and at others."""
    call = _one_call(server, -1)
    before = len(log.read())
    call.make(server)
    calls = sum(each.kind in "wtbur" for each in log.read()[before:])
    chosen = draw.sample(range(1, calls), min(CRASHES, calls) - 1)
    for way in ways:
        yield way, "sync", 1
        yield from ((way, "change", at) for at in chosen)


def operators(scratch: Path, seed: int) -> Recording:
    """A purge beside load; then the server is killed, and a backup restored."""
    service = LoggedService(scratch)
    make_store(url_of(service.db))
    with closing(open_store(url_of(service.db))) as store:
        then_us = time.time_ns() // 1_000 - 500 * DAY_US
        old = tuple(new_uuid() for _ in range(40))
        store.commit([Register("demo", "t", new_uuid(), None, each) for each in old], then_us)
        store.commit([Cancel("demo", "t", new_uuid(), None, each) for each in old], then_us)
        history = store.history()
    service.begin_with_what_is_there()
    witness = Witness(seed, PAUSE_S)
    backup = str(service.log.folder / BACKUP)
    with service.server("--accept-clock") as server:
        service.log.mark("load")
        with callers(server.address, witness, CALLERS):
            witness.wait_for_answers(30)
            service.log.mark("backup")
            service.run("backup", "--to", backup)
            witness.wait_for_answers(10)
            service.log.mark("purge")
            service.run("purge", "--ended-before", "400d", "--yes")
            service.log.mark("purged")
            witness.wait_for_answers(10)
        server.process.kill()
    service.keep(witness.take(), after="load")
    service.log.mark("restore")
    service.run("restore", backup, "--yes")
    service.log.mark("restored")
    return service.recording(partial(Restored, old=old, history=history))


def migration(scratch: Path, seed: int) -> Recording:
    """A server of today meets a database of an early version."""
    service = LoggedService(scratch)
    make_old_database(service.db)
    service.begin_with_what_is_there()
    service.log.mark("migration")
    witness = Witness(seed, PAUSE_S)
    with service.server("--accept-clock") as server:
        service.log.mark("load")
        with callers(server.address, witness, 1):
            witness.wait_for_answers(5)
    service.keep(witness.take(), after="load")
    return service.recording(partial(Migrated, statuses=STATUSES))


def tell(request: pytest.FixtureRequest, name: str, recording: Recording, looked: Looked) -> None:
    answers = len(recording.promise.answers)
    kinds = Counter(each.kind for each in recording.records)
    caught = f", the first at look {looked.needed}" if looked.needed else ""
    report(
        request,
        "Power cuts",
        f"{name}: {looked.disks} disks, {looked.looks} looks, {len(looked.bad)} bad{caught}; "
        f"seed {SEED}, {answers} answers, {kinds['w']} writes, {kinds['e']} syncs; "
        f"by phase {dict(looked.phases)}; by policy {dict(looked.policies)}",
    )


Scenario = Callable[[Path, int], Recording]
SCENARIOS: dict[Scenario, float] = {life: 0.4, crashes: 0.3, operators: 0.2, migration: 0.1}
"""Each with its part of the disks."""


@pytest.mark.parametrize("round_", range(ROUNDS))
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_nothing_answered_is_lost_to_a_power_cut(
    tmp_path: Path, request: pytest.FixtureRequest, scenario: Scenario, round_: int
) -> None:
    seed = SEED + round_
    recording = scenario(tmp_path / "logged", seed)
    looked = recording.look(int(DISKS * SCENARIOS[scenario]), seed)
    tell(request, f"{scenario.__name__} {round_}", recording, looked)
    for number, (cut, faults) in enumerate(looked.bad[:5]):
        kept = tmp_path / f"bad-{number}-{cut.policy}-at-{cut.position}"
        kept.mkdir()
        for name, content in cut.files.items():
            (kept / name).write_bytes(content)
        print(f"{kept} of seed {seed}:", *faults[:5], sep="\n  ")
    assert not looked.bad


CONTROLS: dict[str, tuple[Scenario, str | None]] = {
    "synchronous=NORMAL": (partial(life, patch=NOT_FULL), None),
    "a sync that does nothing": (life, "load"),
    "a start without settling the WAL": (partial(crashes, patch=NOT_SETTLED, ways=("kill",)), None),
}
"""Each with the mark from which the disk lies."""


@pytest.mark.parametrize("control", CONTROLS)
def test_a_promise_taken_out_is_missed(
    tmp_path: Path, request: pytest.FixtureRequest, control: str
) -> None:
    scenario, lies_from = CONTROLS[control]
    recording = scenario(tmp_path / "logged", SEED)
    looked = recording.look(CAUGHT_WITHIN, SEED, lies_from=lies_from, enough=1)
    tell(request, f"control, {control}", recording, looked)
    assert any("was answered, and" in fault for bad in looked.bad for fault in bad.faults)
