"""Promise: OK means on disk, and if the disk fails at commit, the answer says so and the process
exits.

Means: one call to the operating system about the database's files fails once, at each of its first
occurrences or a sample of them: while a database is made, while the server starts, under load, and
while it stops. Writes fail (EIO, ENOSPC), are cut short or are interrupted; so do syncs of files
and of the folder, reads, truncations, openings (EMFILE), deletions, and the mapping of -shm
(ENOMEM). Callers cancel meanwhile. Then the server goes on, or ends with 74, or does not start and
says why; no caller sees another error than UNAVAILABLE, or CANCELLED from gRPC as the server ends,
and no log has a traceback. Without faults every answer that was ever given is given again and once,
every call without an answer has one outcome, and the audit is clean. Faults that were set and never
met are counted.

Control: a store that takes a failed COMMIT for done is caught.

Blind spots: a disk that goes on failing (see store/test_durability and test_postgres_disk_full), or
that answers late; calls that SQLite makes for other files than the database's; what is lost of a
failed sync when the power fails as well (see test_power_cuts).
"""

import errno
import itertools
import random
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest

from idpass_server.store.opening import audit_store, open_store
from kit.cut_disks import Answered, command_of, lost, unsettled
from kit.disk_log import DiskLog
from kit.logged_service import SMALL_WAL, LoggedService, NotServing
from kit.proving import seed_for, times
from kit.serving import url_of
from kit.support import Process, eventually, report
from kit.witness import Call, Witness, callers

CASES = times(20, 15)
AT_ONCE = 30
"""Number of cases of one test, on one database unless they make another."""
SLOTS = 1_000_000
"""Passes that may be in flight: every case leaves some behind."""
SEED = seed_for(14)
ANSWERS = 25
"""Number of answers under load after which a fault that was not met is given up."""
MORE_ANSWERS = 5
"""Number of answers after the fault, unless the server ends."""
OUTCOMES = {"exit 0", "exit 74", "does not start"}
CAUGHT_WITHIN = 10
"""Number of cases within which the control is caught."""
FAILURES = {
    "pwrite": ("EIO", "ENOSPC", "EINTR", "short"),
    "sync": ("EIO", "ENOSPC", "EINTR"),
    "sync_folder": ("EIO",),
    "pread": ("EIO", "EINTR"),
    "ftruncate": ("EIO", "EINTR"),
    "open": ("EMFILE", "EINTR"),
    "unlink": ("EIO",),
    "mmap": ("ENOMEM",),
}
OCCURRENCES = {
    "creation": {"pwrite": 30, "sync": 20, "sync_folder": 5, "pread": 8, "open": 9, "mmap": 1},
    "start": {"pwrite": 20, "sync": 3, "sync_folder": 1, "pread": 10, "open": 8, "mmap": 1},
    "load": {"pwrite": 60, "sync": 12, "pread": 3, "ftruncate": 1, "open": 2},
    "stop": {"pwrite": 8, "sync": 2, "unlink": 1, "ftruncate": 1},
}
"""The first occurrences of each call that may fail, by what goes on."""
IGNORED_COMMIT = f"""{SMALL_WAL}
from idpass_server.store.sqlite import store
def commit(self):
    try:
        self._writer.execute("COMMIT")
    except store.sqlite3.Error:
        self._rollback()
store.SqliteStore._commit = commit
"""
"""Takes a COMMIT that failed for done."""


class Case(NamedTuple):
    """A call that fails.

    Attributes:
        when: what goes on.
        call: as in logged_disk.c.
        how: name of an errno, or "short".
        number: of the call.
    """

    when: str
    call: str
    how: str
    number: int

    @property
    def action(self) -> str:
        """As in logged_disk.c."""
        return self.how if self.how == "short" else str(getattr(errno, self.how))


def every_case() -> list[Case]:
    return [
        Case(when, call, how, number)
        for when, calls in OCCURRENCES.items()
        for call, most in calls.items()
        for how in FAILURES[call]
        for number in range(1, most + 1)
    ]


class Tried(NamedTuple):
    """What came of a case.

    Attributes:
        fired: whether the call was made, and failed.
        outcome: how the server took it.
        faults: what is wrong.
    """

    fired: bool
    outcome: str
    faults: list[str]


