"""The engine: what is batched, given up, refused, and what one fault does to its neighbours."""

import asyncio
import math
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from idpass_server.engine import busy, writes
from idpass_server.engine.clock import Clock
from idpass_server.engine.submissions import Taken
from idpass_server.engine.writes import Engine
from idpass_server.rules.commands import Command, Expire, Outcome, Settled
from idpass_server.rules.refusals import (
    InternalFault,
    Overloaded,
    PassNotFound,
    StoreUnavailable,
)
from idpass_server.store import Committed, StoreBroken


class FakeStore:
    """Records batches; waits where it is told to, and fails on commands named so."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.may_commit = asyncio.Event()
        self.began = threading.Event()
        self.busy: set[str] = set()
        self.failure: Callable[[], Exception] = lambda: RuntimeError("a bug")
        self.decide: Callable[[Command], Outcome] = lambda _: Settled()
        self.checks = 0
        self.times: list[int] = []
        self._loop = asyncio.get_running_loop()

    def commit(self, commands: Sequence[Command], now_us: int, due_us: int) -> Committed:
        self.times.append(now_us)
        assert now_us >= due_us > 0
        self.began.set()
        asyncio.run_coroutine_threadsafe(self.may_commit.wait(), self._loop).result(30)
        ids = [str(command.subject) for command in commands]
        self.batches.append(ids)
        if "bad" in ids:
            raise self.failure()
        refusal = StoreUnavailable("busy; nothing was changed")
        outcomes: list[Outcome] = [
            refusal if command.account in self.busy else self.decide(command)
            for command in commands
        ]
        return Committed(outcomes, {"demo": len(self.batches)}, frozenset(self.busy))

    def check(self) -> None:
        self.checks += 1


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.001)


class Bench:
    """An engine on a fake store."""

    def __init__(self) -> None:
        self.store = FakeStore()
        self.broken: list[StoreBroken] = []
        self.notified: list[Mapping[str, int]] = []
        self.taken: list[Taken] = []
        self.engine = Engine(
            self.store,  # type: ignore[arg-type]
            Clock(),
            max_pending=10,
            on_commit=self.notified.append,
            on_broken=self.broken.append,
            on_batch=self.taken.append,
        )

    def submit(self, *ids: str, account: str = "demo", **options: Any) -> "asyncio.Future[Any]":
        return self.engine.submit([Expire(account, "ref", pass_id) for pass_id in ids], **options)

    async def hold(self) -> "asyncio.Future[Any]":
        """Has one command taken, and its commit wait, so that all others queue up behind it."""
        first = self.submit("first")
        await asyncio.to_thread(self.store.began.wait, 30)
        return first


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    yield made
    made.store.may_commit.set()
    await made.engine.stop()


async def test_what_waits_is_committed_together_and_in_order(bench: Bench) -> None:
    first = await bench.hold()
    rest = [bench.submit("a"), bench.submit("b", "c"), bench.submit("d")]
    bench.store.may_commit.set()
    assert await first == [Settled()]
    assert [await answer for answer in rest] == [[Settled()], [Settled()] * 2, [Settled()]]
    assert bench.store.batches == [["first"], ["a", "b", "c", "d"]]
    assert bench.notified == [{"demo": 1}, {"demo": 2}]


async def test_a_call_whose_caller_left_is_not_started(bench: Bench) -> None:
    await bench.hold()
    bench.submit("left").cancel()
    stays = bench.submit("stays")
    bench.store.may_commit.set()
    await stays
    assert bench.store.batches == [["first"], ["stays"]]
    await eventually(lambda: bench.engine.pending == 0)


async def test_a_call_whose_deadline_passed_is_not_started(bench: Bench) -> None:
    await bench.hold()
    late = bench.submit("late", deadline_s=time.monotonic())
    bench.store.may_commit.set()
    with pytest.raises(TimeoutError):
        await late
    assert bench.store.batches == [["first"]]
    assert bench.engine.pending == 0


async def test_a_commit_that_has_begun_is_finished_though_its_caller_left(bench: Bench) -> None:
    first = await bench.hold()
    first.cancel()
    bench.store.may_commit.set()
    await eventually(lambda: bench.engine.pending == 0)
    assert bench.store.batches == [["first"]]


async def test_a_caller_that_leaves_during_the_commit_leaves_the_others_their_own_answers(
    bench: Bench,
) -> None:
    """Or one caller would get another's receipt."""
    bench.store.decide = lambda command: PassNotFound(str(command.subject))
    calls = [bench.submit("a"), bench.submit("b", "c"), bench.submit("d"), bench.submit("e", "f")]
    await asyncio.to_thread(bench.store.began.wait, 30)
    calls[1].cancel()
    bench.store.may_commit.set()
    answers = [await calls[number] for number in (0, 2, 3)]
    told = [[outcome.pass_id for outcome in answer] for answer in answers]
    assert told == [["a"], ["d"], ["e", "f"]]
    assert bench.store.batches == [["a", "b", "c", "d", "e", "f"]]
    await eventually(lambda: bench.engine.pending == 0)


