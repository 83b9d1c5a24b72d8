"""Clients whose channels OpenTelemetry has taken over, as services that trace their calls have."""

import asyncio
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from client.test_interceptors import Async, Sync
from idpass import AlreadyCancelled, AsyncIdPassClient, IdPassClient, NotFound, Status, Unavailable
from kit.client import Connect, PutPass, Serve, ServerProcess
from kit.proxy import Cut, CuttingProxy

instruments = pytest.importorskip(
    "opentelemetry.instrumentation.grpc", reason="only the client's own needs are installed here"
)
INSTRUMENTORS: list[Any] = [
    instruments.GrpcInstrumentorClient,
    instruments.GrpcAioInstrumentorClient,
]


@pytest.fixture(autouse=True)
def instrumented() -> Iterator[None]:
    instrumentors: list[Any] = [each() for each in INSTRUMENTORS]
    for instrumentor in instrumentors:
        instrumentor.instrument()
    yield
    for instrumentor in instrumentors:
        instrumentor.uninstrument()


def test_the_history_of_a_pass_is_read_to_its_end(client: Any, put_pass: PutPass) -> None:
    pass_id = put_pass(Status.CANCELLED)
    assert [event.to_status for event in client.watch(pass_id)] == ["new", "cancelled"]


def test_refusals_are_errors_as_ever(client: Any, put_pass: PutPass) -> None:
    with pytest.raises(NotFound):
        next(iter(client.watch(uuid.uuid4())))
    with pytest.raises(AlreadyCancelled):
        client.cancel(put_pass(Status.CANCELLED))


def test_a_callers_own_interceptors_see_every_attempt_too(
    connect: Connect, address: str, put_pass: PutPass, request: pytest.FixtureRequest
) -> None:
    make = Sync if request.node.callspec.params["connect"] == "sync" else Async
    own: Any = make()
    proxy = CuttingProxy(address)
    client = connect(proxy.address, timeout=20, interceptors=[own], metadata={"x-team": "7"})
    client.account()
    pass_id = put_pass()
    proxy.cuts.append(Cut.BEFORE_ANSWER)
    assert client.cancel(pass_id).replayed
    assert [event.to_status for event in client.watch(pass_id)] == ["new", "cancelled"]
    proxy.close()
    assert own.seen == ["GetAccount", "CancelIdPass", "CancelIdPass", "WatchIdPasses"]


def test_a_watcher_may_leave_at_any_event(client: Any, put_pass: PutPass) -> None:
    put_pass(Status.CANCELLED)
    events = iter(client.watch())
    assert next(events).sequence == 1
    if hasattr(events, "close"):
        events.close()
    assert client.account().id == "demo"


def test_events_go_on_over_a_broken_connection(connect: Connect, own_server: ServerProcess) -> None:
    proxy = CuttingProxy(own_server.address)
    client = connect(proxy.address)
    with IdPassClient(own_server.address) as other:
        events = iter(client.watch())
        for sequence in range(1, 4):
            other.register()
            assert next(events).sequence == sequence
            proxy.cut_all()
    proxy.close()


def test_a_service_that_is_gone_is_told_in_the_end(
    connect: Connect, own_server: ServerProcess
) -> None:
    client = connect(own_server.address)
    client.register()
    events = iter(client.watch(reconnect_for=0.5))
    next(events)
    own_server.kill()
    with pytest.raises(Unavailable, match="Nothing was sent"):
        next(events)
    with pytest.raises(Unavailable, match="Nothing was sent"):
        client.register(timeout=0.3)


def test_closing_a_client_ends_its_iterations(address: str) -> None:
    client = IdPassClient(address)
    start = client.account().last_sequence
    client.register()
    events = client.watch(after_sequence=start)
    next(events)
    with ThreadPoolExecutor(1) as pool:
        rest = pool.submit(list, events)
        client.close()
        rest.result(timeout=30)


def test_closing_an_async_client_ends_its_iterations(address: str) -> None:
    async def use() -> None:
        client = AsyncIdPassClient(address)
        start = (await client.account()).last_sequence
        await client.register()
        events = client.watch(after_sequence=start)
        await anext(events)
        rest = asyncio.ensure_future(anext(events, None))
        await asyncio.sleep(0)
        await client.close()
        assert await asyncio.wait_for(rest, 30) is None

    asyncio.run(use())


def test_a_call_is_sent_with_one_trace_whoever_else_passes_it_on(
    connect: Connect, serve: Serve
) -> None:
    sdk = pytest.importorskip("opentelemetry.sdk.trace")
    recorder, address = serve()
    client = connect(address)
    provider = sdk.TracerProvider(shutdown_on_exit=False)
    with provider.get_tracer("test").start_as_current_span("ours") as span:
        client.account()
    sent = [value for key, value in recorder.received if key == "traceparent"]
    assert len(sent) == 1
    assert sent[0].split("-")[1] == f"{span.get_span_context().trace_id:032x}"
