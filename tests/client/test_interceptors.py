"""gRPC's own interceptors in both clients: they see every attempt, and what they raise is told."""

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from grpc import aio

from idpass import (
    AsyncIdPassClient,
    BadAnswer,
    IdPassClient,
    OutcomeUnknown,
    RetryPolicy,
    Status,
)
from kit.client import Connect, PutPass, Serve, ServerProcess
from kit.proxy import Cut, CuttingProxy

QUICK = RetryPolicy(initial_backoff=0.01)


class Noting:
    """What both kinds of interceptors have in common."""

    def __init__(self, name: str = "", *, bare_error: bool = False) -> None:
        self.name = name
        self.seen: list[str] = []
        self.order: list[str] = []
        self.request_ids: list[str] = []
        self._bare_error = bare_error

    def note(self, details: Any, request: Any) -> None:
        method = details.method.decode() if isinstance(details.method, bytes) else details.method
        self.seen.append(method.rpartition("/")[2])
        self.order.append(self.name)
        self.request_ids.append(getattr(request, "request_id", ""))
        if self._bare_error:
            raise grpc.RpcError


class Sync(Noting, grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        self.note(details, request)
        return continuation(details, request)

    intercept_unary_stream: Any = intercept_unary_unary


class Async(Noting, aio.UnaryUnaryClientInterceptor, aio.UnaryStreamClientInterceptor):
    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        self.note(details, request)
        return await continuation(details, request)

    intercept_unary_stream: Any = intercept_unary_unary


Make = Callable[..., Any]


@pytest.fixture
def make(request: pytest.FixtureRequest) -> Make:
    """Makes an interceptor for the kind of client that `connect` makes."""
    return Sync if request.node.callspec.params["connect"] == "sync" else Async


def test_calls_and_streams_are_seen(
    connect: Connect, address: str, make: Make, put_pass: PutPass
) -> None:
    pass_id = put_pass(Status.CANCELLED)
    noting = make()
    client = connect(address, interceptors=[noting])
    client.account()
    assert [event.to_status for event in client.watch(pass_id)] == ["new", "cancelled"]
    assert [id_pass.id for id_pass in client.list(applicant_reference="nobody")] == []
    assert noting.seen == ["GetAccount", "WatchIdPasses", "ListIdPasses"]


def test_every_attempt_is_seen_with_its_request_id(
    connect: Connect, address: str, make: Make, put_pass: PutPass
) -> None:
    proxy = CuttingProxy(address)
    noting = make()
    client = connect(proxy.address, timeout=20, retry=QUICK, interceptors=[noting])
    client.account()
    proxy.cuts.append(Cut.BEFORE_ANSWER)
    receipt = client.cancel(put_pass())
    proxy.close()
    assert receipt.replayed
    assert noting.seen == ["GetAccount", *["CancelIdPass"] * 2]
    assert noting.request_ids[1:] == [receipt.request_id] * 2


def test_every_stream_is_seen(connect: Connect, own_server: ServerProcess, make: Make) -> None:
    proxy = CuttingProxy(own_server.address)
    noting = make()
    client = connect(proxy.address, retry=QUICK, interceptors=[noting])
    with IdPassClient(own_server.address) as other:
        events = client.watch()
        for sequence in (1, 2):
            other.register()
            assert next(events).sequence == sequence
            proxy.cut_all()
        events.close()
    proxy.close()
    assert noting.seen[:2] == ["WatchIdPasses"] * 2


def test_the_first_one_is_the_outermost(connect: Connect, serve: Serve, make: Make) -> None:
    _, address = serve()
    first, second = make("first"), make("second")
    first.order = second.order
    connect(address, interceptors=(first, second)).account()
    assert second.order == ["first", "second"]


def test_an_error_that_an_interceptor_makes_up_is_one_of_the_tree(
    connect: Connect, serve: Serve, make: Make
) -> None:
    _, address = serve()
    client = connect(address, interceptors=[make(bare_error=True)])
    with pytest.raises(BadAnswer):
        client.account()
    with pytest.raises(BadAnswer):
        next(client.watch())
    with pytest.raises(OutcomeUnknown) as raised:
        client.cancel("id", request_id="mine")
    assert raised.value.request_id == "mine"


def test_the_other_clients_interceptors_are_refused_at_once() -> None:
    for client, given, fits in (
        (IdPassClient, Async(), "grpc.UnaryUnaryClientInterceptor.*one for AsyncIdPassClient"),
        (AsyncIdPassClient, Sync(), "grpc.aio.UnaryUnaryClientInterceptor.*one for IdPassClient"),
        (IdPassClient, Sync, "ABCMeta is no interceptor"),
        (AsyncIdPassClient, object(), "object is no interceptor"),
    ):
        make: Any = client
        with pytest.raises(TypeError, match=fits):
            make("localhost:1", interceptors=[given])
    for wrong in (Sync(), "abc", None):
        kind: Any = IdPassClient
        with pytest.raises(TypeError, match="give a list of them"):
            kind("localhost:1", interceptors=wrong)


class Iterating(grpc.UnaryStreamClientInterceptor):
    """Gives an iterator that is no call, as those do that look at each message."""

    def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
        return map(lambda event: event, continuation(details, request))  # noqa: C417 a plain map


class AsyncIterating(aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
        call = await continuation(details, request)

        async def each() -> Any:
            async for event in call:
                yield event

        return each()


def test_a_stream_may_become_a_plain_iterator(address: str, put_pass: PutPass) -> None:
    pass_id = put_pass(Status.CANCELLED)
    with IdPassClient(address, interceptors=[Iterating()]) as client:
        assert [event.to_status for event in client.watch(pass_id)] == ["new", "cancelled"]
        events: Any = client.watch()
        assert next(events).sequence == 1
        events.close()

    async def use() -> list[Status]:
        async with AsyncIdPassClient(address, interceptors=[AsyncIterating()]) as client:
            return [event.to_status async for event in client.watch(pass_id)]

    assert asyncio.run(use()) == ["new", "cancelled"]