async def test_too_many_waiting_commands_are_refused_until_there_is_room(bench: Bench) -> None:
    await bench.hold()
    waiting = bench.submit(*"abcdefgh")
    with pytest.raises(Overloaded):
        bench.submit("x", "y")
    fits = bench.submit("z")
    with pytest.raises(Overloaded):
        bench.submit("x")
    bench.store.may_commit.set()
    await asyncio.gather(waiting, fits)
    assert bench.engine.pending == 0
    await bench.submit("x")


async def test_a_fault_in_one_call_spares_its_neighbours(bench: Bench) -> None:
    await bench.hold()
    good, bad, also_good = bench.submit("good"), bench.submit("bad", "x"), bench.submit("fine")
    bench.store.may_commit.set()
    assert await good == [Settled()]
    assert [type(outcome) for outcome in await bad] == [InternalFault, InternalFault]
    assert await also_good == [Settled()]
    assert bench.engine.pending == 0


async def test_a_full_disk_refuses_the_batch_and_the_next_one_is_tried(bench: Bench) -> None:
    bench.store.failure = lambda: StoreUnavailable("the disk is full")
    bench.store.may_commit.set()
    (outcome,) = await bench.submit("bad")
    assert isinstance(outcome, StoreUnavailable)
    assert await bench.submit("good") == [Settled()]
    assert bench.broken == []


@pytest.mark.parametrize("unknown", [True, False])
async def test_a_broken_store_takes_no_more(bench: Bench, unknown: bool) -> None:
    bench.store.failure = lambda: StoreBroken("EIO", outcome_unknown=unknown)
    await bench.hold()
    bad, behind = bench.submit("bad"), bench.submit("behind")
    bench.store.may_commit.set()
    for answer in (bad, behind):
        (outcome,) = await answer
        assert isinstance(outcome, StoreUnavailable)
        assert outcome.outcome_unknown is unknown
    with pytest.raises(StoreUnavailable):
        bench.submit("more")
    assert len(bench.broken) == 1


async def test_what_waited_behind_a_store_that_broke_is_not_given_to_it(bench: Bench) -> None:
    bench.store.failure = lambda: StoreBroken("EIO", outcome_unknown=True)
    bad = bench.submit("bad")
    await asyncio.to_thread(bench.store.began.wait, 30)
    work: list[object] = []
    queued = asyncio.gather(
        bench.submit("behind"),
        bench.engine.run(work.append),
        bench.engine.check(30),
        return_exceptions=True,
    )
    await asyncio.sleep(0)  # so that all of them are in the queue
    bench.store.may_commit.set()
    await bad
    behind, *others = await queued
    assert isinstance(behind, list)
    for refusal in (*behind, *others):
        assert isinstance(refusal, StoreUnavailable)
        assert not refusal.outcome_unknown
    assert (bench.store.batches, work, bench.store.checks) == ([["bad"]], [], 0)
    assert bench.engine.pending == 0
    with pytest.raises(StoreUnavailable):
        await bench.engine.run(work.append)
    assert len(bench.broken) == 1


async def test_a_batch_takes_no_more_once_it_is_large(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writes, "MAX_BATCH_COMMANDS", 3)
    await bench.hold()
    waiting = []
    for ids in ("ab", "cd", "ef"):
        waiting.append(bench.submit(*ids))
        await asyncio.sleep(0)  # each in a turn of the event loop of its own
    bench.store.may_commit.set()
    await asyncio.gather(*waiting)
    assert bench.store.batches == [["first"], ["a", "b", "c", "d"], ["e", "f"]]


