"""The eraser looks through every page of every account, by the time that can be trusted."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from typing import Any

import pytest

from idpass_server.engine import eraser
from idpass_server.engine.clock import SECOND_US
from idpass_server.engine.eraser import Eraser
from idpass_server.rules.commands import Command, Erased, Outcome
from idpass_server.rules.refusals import StoreUnavailable
from idpass_server.store.retention import Found, Wanted
from kit.support import FakeTime

AGE_S = 30
PAGES: dict[str, list[tuple[list[str], str | None]]] = {
    "acme": [(["a", "b"], "b"), ([], "x"), (["c"], None)],
    "beta": [(["d"], None)],
}


class World:
    """Store, reads and engine in one: pages as written above, and what was erased of them."""

    def __init__(self) -> None:
        self.time = FakeTime()
        self.clock = self.time.clock()
        self.asked: list[Wanted] = []
        self.erased: list[str] = []
        self.failures: list[Exception] = []
        self.rounds = 0

    def account_names(self) -> list[str]:
        self.rounds += 1
        return list(PAGES)

    def find_passes(self, wanted: Wanted, after_id: str | None, limit: int) -> Found:
        assert limit == eraser.STEP_PASSES
        if self.failures:
            failure = self.failures.pop()
            raise failure
        self.asked.append(wanted)
        starts = [None, *(next_id for _, next_id in PAGES[wanted.account])]
        return Found(*PAGES[wanted.account][starts.index(after_id)])

    async def claim_sweep(self) -> bool:
        return True

    async def run(self, read: Callable[..., Any], *args: Any) -> Any:
        await asyncio.sleep(0)
        return read(*args)

    async def submit(self, commands: Sequence[Command]) -> list[Outcome]:
        self.erased += [str(command.subject) for command in commands]
        return [Erased(None) for _ in commands]


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(eraser, "STEP_S", 0)
    monkeypatch.setattr(eraser, "REST_S", 0.001)
    made: Any = World()
    task = asyncio.create_task(Eraser(made, made, made, made.clock, age_s=AGE_S).run())
    yield made
    assert not task.done()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def rounds(world: World, count: int) -> None:
    async with asyncio.timeout(30):
        while world.rounds <= count:
            await asyncio.sleep(0)


async def test_every_page_of_every_account_is_looked_at(world: World) -> None:
    await rounds(world, 1)
    assert world.erased[:4] == ["a", "b", "c", "d"]


@pytest.mark.parametrize("failure", [StoreUnavailable("away"), ValueError("a bug")])
async def test_a_round_that_fails_is_followed_by_others(world: World, failure: Exception) -> None:
    world.failures = [failure]
    await rounds(world, 2)
    assert world.erased[:4] == ["a", "b", "c", "d"]


async def test_a_clock_that_has_jumped_makes_nothing_older(world: World) -> None:
    trusted_us = world.time.now_us
    world.time.synchronised = False
    world.time.jump(days=365)
    world.clock.keep(world.time.now_us)  # as another host did, whose clock has jumped as well
    await rounds(world, 1)
    assert {each.ended_before_us for each in world.asked} == {trusted_us - AGE_S * SECOND_US}
