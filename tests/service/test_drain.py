"""How a server drains: what is refused, what is waited for and for how long, and what is closed."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from idpass_server.api import calls as calls_module
from idpass_server.api.call_log import CallRecord
from idpass_server.api.calls import NOISY_S, QUIET_S, REFUSING_S, Call, Calls
from idpass_server.api.identity import EveryoneIsDemo, Permission
from idpass_server.api.metrics import Metrics
from idpass_server.api.rate import Limit
from idpass_server.config import Settings
from idpass_server.hosting.server import Server
from idpass_server.rules.refusals import StoreUnavailable
from idpass_server.store import Store, StoreBroken
from idpass_server.store.opening import open_store

START_S = 1_000.0
real_sleep = asyncio.sleep


def new_calls() -> Calls:
    return Calls(
        EveryoneIsDemo(),
        Metrics(),
        max_calls=10,
        max_streams_per_account=10,
        limit=Limit(0, 1),
    )


def admit(calls: Calls) -> Call:
    context = SimpleNamespace(time_remaining=lambda: None)
    return calls.admit(CallRecord("GetIdPass"), Permission.READ, 0, context)


class Drain:
    """A drain on a clock that moves only while it sleeps; each time, calls may come.

    Args:
        comes: how many sleeps a call comes in, one in each from the first on.

    Attributes:
        answers: of the calls that came, in order: "admitted" or "refused".
        slept: how long the drain slept, and whether a call came meanwhile.
    """

    def __init__(self, patch: pytest.MonkeyPatch, comes: int) -> None:
        self.calls = new_calls()
        self.answers: list[str] = []
        self.slept: list[tuple[float, bool]] = []
        self._now_s = START_S
        self._comes = comes
        patch.setattr(calls_module, "time", SimpleNamespace(monotonic=lambda: self._now_s))
        patch.setattr(calls_module, "asyncio", SimpleNamespace(sleep=self._sleep))

    @property
    def took_s(self) -> float:
        return self._now_s - START_S

    async def _sleep(self, seconds: float) -> None:
        comes = len(self.slept) < self._comes
        self._now_s += seconds
        self.slept.append((seconds, comes))
        assert len(self.slept) < 2 * NOISY_S / QUIET_S, "it never ends"
        if comes:
            self.answers.append(self.answer())
        await real_sleep(0)

    def answer(self) -> str:
        """What a call gets that comes now."""
        try:
            admit(self.calls)
        except StoreUnavailable:
            return "refused"
        return "admitted"


async def test_callers_that_retry_are_refused_for_a_while_before_a_lull_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drain = Drain(monkeypatch, 6)
    await drain.calls.drain()
    assert set(drain.answers) == {"refused"}
    assert drain.slept[0] == (REFUSING_S, True)
    assert [comes for _, comes in drain.slept[1:]] == [True] * 5 + [False]


async def test_calls_that_keep_coming_are_not_waited_for_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drain = Drain(monkeypatch, 1_000_000)
    await drain.calls.drain()
    assert drain.took_s <= REFUSING_S + NOISY_S + QUIET_S
    assert set(drain.answers) == {"refused"}


async def test_where_another_server_answers_calls_are_answered_up_to_the_lull(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drain = Drain(monkeypatch, 5)
    await drain.calls.drain(refuse=False)
    assert drain.answers == ["admitted"] * 5
    assert drain.slept[-1] == (QUIET_S, False)
    assert drain.answer() == "refused"


async def turns() -> None:
    for _ in range(10):
        await real_sleep(0)


async def test_a_call_in_flight_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls_module, "FINISHED_S", 0)
    calls = new_calls()
    call = admit(calls)
    calls.enter(call.record, call.caller)
    finished = asyncio.create_task(calls.finished())
    await turns()
    assert not finished.done()
    calls.finish(call.record)
    await finished


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (grpc.StatusCode.OK, None),
        (grpc.StatusCode.FAILED_PRECONDITION, "PASS_COMPLETE"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, None),
        (grpc.StatusCode.CANCELLED, None),
    ],
)
async def test_however_a_call_ends_its_place_is_free(
    code: grpc.StatusCode, reason: str | None
) -> None:
    calls = new_calls()
    begun = [admit(calls) for _ in range(5)]
    for call in begun:
        calls.enter(call.record, call.caller)
    assert calls.in_flight == 5
    for left, call in enumerate(reversed(begun)):
        call.record.code, call.record.reason = code, reason
        calls.finish(call.record)
        assert calls.in_flight == 4 - left
    for _ in range(8):  # as many as one caller gets
        call = admit(calls)
        calls.enter(call.record, call.caller)


async def test_a_refusal_that_is_held_is_waited_for_and_goes_out_with_the_drain(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(calls_module, "FINISHED_S", 0)
    monkeypatch.setattr(calls_module, "REFUSALS_PER_S", 0.001)
    monkeypatch.setattr(calls_module, "REFUSALS_AT_ONCE", 1)
    calls = new_calls()
    held = [asyncio.create_task(calls._hold("ann")) for _ in range(2)]
    finished = asyncio.create_task(calls.finished())
    await turns()
    assert [each.done() for each in held] == [True, False]
    assert not finished.done()
    calls._draining.set()
    await asyncio.gather(*held, finished)


async def test_only_so_many_refusals_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls_module, "REFUSALS_PER_S", 0.001)
    monkeypatch.setattr(calls_module, "REFUSALS_AT_ONCE", 1)
    monkeypatch.setattr(calls_module, "MAX_HELD", 3)
    calls = new_calls()
    held = [asyncio.create_task(calls._hold("ann")) for _ in range(6)]
    await turns()
    assert [each.done() for each in held] == [True, False, False, False, True, True]
    calls._draining.set()
    await asyncio.gather(*held)


def settings(folder: Path, **more: Any) -> Settings:
    return Settings(listen="127.0.0.1:0", db=f"sqlite:///{folder / 'idpass.db'}", **more)


@pytest.mark.parametrize(
    ("stop", "drains"),
    [
        (lambda server: server.stop(), [{"refuse": True}]),
        (lambda server: server.stop(succeeded=True), [{"refuse": False}]),
        (lambda server: server._break(StoreBroken("a fault")), []),
    ],
    ids=["asked to stop", "another server answers", "the store broke"],
)
async def test_a_server_drains_as_it_was_told_to_stop(
    tmp_path: Path, stop: Callable[[Server], None], drains: list[dict[str, bool]]
) -> None:
    server = Server(settings(tmp_path))
    await server.start()
    drained: list[dict[str, bool]] = []

    async def drain(**how: bool) -> None:
        drained.append(how)

    server._calls.drain = drain  # type: ignore[method-assign]
    stop(server)
    assert await server.wait() is bool(drains)
    assert drained == drains


async def test_calls_that_never_end_are_not_waited_for_without_end(tmp_path: Path) -> None:
    server = Server(settings(tmp_path, drain_s=0.01))
    await server.start()

    async def never() -> None:
        await asyncio.Event().wait()

    server._calls.finished = never  # type: ignore[method-assign]
    server.stop()
    assert await asyncio.wait_for(server.wait(), 30) is True


async def test_a_server_that_ends_has_closed_its_store_started_or_not(tmp_path: Path) -> None:
    closed: list[Store] = []

    def opens(*arguments: Any, **more: Any) -> Store:
        store = open_store(*arguments, **more)
        close = store.close

        def closes() -> None:
            close()
            closed.append(store)

        store.close = closes  # type: ignore[method-assign]
        return store

    async def fail(*_: object) -> None:
        raise RuntimeError("a fault")

    server = Server(settings(tmp_path), opens=opens)
    with pytest.raises(RuntimeError, match="a fault"):
        await server.start(fail)
    assert closed == [server._store]
    server = Server(settings(tmp_path), opens=opens)
    await server.start()
    server.stop()
    assert await server.wait() is True
    assert closed[1:] == [server._store]
