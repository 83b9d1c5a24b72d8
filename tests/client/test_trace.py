"""The trace that a call belongs to is passed on, where the caller's process has one."""

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from idpass import AsyncIdPassClient, IdPassClient
from kit.client import Connect, Serve

TOKEN = "t" * 32


def sent(recorder: Any, name: str) -> list[str]:
    """The values that the latest call came with under a name."""
    return [value for key, value in recorder.received if key == name]


@pytest.fixture
def tracer() -> Iterator[Any]:
    trace = pytest.importorskip("opentelemetry.sdk.trace", reason="only the client is installed")
    provider = trace.TracerProvider(shutdown_on_exit=False)
    yield provider.get_tracer("test")
    provider.shutdown()


def traceparent(span: Any) -> str:
    context = span.get_span_context()
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def test_a_call_within_a_span_is_sent_with_its_trace(
    connect: Connect, serve: Serve, tracer: Any
) -> None:
    recorder, address = serve()
    client = connect(address, token=TOKEN)
    with tracer.start_as_current_span("ours") as span:
        client.account()
    assert sent(recorder, "traceparent") == [traceparent(span)]
    assert sent(recorder, "authorization") == [f"Bearer {TOKEN}"]
    client.account()
    assert sent(recorder, "traceparent") == []


def test_a_trace_that_the_caller_gives_itself_is_not_sent_twice(
    connect: Connect, serve: Serve, tracer: Any
) -> None:
    recorder, address = serve()
    own = f"00-{'1' * 32}-{'2' * 16}-01"
    client = connect(address)
    with tracer.start_as_current_span("ours"):
        client.account(metadata={"traceparent": own})
    assert sent(recorder, "traceparent") == [own]


def test_calls_of_cancel_many_belong_to_the_trace_of_whoever_asks_for_the_results(
    connect: Connect, serve: Serve, tracer: Any
) -> None:
    recorder, address = serve()
    client = connect(address)
    with tracer.start_as_current_span("ours") as span:
        list(client.cancel_many(["an id"]))
    assert sent(recorder, "traceparent") == [traceparent(span)]


def test_the_callers_own_propagators_are_used_and_fail_no_call(
    connect: Connect, serve: Serve, tracer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from opentelemetry import propagate  # noqa: PLC0415

    def write(carrier: dict[str, str]) -> None:
        carrier["X-B3-TraceId"] = "1" * 32
        carrier["authorization"] = "Bearer of another"
        carrier["grpc-timeout"] = "1n"
        carrier["a key"] = "gRPC would refuse it"
        carrier["x-control"] = "\n"
        carrier["baggage"] = "big=" + "x" * 8_000

    recorder, address = serve()
    client = connect(address)
    with tracer.start_as_current_span("ours"):
        monkeypatch.setattr(propagate, "inject", write)
        client.account()
        assert sent(recorder, "x-b3-traceid") == ["1" * 32]
        for name in ("authorization", "a key", "x-control", "baggage", "traceparent"):
            assert sent(recorder, name) == [], name
        monkeypatch.setattr(propagate, "inject", lambda _carrier: 1 // 0)
        client.account()
        assert sent(recorder, "x-b3-traceid") == []


@pytest.mark.parametrize("kind", [IdPassClient, AsyncIdPassClient])
def test_the_client_does_not_import_opentelemetry(kind: type) -> None:
    code = (
        f"import sys; sys.modules['opentelemetry'] = None\nimport idpass\n"
        f"client = idpass.{kind.__name__}('localhost:1')\n"
        "assert client._endpoint.metadata() is None\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry.')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