async def test_a_commit_proves_for_a_second_that_changes_can_be_stored(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.store.may_commit.set()
    await bench.submit("a")
    monkeypatch.setattr(writes, "RECENT_S", 3_600.0)
    await bench.engine.check(30)
    assert bench.store.checks == 0
    monkeypatch.setattr(writes, "RECENT_S", 0.0)
    for checks in (1, 2):
        await bench.engine.check(30)
        assert bench.store.checks == checks


async def test_time_does_not_go_back_behind_what_is_stored(bench: Bench) -> None:
    bench.store.may_commit.set()
    clock = bench.engine._clock
    await bench.submit("a")
    stored_us = bench.store.times[-1]
    clock._wall = lambda: stored_us - 30_000_000  # the clock is set back by less than a jump
    await bench.submit("b")
    assert bench.store.times[-1] >= stored_us


async def test_stopping_finishes_what_was_submitted(bench: Bench) -> None:
    await bench.hold()
    last = bench.submit("last")
    bench.store.may_commit.set()
    await bench.engine.stop()
    assert await last == [Settled()]


async def test_what_waits_for_a_busy_account_is_tried_again_with_what_comes_after(
    bench: Bench,
) -> None:
    bench.store.may_commit.set()
    bench.store.busy.add("other")
    waits = bench.submit("waits", account="other")
    assert await bench.submit("goes on") == [Settled()]
    assert not waits.done()
    bench.store.busy.clear()
    assert await waits == [Settled()]
    assert bench.engine.pending == 0


async def test_a_call_that_cannot_wait_for_its_account_is_refused(bench: Bench) -> None:
    bench.store.may_commit.set()
    bench.store.busy.add("other")
    soon_s = time.monotonic() + busy.ANSWER_S
    (outcome,) = await bench.submit("soon", account="other", deadline_s=soon_s)
    assert isinstance(outcome, StoreUnavailable)


async def test_an_account_that_stays_busy_is_no_longer_waited_for(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(busy, "WAIT_S", 0.1)
    bench.store.may_commit.set()
    bench.store.busy.add("other")
    waited = bench.submit("first", account="other")
    assert isinstance((await waited)[0], StoreUnavailable)
    batches = len(bench.store.batches)
    (outcome,) = await bench.submit("next", account="other")
    assert isinstance(outcome, StoreUnavailable)
    assert bench.store.batches[batches:] == [["next"]]


def test_the_wait_for_an_account_begins_once_and_anew_after_it_was_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_s = 0.0
    monkeypatch.setattr(busy, "time", SimpleNamespace(monotonic=lambda: now_s))
    accounts = busy.BusyAccounts()

    def seen(account: str, at_s: float, is_busy: bool = True) -> None:
        nonlocal now_s
        now_s = at_s
        accounts.update([account, "other"], {account} if is_busy else ())

    for tenths in range(0, 25, 5):
        assert tenths == 0 or accounts.worth_waiting("acme", math.inf)
        seen("acme", tenths / 10)
    assert not accounts.worth_waiting("acme", math.inf)
    seen("acme", 2.1, is_busy=False)
    seen("acme", 2.2)
    assert accounts.worth_waiting("acme", math.inf)
    assert accounts.worth_waiting("acme", now_s + busy.ANSWER_S + 0.01)
    assert not accounts.worth_waiting("acme", now_s + busy.ANSWER_S)


async def test_stopping_finishes_what_waits_for_a_busy_account(bench: Bench) -> None:
    bench.store.may_commit.set()
    bench.store.busy.add("other")
    waits = bench.submit("waits", account="other")
    await bench.engine.stop()
    assert isinstance((await waits)[0], StoreUnavailable)


async def test_each_batch_is_told_with_its_calls_before_they_are_answered(bench: Bench) -> None:
    first = await bench.hold()
    rest = [bench.submit("a"), bench.submit("b", "c")]
    for answer in (first, *rest):
        answer.add_done_callback(lambda _: told.append(len(bench.taken)))
    told: list[int] = []
    bench.store.may_commit.set()
    await asyncio.gather(first, *rest)
    await eventually(lambda: len(told) == 3)
    assert told == [1, 2, 2]
    assert [len(taken.submissions) for taken in bench.taken] == [1, 2]
    for taken in bench.taken:
        assert taken.stored
        assert taken.taken_s <= taken.ended_s
        assert all(each.submitted_s <= taken.taken_s for each in taken.submissions)


async def test_a_batch_that_failed_is_told_as_that_call_by_call(bench: Bench) -> None:
    first = await bench.hold()
    good, bad = bench.submit("good"), bench.submit("bad")
    bench.store.may_commit.set()
    await asyncio.gather(first, good, bad)
    told = [(each.submissions[0].commands[0].subject, each.stored) for each in bench.taken]
    assert told == [("first", True), ("good", True), ("bad", False)]
