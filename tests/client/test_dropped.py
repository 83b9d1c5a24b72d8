"""Calls that a server drops with a bare CANCELLED, as gRPC does for one that is overloaded or has
just hung up; and calls that this side cancels, which are never made again.
"""

import asyncio
import functools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from idpass import (
    AsyncIdPassClient,
    IdPassClient,
    IdPassError,
    OutcomeUnknown,
    RetryPolicy,
    Status,
    Unavailable,
    _retry,
)
from idpass.v1 import id_pass_pb2 as pb
from idpass.v1 import id_pass_service_pb2 as service_pb
from idpass.v1.id_pass_service_pb2_grpc import (
    IdPassServiceServicer,
    add_IdPassServiceServicer_to_server,
)
from kit.client import Connect

CANCELLED = grpc.StatusCode.CANCELLED
FOR_EVER = 1_000_000


class Dropping(IdPassServiceServicer):
    """A service that drops calls.

    Attributes:
        drops: how many more of them.
        stuck: whether calls are kept without an answer instead, until `free` is set.
        requests: all that came.
    """

    def __init__(self) -> None:
        self.drops = 0
        self.stuck = False
        self.came = threading.Event()
        self.free = threading.Event()
        self.requests: list[Any] = []
        self.address = ""

    def _take(self, request: Any, context: Any) -> None:
        self.requests.append(request)
        self.came.set()
        if self.stuck:
            self.free.wait(30)
        if self.drops:
            self.drops -= 1
            context.abort(CANCELLED, "")

    def CancelIdPass(self, request: Any, context: Any) -> Any:
        self._take(request, context)
        return service_pb.CancelResponse(status=pb.ID_PASS_STATUS_CANCELLED)

    def BatchCancelIdPasses(self, request: Any, context: Any) -> Any:
        self._take(request, context)
        answer = service_pb.BatchCancelResponse()
        for _ in request.requests:
            answer.results.add().response.status = pb.ID_PASS_STATUS_CANCELLED
        return answer

    def GetAccount(self, request: Any, context: Any) -> Any:
        self._take(request, context)
        return pb.Account(id="here")

    def WatchIdPasses(self, request: Any, context: Any) -> Iterator[Any]:
        self._take(request, context)
        yield pb.IdPassEvent(sequence=request.after_sequence + 1)
        context.abort(CANCELLED, "")


@pytest.fixture
def service() -> Iterator[Dropping]:
    service = Dropping()  # type: ignore[abstract]  # these rpcs will do
    server = grpc.server(ThreadPoolExecutor(4))
    add_IdPassServiceServicer_to_server(service, server)
    service.address = f"localhost:{server.add_insecure_port('localhost:0')}"
    server.start()
    yield service
    service.free.set()
    server.stop(None).wait()


@pytest.fixture
def client(connect: Connect, service: Any) -> Any:
    return connect(service.address, timeout=20)


def test_a_dropped_change_is_sent_again_with_its_request_id(client: Any, service: Dropping) -> None:
    service.drops = 2
    receipt = client.cancel("id")
    assert receipt.status is Status.CANCELLED
    assert [r.request_id for r in service.requests] == [receipt.request_id] * 3


def test_a_dropped_batch_is_sent_again_with_its_request_ids(client: Any, service: Dropping) -> None:
    service.drops = 2
    results = list(client.cancel_many(["a", "b"]))
    assert [result.id for result in results if result.receipt] == ["a", "b"]
    sent = [[r.request_id for r in batch.requests] for batch in service.requests]
    assert sent == [[result.request_id for result in results]] * 3


def test_a_change_that_is_always_dropped_may_have_been_made(client: Any, service: Dropping) -> None:
    service.drops = FOR_EVER
    with pytest.raises(OutcomeUnknown) as raised:
        client.cancel("id", timeout=0.4)
    assert raised.value.code is CANCELLED
    assert raised.value.request_id == service.requests[0].request_id
    assert f"request_id={raised.value.request_id!r}" in str(raised.value)
    assert "overloaded, or it was just stopping" in str(raised.value)
    assert len(service.requests) > 1


