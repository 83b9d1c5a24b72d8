"""How long each method of either client lets its attempts take, as the service is told."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from google.rpc import status_pb2

from idpass import AsyncIdPassClient, CancelResult
from idpass.v1 import id_pass_pb2 as pb
from idpass.v1 import id_pass_service_pb2 as service_pb
from idpass.v1.id_pass_service_pb2_grpc import (
    IdPassServiceServicer,
    add_IdPassServiceServicer_to_server,
)
from kit.client import Connect

CLIENTS_S, OWN_S, SLOWNESS_S = 9_000.0, 4_000.0, 600.0
"""Time limits, and a difference that no slowness of a machine makes."""


class Timed(IdPassServiceServicer):
    """A service that notes how much time each call has.

    Attributes:
        given_s: of the calls, in order.
        ids: of the items of each batch.
    """

    def __init__(self) -> None:
        self.given_s: list[float] = []
        self.ids: list[list[str]] = []

    def CancelIdPass(self, _request: Any, context: Any) -> service_pb.CancelResponse:
        self.given_s.append(context.time_remaining())
        return service_pb.CancelResponse(status=pb.ID_PASS_STATUS_CANCELLED)

    def GetIdPass(self, _request: Any, context: Any) -> service_pb.GetResponse:
        self.given_s.append(context.time_remaining())
        return service_pb.GetResponse()

    def ListIdPasses(self, request: Any, context: Any) -> service_pb.ListResponse:
        self.given_s.append(context.time_remaining())
        return service_pb.ListResponse(next_page_token="" if request.page_token else "more")

    def BatchCancelIdPasses(self, request: Any, context: Any) -> service_pb.BatchCancelResponse:
        self.given_s.append(context.time_remaining())
        self.ids.append([each.id for each in request.requests])
        answer = service_pb.BatchCancelResponse()
        for _ in request.requests:
            answer.results.add(error=status_pb2.Status(code=5))
        return answer


@pytest.fixture
def timed() -> Iterator[tuple[Timed, str]]:
    service = Timed()  # type: ignore[abstract]  # four rpcs will do
    server = grpc.server(ThreadPoolExecutor(2))
    add_IdPassServiceServicer_to_server(service, server)
    port = server.add_insecure_port("localhost:0")
    server.start()
    yield service, f"localhost:{port}"
    server.stop(None).wait()


METHODS: dict[str, tuple[Callable[..., Any], int]] = {
    "cancel": (lambda client, **more: client.cancel("id", **more), 1),
    "get": (lambda client, **more: client.get("id", **more), 1),
    "list": (lambda client, **more: list(client.list(**more)), 2),
    "cancel_many": (lambda client, **more: list(client.cancel_many(["abc"], **more)), 1),
}
"""How a method is called, and how many calls it makes."""


@pytest.mark.parametrize("method", METHODS)
def test_a_call_has_its_own_time_or_the_clients(
    connect: Connect, timed: tuple[Timed, str], method: str
) -> None:
    service, address = timed
    client = connect(address, timeout=CLIENTS_S)
    call, calls = METHODS[method]
    call(client)
    call(client, timeout=OWN_S)
    due_s = [CLIENTS_S] * calls + [OWN_S] * calls
    assert len(service.given_s) == len(due_s)
    for given_s, limit_s in zip(service.given_s, due_s, strict=True):
        assert given_s == pytest.approx(limit_s, abs=SLOWNESS_S)  # gRPC rounds what it sends


@pytest.mark.parametrize("count", [0, 1, 3, 4, 7])
def test_ids_that_come_one_by_one_are_sent_each_once_and_to_the_last(
    connect: Connect, timed: tuple[Timed, str], count: int
) -> None:
    service, address = timed
    client = connect(address)
    ids = [f"id-{number}" for number in range(count)]

    async def one_by_one() -> AsyncIterator[str]:
        for each in ids:
            yield each

    given: Any = one_by_one() if hasattr(client, "_loop") else iter(ids)
    results = list(client.cancel_many(given, batch_size=3, in_flight=1))
    assert [result.id for result in results] == ids
    assert service.ids == [ids[at : at + 3] for at in range(0, count, 3)]


def test_batches_under_way_end_with_whoever_asked_for_them() -> None:
    asyncio.run(asked_for_and_left())


async def asked_for_and_left() -> None:
    client = AsyncIdPassClient("localhost:1")
    began, ended = asyncio.Event(), asyncio.Event()
    never = asyncio.Event()  # known here too, or a batch that waits for it would be garbage

    async def run(batch: Any, *_: Any, **__: Any) -> list[CancelResult]:
        (request,) = batch.request.requests
        if request.id == "a":
            return [CancelResult("a", request.request_id, None, None)]
        began.set()
        try:
            await never.wait()
            return []
        finally:
            ended.set()

    client._transport.run = run  # type: ignore[method-assign, assignment]
    results = client.cancel_many(["a", "b"], batch_size=1, in_flight=2)
    assert (await anext(results)).id == "a"
    await began.wait()
    await results.aclose()  # type: ignore[attr-defined]
    await asyncio.wait_for(ended.wait(), 10)
