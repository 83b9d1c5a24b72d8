"""Services that let callers do so much and no more: the client goes at their pace."""

import asyncio
import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from idpass import AsyncIdPassClient, IdPassClient, Overloaded, Status, _reconnect
from idpass._cleanup import Cleanup
from kit.client import Connect, ServerProcess

Serve = Callable[..., ServerProcess]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Starts a service with options of `serve`."""
    with contextlib.ExitStack() as stack:

        def serve(*options: str) -> ServerProcess:
            server = ServerProcess(tmp_path / "idpass.db", *options)
            stack.callback(server.kill)
            return server

        yield serve


async def register(address: str, count: int) -> list[str]:
    async with AsyncIdPassClient(address, timeout=60) as client:
        receipts = await asyncio.gather(*(client.register() for _ in range(count)))
        return [receipt.id_pass.id for receipt in receipts]


def stocked(serve: Serve, passes: int, rate: int) -> tuple[ServerProcess, list[str]]:
    """A service with passes to cancel that then lets each caller make so many calls a second."""
    server = serve()
    server.set_slots(passes)
    ids = asyncio.run(register(server.address, passes))
    server.stop()
    server.options = ("--rate", str(rate), "--burst", "50")
    server.start()
    return server, ids


@pytest.mark.parametrize(
    ("rate", "batch_size", "in_flight"),
    [
        pytest.param(100, 50, 2, marks=pytest.mark.long),
        (50, 350, 1),  # the second batch waits for 6 s, longer than its own time
    ],
)
def test_many_are_cancelled_at_the_pace_that_the_service_allows(
    connect: Connect, serve: Serve, rate: int, batch_size: int, in_flight: int
) -> None:
    server, ids = stocked(serve, passes=400, rate=rate)
    read = 0

    def counted() -> Iterator[str]:
        nonlocal read
        for pass_id in ids:
            read += 1
            yield pass_id

    client = connect(server.address)
    done = []
    for result in client.cancel_many(counted(), batch_size=batch_size, in_flight=in_flight):
        assert result.receipt, result.error
        assert result.receipt.fee_refunded
        done.append(result.id)
        assert read <= len(done) + in_flight * batch_size
    assert done == ids


def test_a_single_call_waits_for_its_turn_within_its_time(connect: Connect, serve: Serve) -> None:
    server = serve("--rate", "0.5", "--burst", "1")
    client = connect(server.address, timeout=60)
    sequences = [client.account().last_sequence for _ in range(2)]
    assert sequences == [0, 0]


def test_a_single_call_whose_turn_is_too_far_away_is_told_when_it_is(
    connect: Connect, serve: Serve
) -> None:
    client = connect(serve("--rate", "0.001", "--burst", "1").address)
    client.account()
    with pytest.raises(Overloaded) as raised:
        client.register()
    assert raised.value.retry_after
    assert 500 < raised.value.retry_after <= 1_000


@pytest.mark.long
def test_a_cleanup_goes_at_the_pace_that_the_service_allows(serve: Serve) -> None:
    server, ids = stocked(serve, passes=600, rate=80)
    # After the first batch the next page of passes has to wait longer than its time allows.
    with IdPassClient(server.address) as client:
        work = Cleanup(client, [Status.NEW], timedelta(), "")
        list(work.survey())
        work.run(lambda _: None)
    assert (work.found, work.cancelled, work.refunded) == (len(ids), len(ids), len(ids))


def test_results_may_be_left_while_batches_wait_for_hours(connect: Connect, serve: Serve) -> None:
    server = serve("--rate", "0.001", "--burst", "5")
    client = connect(server.address)
    ids = [client.register().id_pass.id for _ in range(3)]
    results = client.cancel_many(itertools.cycle(ids), batch_size=1, in_flight=2)
    assert [next(results).id for _ in range(2)] == ids[:2]  # with the last of its tokens
    results.close()
    for thread in threading.enumerate():
        if thread.name.startswith("idpass-cancel"):
            thread.join(30)
            assert not thread.is_alive()


def test_a_watcher_waits_for_room_when_it_comes_back_and_only_then(
    connect: Connect, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve("--rate", "0", "--max-watchers", "1")
    with IdPassClient(server.address, timeout=20) as other:
        other.register()
        watcher = connect(server.address).watch()
        assert next(watcher).sequence == 1
        with pytest.raises(Overloaded):
            next(other.watch())
        server.kill()
        server.start()
        taken: Any = other.watch()
        assert next(taken).sequence == 1

        failed = _reconnect.Reconnects.failed

        def make_room(self: _reconnect.Reconnects, rpc_error: Any, now_s: float) -> float:
            delay_s = failed(self, rpc_error, now_s)
            if "OVERLOADED" in str(rpc_error.trailing_metadata()):
                taken.close()
            return delay_s

        monkeypatch.setattr(_reconnect.Reconnects, "failed", make_room)
        other.register()
        assert next(watcher).sequence == 2
        assert taken.gi_frame is None  # it had to wait
        watcher.close()
