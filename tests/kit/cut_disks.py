"""Opens disks as a power cut leaves them with the product, and looks for what was promised."""

import itertools
import multiprocessing
import os
import shutil
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

from google.protobuf.message import Message

from idpass.v1 import id_pass_service_pb2 as service_pb
from idpass_server import logs
from idpass_server.api import requests, responses
from idpass_server.api.identity import DEMO
from idpass_server.ids import new_uuid
from idpass_server.rules.commands import Command, Register, Registered
from idpass_server.rules.refusals import Refusal
from idpass_server.store import CannotOpen, Store
from idpass_server.store.opening import audit_store, open_store
from kit.disk_log import Record
from kit.power import Cut
from kit.serving import url_of
from kit.support import STATUS
from kit.witness import Call

DB: Final = "idpass.db"
PROCESSES: Final = 2
_AT_ONCE: Final = 25
"""Number of disks given to a process at once."""
_READ: Final[dict[str, tuple[Callable[..., Any], Callable[..., Command]]]] = {
    "register": (service_pb.RegisterRequest, requests.register),
    "advance": (service_pb.AdvanceRequest, requests.advance),
    "cancel": (service_pb.CancelRequest, requests.cancel),
}
_ANSWER: Final[dict[str, Callable[[Any], Any]]] = {
    "register": responses.register_response,
    "advance": responses.advance_response,
    "cancel": responses.cancel_response,
}


class Answered(NamedTuple):
    """An answer that somebody may have got.

    Attributes:
        position: in the log, of the first message that has its reference.
        method: of kit.support.Calls.
        command: that it answers.
        answer: as a caller sees it.
    """

    position: int
    method: str
    command: Command
    answer: Message


def answered(calls: Iterable[Call], records: Sequence[Record], after: int = 0) -> list[Answered]:
    """When each call was answered.

    Args:
        calls: any; those without an answer are left out.
        records: of the log.
        after: position from which answers to these calls are looked for.
    """
    sent = [(at, each.data) for at, each in enumerate(records) if each.kind == "s" and at >= after]
    found = []
    for method, fields, answer in calls:
        if answer is not None:
            reference = answer.reference.encode()
            position = next((at for at, data in sent if reference in data), None)
            assert position is not None, f"no message has the reference of {fields}"
            found.append(Answered(position, method, command_of(method, fields), answer))
    return found


def command_of(method: str, fields: dict[str, Any]) -> Command:
    """The command that a call asks for."""
    message, read = _READ[method]
    fields = dict(fields)
    if "pass_id" in fields:
        fields["id"] = fields.pop("pass_id")
    if "to" in fields:
        fields["to_status"] = STATUS[fields.pop("to")]
    return read(message(**fields), DEMO, new_uuid())


