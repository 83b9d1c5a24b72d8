"""The sweeper goes on whatever happens to a round; what is swept, and in which order is read."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import SimpleNamespace

import pytest

from idpass_server.engine import sweeper
from idpass_server.engine.reads import CHUNK_PASSES, Reads
from idpass_server.rules.commands import Command, Outcome, Settled
from idpass_server.rules.records import Account, Event, Pass, Status
from idpass_server.rules.refusals import StoreUnavailable
from kit.records import a_pass, account
from kit.support import FakeTime


class Sweeps:
    """Rounds that end as they are told to, one after the other."""

    def __init__(self, *ends: Callable[[], bool]) -> None:
        self._ends: Iterator[Callable[[], bool]] = iter(ends)
        self.claims = 0
        self.sweeps = 0
        self.warned = 0
        self.done = asyncio.Event()

    async def claim_sweep(self) -> bool:
        self.claims += 1
        end = next(self._ends, None)
        if end is None:
            self.done.set()
            return False
        return end()

    async def sweep(self) -> None:
        self.sweeps += 1

    def warn(self, name: str, warning: str | None) -> None:
        assert (name, warning) == ("clock", None)
        self.warned += 1


def unavailable() -> bool:
    raise StoreUnavailable("the database is out of reach; nothing was changed")


def fault() -> bool:
    raise RuntimeError("a bug")


@pytest.mark.parametrize(("end", "said"), [(unavailable, "postponed"), (fault, "failed")])
async def test_a_round_that_fails_is_told_and_followed_by_others(
    end: Callable[[], bool], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    log = SimpleNamespace(warning=lambda event, **_: told.append(event), exception=told.append)
    monkeypatch.setattr(sweeper, "log", log)
    monkeypatch.setattr(sweeper, "INTERVAL_S", 0)
    rounds = Sweeps(end, lambda: True, lambda: False, end, lambda: True)
    task = asyncio.create_task(
        sweeper.Sweeper(rounds, FakeTime().clock(), rounds).run()  # type: ignore[arg-type]
    )
    async with asyncio.timeout(30):
        await asyncio.wait(
            {task, asyncio.create_task(rounds.done.wait())}, return_when=asyncio.FIRST_COMPLETED
        )
    assert not task.done()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert rounds.sweeps == 2  # and none while another process has the sweep
    assert rounds.warned == rounds.claims
    assert told == [f"sweep_{said}"] * 2


class World:
    """Store and engine in one, with passes whose timers are due."""

    def __init__(self, due: int) -> None:
        self.due_passes = [a_pass(Status.NEW)._replace(id=str(number)) for number in range(due)]
        self.outcome: Outcome = Settled()
        self.asked: list[str] = []
        self.last_sequence = 0

    def due(self, due_us: int, limit: int, account: str | None) -> list[Pass]:
        assert due_us > 0
        assert account == "acme"
        return self.due_passes[:limit]

    def submit(self, commands: Sequence[Command]) -> "asyncio.Future[list[Outcome]]":
        answer: asyncio.Future[list[Outcome]] = asyncio.get_running_loop().create_future()
        answer.set_result([*(Settled() for _ in commands[1:]), self.outcome])
        if isinstance(self.outcome, Settled):
            del self.due_passes[: len(commands)]
        return answer

    # What is read of one pass, while an event comes between any two reads.

    def get_account(self, name: str) -> Account:
        self.asked.append("account")
        self.last_sequence += 1
        return account(name=name, last_sequence=self.last_sequence)

    def get_pass(self, _account: str, _id: str) -> Pass:
        self.asked.append("pass")
        return a_pass(Status.OPENED)

    def events(self, _account: str, _after: int, _limit: int, _id: str) -> list[Event]:
        self.asked.append("events")
        return []


@contextmanager
def reading(world: World) -> Iterator[Reads]:
    clock = FakeTime().clock()
    reads = Reads(world, world, clock, threads=1, on_broken=pytest.fail)  # type: ignore[arg-type]
    try:
        yield reads
    finally:
        reads.close()


async def test_a_sweep_that_the_engine_refuses_is_no_sweep() -> None:
    world = World(2)
    world.outcome = StoreUnavailable("the disk is full")
    with reading(world) as reads, pytest.raises(StoreUnavailable, match="the disk is full"):
        await reads.sweep("acme")


@pytest.mark.parametrize("due", [0, CHUNK_PASSES - 1, 2 * CHUNK_PASSES, 2 * CHUNK_PASSES + 1])
async def test_a_sweep_goes_on_until_nothing_is_due(due: int) -> None:
    world = World(due)
    with reading(world) as reads:
        await reads.sweep("acme")
    assert world.due_passes == []


async def test_the_events_of_a_pass_are_read_after_the_position_they_reach() -> None:
    """Or a watcher would take an event that came in between for seen."""
    world = World(0)
    with reading(world) as reads:
        found = await reads.pass_events("acme", "id", 0, 10)
    assert found is not None
    assert found.up_to == 1
    assert world.asked == ["account", "pass", "events"]
