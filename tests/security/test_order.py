"""What is wrong with a call is told in one order: caller, rate, permission, place, and then bytes.

What comes later costs more, and a caller must not have it done by calls that are refused anyway.
"""

import threading
from pathlib import Path
from typing import Any

import grpc
import pytest

from idpass.v1.id_pass_service_pb2 import GetAccountRequest
from idpass_server.api import wire
from kit.guarded import Guarded, caller
from kit.support import UNKNOWN_ID, bearer, refused

NO_MESSAGE = b"\xff"
UNARY, STREAM = "CancelIdPass", "WatchIdPasses"
both = pytest.mark.parametrize("method", [UNARY, STREAM])


def send(server: Guarded, method: str, name: str) -> Any:
    """Makes a call whose request is no message."""
    path = f"/{wire.ID_PASSES.full_name}/{method}"
    metadata = bearer(f"{name}-token")
    channel: Any = server.channel
    if method == STREAM:
        return next(channel.unary_stream(path)(NO_MESSAGE, metadata=metadata, timeout=30))
    return channel.unary_unary(path)(NO_MESSAGE, metadata=metadata, timeout=30)


def reason_of(server: Guarded, method: str, name: str) -> str | None:
    return refused(lambda: send(server, method, name)).reason


def account(server: Guarded, name: str) -> Any:
    return server.stub.GetAccount(GetAccountRequest(), metadata=bearer(f"{name}-token"))


@both
def test_caller_and_permission_come_before_the_bytes(guarded: Guarded, method: str) -> None:
    assert reason_of(guarded, method, "nobody") == "UNAUTHENTICATED_CALLER"
    assert reason_of(guarded, method, "eve") == "METHOD_NOT_PERMITTED"
    assert reason_of(guarded, method, "ann") == "INVALID_REQUEST"


@both
def test_the_rate_comes_before_the_permission(tmp_path: Path, method: str) -> None:
    tables = caller("ann"), caller("eve", "acme", "read")
    server = Guarded(tmp_path, *tables, rate_per_s=0.01, burst=1)
    try:
        for name in ("ann", "eve"):
            account(server, name)
            assert reason_of(server, method, name) == "OVERLOADED"
    finally:
        server.stop()


def test_a_place_comes_before_the_bytes(tmp_path: Path) -> None:
    server = Guarded(tmp_path, caller("ann"), max_calls=1, max_watchers_per_account=1)
    entered, go_on = threading.Event(), threading.Event()
    try:

        def slow(*_: object) -> None:
            entered.set()
            go_on.wait(30)

        server.server._store.get_pass = slow  # type: ignore[method-assign, assignment]
        stream = server.with_token("ann-token").watch()
        stream.initial_metadata()
        assert reason_of(server, STREAM, "ann") == "OVERLOADED"
        stream.cancel()
        path = f"/{wire.ID_PASSES.full_name}/GetIdPass"
        get: Any = server.channel.unary_unary(path)
        request = b"\x0a\x24" + UNKNOWN_ID.encode()
        waiting = get.future(request, metadata=bearer("ann-token"), timeout=30)
        assert entered.wait(30)
        assert reason_of(server, UNARY, "ann") == "OVERLOADED"
        go_on.set()
        assert waiting.code() is grpc.StatusCode.NOT_FOUND
    finally:
        go_on.set()
        server.stop()