def test_a_batch_that_is_always_dropped_says_so_of_each_item(
    client: Any, service: Dropping
) -> None:
    service.drops = FOR_EVER
    results = client.cancel_many(["a", "b"], timeout=0.4)
    sent = []
    for _ in range(2):
        error = next(results).error
        assert isinstance(error, OutcomeUnknown)
        sent.append(error.request_id)
    with pytest.raises(OutcomeUnknown, match="just stopping"):
        next(results)
    assert len(service.requests) > 1
    for batch in service.requests:
        assert [r.request_id for r in batch.requests] == sent


def test_a_question_that_is_always_dropped_is_just_unavailable(
    client: Any, service: Dropping
) -> None:
    service.drops = FOR_EVER
    for ask, arguments in (
        (client.account, ()),
        (functools.partial(client.cancel, validate_only=True), ("id",)),
    ):
        with pytest.raises(Unavailable, match="dropped the call") as raised:
            ask(*arguments, timeout=0.4)
        assert raised.value.code is CANCELLED
        assert isinstance(raised.value.__cause__, grpc.RpcError)
    assert len(service.requests) > 2


def test_a_watcher_that_is_dropped_at_the_start_and_between_events_misses_none(
    client: Any, service: Dropping
) -> None:
    service.drops = 2
    events = client.watch()
    assert [next(events).sequence for _ in range(3)] == [1, 2, 3]
    events.close()
    assert [r.after_sequence for r in service.requests][:5] == [0, 0, 0, 1, 2]


def test_a_watcher_that_is_always_dropped_is_told_in_the_end(
    connect: Connect, service: Any
) -> None:
    service.drops = 500
    quick = RetryPolicy(initial_backoff=0.02, max_backoff=0.02)  # not a pause too long ends it
    with pytest.raises(Unavailable, match="dropped the call"):
        next(connect(service.address, retry=quick).watch(reconnect_for=0.4))
    assert len(service.requests) > 1


def test_a_call_that_closing_the_client_cancels_is_not_made_again(service: Any) -> None:
    service.stuck = True
    for call, kind in (
        (lambda client: client.cancel("id"), OutcomeUnknown),
        (lambda client: client.account(), IdPassError),
    ):
        service.came.clear()
        service.requests.clear()
        with ThreadPoolExecutor() as pool, IdPassClient(service.address, timeout=20) as client:
            answer = pool.submit(call, client)
            assert service.came.wait(20)
            client.close()
            with pytest.raises(IdPassError, match="closed") as raised:
                answer.result(20)
        assert (type(raised.value), raised.value.code) == (kind, CANCELLED)
        assert len(service.requests) == 1


def test_a_client_that_is_closed_between_attempts_tells_what_is_not_known(
    connect: Connect, service: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = connect(service.address, timeout=20)
    service.drops = FOR_EVER
    monkeypatch.setattr(_retry, "delay_before_next_s", lambda *_: closing())

    def closing() -> float:
        held: Any = vars(client).get("_client", client)
        held._transport.channel.closed = True
        return 0.0

    with pytest.raises(OutcomeUnknown, match="before the client was closed"):
        client.cancel("id")
    assert len(service.requests) == 1


def test_a_cancelled_task_makes_no_other_attempt(service: Any) -> None:
    service.stuck = True

    async def use() -> None:
        async with AsyncIdPassClient(service.address, timeout=20) as client:
            call = asyncio.ensure_future(client.cancel("id"))
            await asyncio.to_thread(service.came.wait, 20)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            service.stuck = False
            service.free.set()
            assert (await client.account()).id == "here"

    asyncio.run(use())
    assert [type(request).__name__ for request in service.requests] == [
        "CancelRequest",
        "GetAccountRequest",
    ]