class Trial:
    """Servers on one database after the other, one call of each failing.

    Args:
        scratch: for everything.
        patch: Python that each server runs first.
    """

    def __init__(self, scratch: Path, patch: str = SMALL_WAL) -> None:
        self._service = LoggedService(scratch, patch)
        self._made: list[Call] = []
        self._numbers = itertools.count()

    def run(self, case: Case) -> Tried:
        """Tries a case."""
        log, witness = self._service.log, Witness(next(self._numbers), may_drop=True)
        if case.when == "creation":
            self._begin_anew()
        if case.when in {"creation", "start"}:
            log.set_fault(case.action, case.call, case.number)
        outcome, faults = self._serve(case, witness)
        fired = log.clear_fault()
        if outcome not in OUTCOMES:
            faults.append(outcome)
        self._made += witness.take()
        return Tried(fired, outcome, faults + self._broken())

    def _serve(self, case: Case, witness: Witness) -> tuple[str, list[str]]:
        """Serves callers while a call fails. Returns how it ended, and what is wrong."""
        log = self._service.log
        try:
            with self._service.server() as server:
                with callers(server.address, witness, 2):
                    if case.when == "load":
                        log.set_fault(case.action, case.call, case.number)
                    _wait(log, server, witness)
                if case.when == "stop":
                    log.set_fault(case.action, case.call, case.number)
                outcome = _stopped(server)
            return outcome, [line for line in map(str, server.log) if "Traceback" in line]
        except NotServing as error:
            told = "Error: " in str(error) and "Traceback" not in str(error)
            return "does not start", [] if told else [f"no reason is given: {error}"]
        except AssertionError as error:  # a caller sees what it should not, or waits in vain
            return "callers fail", [f"{error}; the log ends with {server.log[-5:]}"]

    def _begin_anew(self) -> None:
        self._made = []
        for each in self._service.log.folder.iterdir():
            each.unlink()
        self._service.log.forget()

    def _broken(self) -> list[str]:
        """What is not as promised, once nothing fails any more."""
        url = url_of(self._service.db)
        answered = [
            Answered(0, each.method, command_of(each.method, each.fields), each.answer)
            for each in self._made
            if each.answer is not None
        ]
        open_ones = [command_of(e.method, e.fields) for e in self._made if e.answer is None]
        with closing(open_store(url, create=True)) as store:
            store.set_account("demo", slot_limit=SLOTS, fee=None)
            found = lost(store, answered)
            found += unsettled(store, open_ones)
        return found + audit_store(url).problems


def _ended(server: Process) -> bool:
    return server.process.poll() is not None


def _wait(log: DiskLog, server: Process, witness: Witness) -> None:
    """Waits until the fault was met, or will not be, and some more was answered or the end came."""
    eventually(lambda: log.fired() or witness.answered >= ANSWERS or _ended(server))
    enough = witness.answered + MORE_ANSWERS
    eventually(lambda: witness.answered >= enough or _ended(server))


def _stopped(server: Process) -> str:
    """Stops a server. Returns how it ended."""
    if not _ended(server):
        server.signal()
    return f"exit {server.wait(60)}"


def tell(request: pytest.FixtureRequest, title: str, tried: dict[Case, Tried]) -> None:
    fired = [case for case, each in tried.items() if each.fired]
    outcomes = Counter(each.outcome for each in tried.values() if each.fired)
    calls = Counter(f"{case.when} {case.call} {case.how}" for case in fired)
    report(
        request,
        "I/O faults",
        f"{title}: {len(fired)} met, {len(tried) - len(fired)} never; seed {SEED}; "
        f"{dict(outcomes)}; {dict(calls)}",
    )


@pytest.mark.parametrize("first", range(0, min(CASES, len(every_case())), AT_ONCE))
def test_whatever_call_fails_what_was_answered_is_true(
    tmp_path: Path, request: pytest.FixtureRequest, first: int
) -> None:
    trial = Trial(tmp_path / "logged")
    every = every_case()
    random.Random(SEED).shuffle(every)
    tried = {case: trial.run(case) for case in every[first : min(first + AT_ONCE, CASES)]}
    tell(request, f"cases {first + 1} to {first + len(tried)} of {len(every)}", tried)
    bad = {case: each.faults for case, each in tried.items() if each.faults}
    assert not bad


def test_a_failed_commit_taken_for_done_is_caught(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    trial = Trial(tmp_path / "logged", IGNORED_COMMIT)
    tried: dict[Case, Tried] = {}
    for number in range(1, CAUGHT_WITHIN + 1):
        case = Case("load", "pwrite", "EIO", 3 * number)
        tried[case] = trial.run(case)
        if tried[case].faults:
            break
    tell(request, f"control, caught at case {number}", tried)
    assert tried[case].faults
