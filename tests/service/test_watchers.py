"""Watchers on a fake store: whatever comes late, in which order ever, nobody misses an event."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idpass.v1.id_pass_pb2 import IdPassEvent
from idpass_server.api import watch
from idpass_server.api.watch import Watchers
from idpass_server.engine.reads import PassEvents, Stretch
from idpass_server.rules.records import Event, Pass
from idpass_server.rules.refusals import InvalidRequest, StoreUnavailable

WAY = ("new", "opened", "cancelled")
PASSES = 3
STEPS = 3_000
"""Turns of the loop in which everything must have arrived."""


def event(sequence: int, pass_id: str, step: int) -> Event:
    return Event(
        account="demo",
        sequence=sequence,
        id_pass_id=pass_id,
        from_status=WAY[step - 1] if step else None,
        to_status=WAY[step],
        event_time_us=sequence,
        caller="demo",
        request_id=None,
        request_digest=None,
        reference="",
        currency="AUD",
        charge_micros=None,
        refund_micros=None,
        reason="",
        previous_sequence=None,
    )


class FakeReads:
    """What a store has, and how much of it a read sees: a standby lags.

    Attributes:
        reads: how many have begun.
        fault: what a read of events fails with; None for nothing.
    """

    def __init__(self) -> None:
        self.stored: list[Event] = []
        self.visible = 0
        self.reads = 0
        self.fault: Exception | None = None
        self.steps = dict.fromkeys(map(str, range(PASSES)), 0)

    def commit(self, pass_id: str) -> None:
        if self.steps[pass_id] < len(WAY):
            self.stored.append(event(len(self.stored) + 1, pass_id, self.steps[pass_id]))
            self.steps[pass_id] += 1

    async def events(self, account: str, after_sequence: int, limit: int) -> Stretch:
        assert account == "demo"
        self.reads += 1
        found = self.stored[after_sequence : self.visible][:limit]
        await asyncio.sleep(0)
        if self.fault is not None:
            raise self.fault
        return Stretch(found, after_sequence + len(found))

    async def pass_events(
        self, account: str, pass_id: str, after_sequence: int, limit: int
    ) -> PassEvents | None:
        assert account == "demo"
        self.reads += 1
        up_to = self.visible
        await asyncio.sleep(0)
        own = [e for e in self.stored[: self.visible] if e.id_pass_id == pass_id]
        if not own:
            return None
        ended_us = own[-1].event_time_us if own[-1].to_status == WAY[-1] else None
        await asyncio.sleep(0)
        own = [e for e in self.stored[: self.visible] if e.id_pass_id == pass_id]
        id_pass = Pass(*[None] * len(Pass._fields))._replace(end_time_us=ended_us)  # type: ignore[arg-type]
        return PassEvents(id_pass, [e for e in own if e.sequence > after_sequence][:limit], up_to)


async def eventually(condition: Callable[[], bool]) -> None:
    for _ in range(STEPS):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came")


class Bench:
    """Watchers, and what each has been sent."""

    def __init__(self, busy: Callable[[], bool] = lambda: False) -> None:
        self.reads = FakeReads()
        self.watchers = Watchers(
            self.reads,  # type: ignore[arg-type]
            max_watchers=100,
            max_per_account=100,
            busy=busy,
        )
        self.sent: list[list[IdPassEvent]] = []
        self.due: list[Callable[[], list[int]]] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.pass_ids: list[str | None] = []

    def watch(
        self, after: int, pass_id: str | None = None, pause: int = 0, latest: int | None = None
    ) -> asyncio.Task[None]:
        """Opens a stream.

        Args:
            after: the sequence to start after.
            pass_id: only events of this pass.
            pause: turns of the loop that its client takes for an event.
            latest: sequence of the newest event, as its account was read; None for the newest.
        """
        sent: list[IdPassEvent] = []
        self.sent.append(sent)
        self.due.append(
            lambda: [
                e.sequence
                for e in self.reads.stored[after:]
                if pass_id is None or e.id_pass_id == pass_id
            ]
        )

        async def follow() -> None:
            newest = len(self.reads.stored) if latest is None else latest
            events = self.watchers.follow("demo", after, newest, pass_id, lambda: None)
            async for each in events:
                sent.append(each)
                for _ in range(pause):
                    await asyncio.sleep(0)

        self.tasks.append(asyncio.create_task(follow()))
        self.pass_ids.append(pass_id)
        return self.tasks[-1]

    def tell(self) -> None:
        """Tells of the newest event, as a commit does when it gets to it."""
        self.watchers.notify({"demo": len(self.reads.stored)})

    async def finish(self) -> None:
        """Lets the standby catch up, and everything be sent that will ever be."""
        self.reads.visible = len(self.reads.stored)
        for _ in range(STEPS):
            if self.got() == [due() for due in self.due]:
                break
            await asyncio.sleep(0)
        for _ in range(10):  # and nothing more
            await asyncio.sleep(0)

    def got(self) -> list[list[int]]:
        return [[e.sequence for e in sent] for sent in self.sent]

    def open_after_the_end(self) -> int:
        """Number of streams of one pass that are still open although it has ended."""
        ended = [pass_id for pass_id, steps in self.reads.steps.items() if steps == len(WAY)]
        pairs = zip(self.tasks, self.pass_ids, strict=True)
        return sum(pass_id in ended and not task.done() for task, pass_id in pairs)

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        for result in await asyncio.gather(*self.tasks, return_exceptions=True):
            assert result is None or isinstance(result, asyncio.CancelledError), result


ACTIONS = st.one_of(
    st.tuples(st.just("commit"), st.integers(0, PASSES - 1), st.just(0)),
    st.tuples(st.just("tell"), st.just(0), st.just(0)),
    st.tuples(st.just("show"), st.integers(1, 4), st.just(0)),
    st.tuples(st.just("run"), st.integers(1, 12), st.just(0)),
    st.tuples(st.just("watch"), st.integers(0, 9), st.integers(0, 2)),
    st.tuples(st.just("watch one"), st.integers(0, 9), st.integers(0, PASSES - 1)),
)


def act(bench: Bench, action: str, number: int, other: int) -> None:
    reads = bench.reads
    match action:
        case "commit":
            reads.commit(str(number))
        case "tell":
            bench.tell()
        case "show":
            reads.visible = min(reads.visible + number, len(reads.stored))
        case "watch":
            bench.watch(min(number, len(reads.stored)), pause=other)
        case "watch one" if reads.steps[str(other)]:
            bench.watch(min(number, len(reads.stored)), str(other))


async def play(actions: list[tuple[str, int, int]]) -> None:
    bench = Bench()
    for action, number, other in actions:
        act(bench, action, number, other)
        for _ in range(number if action == "run" else 0):
            await asyncio.sleep(0)
    for _ in range(5):
        await asyncio.sleep(0)
    bench.tell()
    await bench.finish()
    got, due = bench.got(), [due() for due in bench.due]
    lag, left = bench.watchers.lag_events_max, bench.open_after_the_end()
    await bench.close()
    assert got == due
    assert lag == 0
    assert left == 0
    assert bench.watchers.open == 0


@settings(max_examples=300)
@given(st.lists(ACTIONS, max_size=40))
def test_every_watcher_gets_every_event_once_in_order(actions: list[tuple[str, int, int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(watch, "LAG_RETRY_S", 0)
        patch.setattr(watch, "CHUNK_EVENTS", 3)
        patch.setattr(watch, "SHARED_CHUNKS", 4)
        asyncio.run(play(actions))


async def test_a_watcher_that_waits_hears_of_what_another_one_read() -> None:
    bench = Bench()
    bench.watch(0)
    for _ in range(5):
        await asyncio.sleep(0)
    bench.reads.commit("0")
    bench.reads.visible = 1
    bench.watch(0)  # reads of it in the account's row before the commit tells
    for _ in range(5):
        await asyncio.sleep(0)
    bench.tell()
    await bench.finish()
    await bench.close()
    assert bench.got() == [[1], [1]]


async def test_a_stream_of_one_pass_ends_if_the_pass_does_while_it_is_read() -> None:
    bench = Bench()
    bench.reads.commit("0")
    bench.reads.commit("0")
    bench.reads.visible = 2
    bench.watch(0, "0")
    for _ in range(2):  # the pass has been read, its events have not
        await asyncio.sleep(0)
    bench.reads.commit("0")
    bench.reads.visible = 3
    await bench.finish()
    bench.tell()
    await bench.finish()
    assert bench.got() == [[1, 2, 3]]
    assert bench.open_after_the_end() == 0
    await bench.close()


@pytest.mark.parametrize("pass_id", [None, "0"])
async def test_what_a_lagging_standby_does_not_show_yet_is_read_again(
    monkeypatch: pytest.MonkeyPatch, pass_id: str | None
) -> None:
    monkeypatch.setattr(watch, "LAG_RETRY_S", 0)
    bench = Bench()
    bench.reads.commit("0")
    bench.reads.visible = 1
    bench.watch(0, pass_id)
    bench.reads.commit("0")
    bench.tell()
    await eventually(lambda: bench.reads.reads >= 3)
    assert bench.got() == [[1]]
    assert bench.watchers.lag_events_max == 1
    assert all(task.result() for task in bench.watchers._chunks.values() if task.done())
    await bench.finish()
    await bench.close()
    assert bench.got() == [[1, 2]]


@pytest.mark.parametrize("pass_id", [None, "0"])
async def test_news_that_comes_during_an_empty_read_is_read_at_once(
    monkeypatch: pytest.MonkeyPatch, pass_id: str | None
) -> None:
    """And not when the empty read is repeated."""
    monkeypatch.setattr(watch, "LAG_RETRY_S", 600)
    bench = Bench()
    for _ in WAY:
        bench.reads.commit("0")
    bench.reads.visible = 1
    after = 2 if pass_id else 1
    bench.watchers.notify({"demo": 2})
    bench.watch(after, pass_id, latest=2)
    await eventually(lambda: bench.reads.reads == 1)
    bench.reads.visible = 3
    bench.tell()
    await bench.finish()
    await bench.close()
    assert bench.got() == [[2, 3] if pass_id is None else [3]]


async def test_a_read_that_failed_fails_nobody_later() -> None:
    bench = Bench()
    bench.reads.commit("0")
    bench.reads.visible = 1
    bench.reads.fault = StoreUnavailable("the store is away")
    bench.watch(0)
    bench.watch(0)
    failed = await asyncio.gather(*bench.tasks, return_exceptions=True)
    assert [str(each) for each in failed] == ["the store is away"] * 2
    assert bench.watchers.open == 0
    bench.tasks.clear()
    bench.reads.fault = None
    bench.watch(0)
    await eventually(lambda: bench.got() == [[], [], [1]])
    await bench.close()


@pytest.mark.parametrize("waits_for", ["news", "a read"])
async def test_a_watcher_that_leaves_takes_no_other_along(waits_for: str) -> None:
    bench = Bench()
    if waits_for == "a read":
        bench.reads.commit("0")
        bench.reads.visible = 1
    leaves, stays = bench.watch(0), bench.watch(0)
    if waits_for == "a read":
        await eventually(lambda: bench.reads.reads == 1)
    else:
        await eventually(lambda: bench.watchers.open == 2)
    leaves.cancel()
    await asyncio.wait([leaves])
    assert not stays.done()
    if waits_for == "news":
        bench.reads.commit("0")
        bench.reads.visible = 1
        bench.tell()
    await eventually(lambda: bench.got() == [[], [1]])
    await bench.close()


async def test_a_position_that_was_told_of_is_one_whatever_an_account_read_says() -> None:
    bench = Bench()
    for _ in WAY:
        bench.reads.commit("0")
    bench.reads.visible = 3
    bench.tell()
    bench.watch(2, latest=1)
    await eventually(lambda: bench.got() == [[3]])
    ahead = bench.watch(4)
    await eventually(ahead.done)
    with pytest.raises(InvalidRequest):
        await ahead
    bench.tasks.remove(ahead)
    await bench.close()


async def test_older_news_is_no_news() -> None:
    bench = Bench()
    bench.watch(0)
    await eventually(lambda: bench.watchers.open == 1)
    for _ in range(2):
        bench.reads.commit("0")
    bench.watchers.notify({"demo": 2})
    bench.watchers.notify({"demo": 1})
    assert bench.watchers.lag_events_max == 2
    await bench.close()
    assert bench.watchers.lag_events_max == 0


async def test_watchers_that_wait_their_turn_do_not_hold_up_a_stop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watch, "EVENTS_READ_PER_S_WHILE_BUSY", 1e-6)
    monkeypatch.setattr(watch, "CHUNK_EVENTS", 1)
    monkeypatch.setattr(watch, "IDLE_LOOK_S", 0)
    bench = Bench(busy=lambda: True)
    for _ in WAY:
        bench.reads.commit("0")
    bench.reads.visible = 3
    watcher = bench.watch(0)
    await eventually(lambda: bench.reads.reads >= 2)
    bench.watchers.close()
    await eventually(watcher.done)
    with pytest.raises(StoreUnavailable, match="the server is stopping"):
        await watcher


async def test_watchers_share_what_is_read_and_its_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    real_sleep = asyncio.sleep

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await real_sleep(0)

    monkeypatch.setattr(watch, "CHUNK_EVENTS", 3)
    clock = SimpleNamespace(monotonic=lambda: 1_000.0 + sum(slept))
    monkeypatch.setattr(watch, "time", clock)
    bench = Bench(busy=lambda: True)
    for number in range(PASSES):
        for _ in WAY:
            bench.reads.commit(str(number))
    bench.reads.visible = len(bench.reads.stored)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    for _ in range(50):
        bench.watch(0)
    for _ in range(STEPS):
        await real_sleep(0)
    monkeypatch.undo()
    await bench.close()
    assert bench.got() == [list(range(1, 10))] * 50
    assert bench.reads.reads == 3
    # The first read waits for nothing, the second and third for the one before.
    assert sum(slept) == pytest.approx(6 / watch.EVENTS_READ_PER_S_WHILE_BUSY)


async def test_watchers_wait_no_longer_than_calls_are_in_flight(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watch, "EVENTS_READ_PER_S_WHILE_BUSY", 1e-6)
    monkeypatch.setattr(watch, "CHUNK_EVENTS", 1)
    monkeypatch.setattr(watch, "IDLE_LOOK_S", 0)
    busy: list[Any] = ["a call"]
    bench = Bench(busy=lambda: bool(busy))
    for _ in WAY:
        bench.reads.commit("0")
    bench.reads.visible = 3
    bench.watch(0)
    await eventually(lambda: bench.reads.reads >= 2)
    for _ in range(100):
        await asyncio.sleep(0)
    assert bench.got() == [[1]]
    busy.clear()
    await bench.finish()
    await bench.close()
    assert bench.got() == [[1, 2, 3]]