@dataclass
class Promise:
    """What must be true of a disk.

    Attributes:
        answers: that were given, in order.
        marks: positions in the log, by name.
    """

    answers: list[Answered]
    marks: dict[str, int] = field(default_factory=dict)

    def faults(self, folder: Path, position: int) -> list[str]:
        """What is wrong with a disk; what is promised is that there is nothing.

        Args:
            folder: that has the disk's files.
            position: in the log, at which the power failed.
        """
        try:
            store = open_store(url_of(folder / DB), create=True)
        except CannotOpen as error:
            return [f"it cannot be opened: {error}"]
        with closing(store):
            found = self.broken(store, folder, position)
            new = Register("demo", "demo", new_uuid(), None, new_uuid())
            (outcome,) = store.commit([new], time.time_ns() // 1_000).outcomes
            if not isinstance(outcome, Registered):
                found.append(f"a new pass is refused: {outcome}")
        return found + audit_store(url_of(folder / DB)).problems

    def broken(self, store: Store, folder: Path, position: int) -> list[str]:  # noqa: ARG002 for others
        """Which promises are broken."""
        return lost(store, self.until(position))

    def until(self, position: int) -> list[Answered]:
        """The answers given before a position."""
        return [each for each in self.answers if each.position <= position]

    def past(self, mark: str, position: int) -> bool:
        """Whether something had happened by then."""
        return self.marks.get(mark, position + 1) <= position


def lost(store: Store, answers: Sequence[Answered]) -> list[str]:
    """The answers that a retry does not get again."""
    found = []
    for start in range(0, len(answers), 500):
        some = answers[start : start + 500]
        commands = [each.command for each in some]
        outcomes = store.commit(commands, time.time_ns() // 1_000).outcomes
        for (_, method, command, first), outcome in zip(some, outcomes, strict=True):
            if isinstance(outcome, Refusal):
                found.append(f"{command.request_id} was answered, and is refused: {outcome!r}")
                continue
            again = _ANSWER[method](outcome)
            replayed, again.replayed = again.replayed, first.replayed  # type: ignore[attr-defined]
            if not replayed:
                found.append(f"{command.request_id} was answered, and is done again")
            elif again != first:
                found.append(f"{command.request_id} was answered {first}, and is now {again}")
    return found


def unsettled(store: Store, commands: Sequence[Command]) -> list[str]:
    """The commands of calls without an answer that have not one outcome."""
    now_us = time.time_ns() // 1_000
    first, again = (store.commit(commands, now_us).outcomes for _ in range(2))
    return [
        f"{command.request_id} has the outcomes {one!r} and {other!r}"
        for command, one, other in zip(commands, first, again, strict=True)
        if isinstance(one, Refusal) or other != one._replace(replayed=True)  # type: ignore[call-arg]
    ]


class Bad(NamedTuple):
    """A disk on which something promised is not true."""

    cut: Cut
    faults: list[str]


@dataclass
class Looked:
    """What came of looking at disks.

    Attributes:
        disks: number of disks that differ.
        looks: number of looks; a disk is looked at again after more answers.
        policies: number of looks by how the disk was drawn.
        phases: number of looks by what was going on.
        bad: the first disks on which something promised is not true.
        needed: number of looks up to the first of them.
    """

    disks: int = 0
    looks: int = 0
    policies: Counter[str] = field(default_factory=Counter)
    phases: Counter[str] = field(default_factory=Counter)
    bad: list[Bad] = field(default_factory=list)
    needed: int | None = None


_promise: Promise
_folder: Path


def _begin(promise: Promise, folder: str) -> None:
    global _promise, _folder
    logs.configure_lines("critical")
    _promise, _folder = promise, Path(folder) / str(os.getpid())


def _look(cuts: Sequence[Cut]) -> list[list[str]]:
    return [_faults(each) for each in cuts]


def _faults(cut: Cut) -> list[str]:
    shutil.rmtree(_folder, ignore_errors=True)
    _folder.mkdir()
    for name, content in cut.files.items():
        (_folder / name).write_bytes(content)
        (_folder / name).chmod(0o600)
    # Never synced, and of no matter to who comes first.
    (_folder / f"{DB}-shm").write_bytes(os.urandom(32_768))
    (_folder / f"{DB}-shm").chmod(0o600)
    try:
        return _promise.faults(_folder, cut.position)
    except Exception as error:  # noqa: BLE001 whatever a disk does to the product is a finding
        return [f"{type(error).__name__}: {error}"]


def look(
    cuts: Iterable[Cut],
    promise: Promise,
    phases: Sequence[str],
    *,
    enough: int | None = None,
) -> Looked:
    """Looks at disks, several at a time.

    Args:
        cuts: the disks.
        promise: what must be true of each.
        phases: what was going on at each position.
        enough: number of bad disks after which it ends.
    """
    looked = Looked()
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    folder = tempfile.mkdtemp(prefix="idpass-cuts-", dir=memory)
    spawn = multiprocessing.get_context("spawn")
    seen: set[bytes] = set()
    try:
        with ProcessPoolExecutor(PROCESSES, spawn, _begin, (promise, folder)) as pool:
            for cut, faults in _results(pool, cuts):
                seen.add(cut.known)
                looked.looks += 1
                looked.policies[cut.policy] += 1
                looked.phases[phases[cut.position]] += 1
                if faults:
                    looked.needed = looked.needed or looked.looks
                    looked.bad.append(Bad(cut, faults))
                    if len(looked.bad) == enough:
                        break
            pool.shutdown(cancel_futures=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    looked.disks = len(seen)
    return looked


def _results(pool: ProcessPoolExecutor, cuts: Iterable[Cut]) -> Iterator[tuple[Cut, list[str]]]:
    waiting: deque[tuple[list[Cut], Future[list[list[str]]]]] = deque()
    rest = iter(cuts)
    while True:
        while len(waiting) < 2 * PROCESSES and (some := list(itertools.islice(rest, _AT_ONCE))):
            waiting.append((some, pool.submit(_look, some)))
        if not waiting:
            return
        some, future = waiting.popleft()
        yield from zip(some, future.result(), strict=True)
