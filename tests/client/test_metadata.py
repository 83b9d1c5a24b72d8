"""Metadata of callers' own: per client and per call, and what is refused."""

import re
from typing import Any

import pytest

from idpass import AsyncIdPassClient, IdPassClient, RetryPolicy
from kit.client import Connect, Recorder, Serve

CLIENTS = (IdPassClient, AsyncIdPassClient)
SECRET = "s3cret"


def sent(recorder: Recorder, *names: str) -> list[tuple[str, Any]]:
    """What the latest call came with under these names."""
    return [(key, value) for key, value in recorder.received if key in names]


def test_a_clients_metadata_goes_with_every_call_and_a_calls_own_comes_on_top(
    connect: Connect, serve: Serve
) -> None:
    recorder, address = serve()
    client = connect(address, metadata={"x-tenant": "7", "x-app": "desk"}, token="t")
    client.account()
    assert sent(recorder, "x-tenant", "x-app") == [("x-tenant", "7"), ("x-app", "desk")]
    client.account(metadata=[("x-tenant", "8"), ("x-tenant", "9"), ("x-raw-bin", b"\xff")])
    own = sent(recorder, "x-tenant", "x-app", "x-raw-bin", "authorization")
    assert sorted(own) == [
        ("authorization", "Bearer t"),
        ("x-app", "desk"),
        ("x-raw-bin", b"\xff"),
        ("x-tenant", "8"),
        ("x-tenant", "9"),
    ]
    client.account()
    assert sent(recorder, "x-tenant") == [("x-tenant", "7")]


def test_every_method_takes_metadata(connect: Connect, serve: Serve) -> None:
    recorder, address = serve()
    client = connect(address)
    own = {"x-tenant": "7"}
    list(client.cancel_many(["a", "b", "c"], batch_size=1, metadata=iter(own.items())))
    assert sent(recorder, "x-tenant") == [("x-tenant", "7")]
    list(client.list(metadata=iter(own.items())))
    assert sent(recorder, "x-tenant") == [("x-tenant", "7")]
    list(client.watch("id", metadata=iter(own.items())))
    assert sent(recorder, "x-tenant") == [("x-tenant", "7")]


def test_every_attempt_has_it(connect: Connect, serve: Serve) -> None:
    recorder, address = serve()
    recorder.refusal = "not now"
    client = connect(address, retry=RetryPolicy(initial_backoff=0.001, max_attempts=3))
    with pytest.raises(Exception, match="not now"):
        client.cancel("id", metadata=iter([("x-tenant", "7")]))
    assert recorder.attempts == [[("x-tenant", "7")]] * 3


BAD: list[tuple[Any, type[Exception], str]] = [
    ({"authorization": SECRET}, ValueError, "'authorization' is reserved: .*give token="),
    ({"Authorization": SECRET}, ValueError, "'Authorization' is reserved: .*give token="),
    ({"user-agent": SECRET}, ValueError, "'user-agent' is reserved: .*primary_user_agent"),
    ({"content-type": SECRET}, ValueError, "'content-type' is reserved"),
    ({"te": SECRET}, ValueError, "'te' is reserved"),
    ({"grpc-timeout": SECRET}, ValueError, "'grpc-timeout' is reserved"),
    ({":path": SECRET}, ValueError, "':path' is reserved"),
    ({"X-Tenant": SECRET}, ValueError, "has capitals: give 'x-tenant'"),
    ({"x tenant": SECRET}, ValueError, "'x tenant' cannot be sent: give lower-case letters"),
    ({"": SECRET}, ValueError, "'' cannot be sent"),
    ({"x-tenant\n": SECRET}, ValueError, "cannot be sent"),
    ({"x-tenant": f"{SECRET}\n"}, ValueError, "'x-tenant' has characters other than"),
    ({"x-tenant": f"{SECRET}é"}, ValueError, "with a key that ends with -bin"),
    ({"x-tenant": SECRET.encode()}, TypeError, "'x-tenant' is bytes; give text"),
    ({"x-tenant-bin": SECRET}, TypeError, "'x-tenant-bin' is str; give bytes"),
    ({"x-tenant": 7}, TypeError, "'x-tenant' is int; give text"),
    ({7: SECRET}, TypeError, "key 7 is int; give text"),
    ("x-tenant", TypeError, "metadata is str; give a mapping"),
    (7, TypeError, "metadata is int; give a mapping"),
    (["x-tenant"], TypeError, "entry of type str; give pairs"),
    ([("x-tenant", SECRET, "more")], TypeError, "entry of type tuple; give pairs"),
]


@pytest.mark.parametrize(("metadata", "error", "said"), BAD)
@pytest.mark.parametrize("client", CLIENTS)
def test_metadata_that_cannot_be_sent_is_refused_at_once_and_no_value_is_told(
    client: Any, metadata: Any, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said) as raised:
        client("localhost:1", metadata=metadata)
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize("ask", ["account", "list", "watch", "register"])
def test_so_is_a_calls_own_before_anything_is_sent(
    connect: Connect, serve: Serve, ask: str
) -> None:
    recorder, address = serve()
    client = connect(address)
    with pytest.raises(ValueError, match=re.escape("'grpc-trace-bin' is reserved")):
        getattr(client, ask)(metadata={"grpc-trace-bin": b"x"})
    assert recorder.received == []


def test_what_grpc_takes_is_taken(connect: Connect, serve: Serve) -> None:
    recorder, address = serve()
    given = {"0-_.z": "", "x-space": "a b", "x-bin": b""}
    connect(address).account(metadata=given)
    assert sent(recorder, *given) == list(given.items())
