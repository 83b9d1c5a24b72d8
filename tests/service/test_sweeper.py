"""The sweeper goes on, whatever happens to one of its rounds."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from idpass_server.engine import sweeper
from idpass_server.engine.reads import Reads
from idpass_server.rules.commands import Outcome, Settled
from idpass_server.rules.records import Status
from idpass_server.rules.refusals import StoreUnavailable
from kit.records import a_pass
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


@pytest.mark.parametrize("end", [unavailable, fault])
async def test_a_round_that_fails_is_followed_by_others(
    end: Callable[[], bool], monkeypatch: pytest.MonkeyPatch
) -> None:
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


async def test_a_sweep_that_the_engine_refuses_is_no_sweep() -> None:
    class Full:
        def submit(self, commands: list[object]) -> "asyncio.Future[list[Outcome]]":
            answer: asyncio.Future[list[Outcome]] = asyncio.get_running_loop().create_future()
            answer.set_result([Settled(), StoreUnavailable("the disk is full")][: len(commands)])
            return answer

    reads = Reads(
        None,  # type: ignore[arg-type]
        Full(),  # type: ignore[arg-type]
        FakeTime().clock(),
        threads=1,
        on_broken=pytest.fail,
    )
    try:
        with pytest.raises(StoreUnavailable, match="the disk is full"):
            await reads._expire([a_pass(Status.NEW), a_pass(Status.OPENED)])
    finally:
        reads.close()
