"""Promise: OK means on disk; when a whole machine loses its power, there is no repair step.

Means: the server runs on a machine of its own (kit/machine.py): a Linux kernel as a process, a file
system on a disk with a cache that is lost with the power. The callers are outside, on the network,
and keep every answer. The power is cut right after an answer, before any flush of the disk under
load, or before any while the machine starts again. Of what its cache held the disk keeps nothing,
all, or any sectors. Then the machine starts, the file system plays its journal, the server starts,
and the callers go on; nothing else is done. Every answer must be given again, and once; every call
without one has one outcome; the audit in the end is clean, as nothing repairs what it would find.

Controls, each of which must be caught: `synchronous=NORMAL`; a file system that is mounted not to
flush the disk's cache.

Blind spots: a processor by itself, and times that are not a real machine's; clocks go on while the
power is off, as with a battery; the disk damages no sector and does not lie (test_power_cuts shows
that nothing helps against that). PostgreSQL's files are PostgreSQL's promise.
"""

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import grpc
import pytest

from kit.logged_service import NOT_FULL, RUN, SMALL_WAL
from kit.machine import PATIENCE_S, FileSystem, Machine, missing
from kit.proving import MINUTES, times
from kit.sectors import POLICIES
from kit.support import report
from kit.witness import Call, Witness, callers, check, check_at

CUTS: Final = times(2, 0.25)
"""How often the power is cut, for each file system."""
FILE_SYSTEMS: Final = (
    FileSystem("ext4"),
    FileSystem("ext4", options="data=journal"),
    FileSystem("ext4", options="data=writeback"),
    FileSystem("xfs", 320),
    FileSystem("btrfs", 128),
)
TRIED: Final = FILE_SYSTEMS if MINUTES >= 10 else FILE_SYSTEMS[:1]
MOMENTS: Final = ("change", "start", "answer")
CALLERS: Final = 3
ANSWERS: Final = 60
"""How many calls at most are answered between a start and a cut."""
CHANGES: Final = 40
"""How many writes and flushes of the disk follow at most, before the flush that fails."""
SEED: Final = random.getrandbits(32) if MINUTES > 3 else 14
CAUGHT_WITHIN: Final = 3
"""Number of cuts within which each control is caught."""


class Drill:
    """A machine, and callers outside who keep every answer.

    Attributes:
        witness: of the callers.
        made: calls that have been looked at.
    """

    def __init__(self, machine: Machine, witness: Witness, draw: random.Random) -> None:
        self.witness = witness
        self.made: list[Call] = []
        self._machine, self._draw = machine, draw
        self._start_changes = 1
        self._quiet = ExitStack()
        self._quiet.enter_context(witness.paused())

    def life(self, moment: str) -> list[str]:
        """The machine starts, is looked at, and serves until its power is cut at a moment.

        Args:
            moment: one of MOMENTS.

        Returns:
            What the cut before has cost.
        """
        disk = self._machine.disk
        if moment == "start":
            self._machine.start(self._draw.randint(1, self._start_changes))
        with self._machine.on():
            self._start_changes = disk.changes
            lost = self.look()
            with self._calls():
                self.witness.wait_for_answers(self._draw.randint(1, ANSWERS))
                if moment == "change":
                    disk.stop_after(self._draw.randrange(CHANGES))
                    assert disk.stopped.wait(PATIENCE_S)
        return lost

    @contextmanager
    def _calls(self) -> Iterator[None]:
        """Lets the callers begin new calls meanwhile."""
        self._quiet.close()
        try:
            yield
        finally:
            self._quiet.enter_context(self.witness.paused())

    def look(self) -> list[str]:
        """What is not true any more of the calls since the last look."""
        made, lost = self.witness.take(), []
        self.made += made
        calls = self._machine.access.calls_to(self._machine.address)
        with calls.channel:
            for call in made:
                try:
                    check(calls, [call])
                except (AssertionError, grpc.RpcError) as error:
                    lost.append(f"{call}: {error}")
        return lost


@contextmanager
def drilled(machine: Machine, seed: int, *, may_lose: bool = False) -> Iterator[Drill]:
    witness = Witness(seed, may_lose=may_lose)
    with callers(machine.address, witness, CALLERS, machine.access):
        yield Drill(machine, witness, random.Random(seed))


def tell(request: pytest.FixtureRequest, name: str, machine: Machine, drill: Drill) -> None:
    answers = sum(call.answer is not None for call in drill.made)
    cached = [cut.cached for cut in machine.cuts]
    report(
        request,
        "Machines",
        f"{name}: {len(cached)} cuts, seed {SEED}, {answers} answers, {len(drill.made) - answers} "
        f"calls without one; {sum(cut.changes for cut in machine.cuts)} writes and flushes; in the "
        f"cache {sum(map(bool, cached))} times something, at most {max(cached)} writes; by policy "
        f"{dict(Counter(cut.policy for cut in machine.cuts))}",
    )


def skip_where_missing(file_system: FileSystem) -> None:
    if reason := missing(file_system):
        pytest.skip(reason)


@pytest.mark.parametrize("file_system", TRIED, ids=lambda each: f"{each.name} {each.options}")
def test_nothing_answered_is_lost_when_the_power_of_a_machine_is_cut(
    tmp_path: Path, request: pytest.FixtureRequest, file_system: FileSystem
) -> None:
    skip_where_missing(file_system)
    draw = random.Random(SEED)
    moments = [MOMENTS[number % len(MOMENTS)] for number in range(CUTS)]
    with Machine(tmp_path / "machine", file_system, SMALL_WAL + RUN, draw) as machine:
        with drilled(machine, SEED) as drill:
            for moment in moments:
                assert drill.life(moment) == []
            with machine.on() as running:
                drill.witness.stop()
                assert drill.look() == []
                check_at(machine.address, drill.made, CALLERS, machine.access)
                running.audit()
        tell(request, f"{file_system.name}, {file_system.options}", machine, drill)


CONTROLS: Final = {
    "synchronous=NORMAL": (FileSystem("ext4"), NOT_FULL, POLICIES),
    "a disk that is never flushed": (FileSystem("ext4", options="nobarrier"), SMALL_WAL, ("none",)),
}


@pytest.mark.parametrize("control", CONTROLS)
def test_a_promise_taken_out_is_missed(
    tmp_path: Path, request: pytest.FixtureRequest, control: str
) -> None:
    file_system, patch, policies = CONTROLS[control]
    skip_where_missing(file_system)
    draw = random.Random(SEED)
    with Machine(tmp_path / "machine", file_system, patch + RUN, draw, policies) as machine:
        with drilled(machine, SEED, may_lose=True) as drill:
            drill.life("answer")
            lost = next(filter(None, (drill.life("answer") for _ in range(CAUGHT_WITHIN))), [])
        tell(request, f"control, {control}: {len(lost)} answers lost", machine, drill)
    assert lost
