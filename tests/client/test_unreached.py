"""A service that cannot be reached: that nothing was sent is another error than a lost answer."""

import uuid
from collections.abc import Callable
from typing import Any

import grpc
import pytest
import trustme

from idpass import IdPassClient, NotFound, OutcomeUnknown, Unavailable, _reach
from kit.client import Connect, Serve, ServerProcess, server_credentials

NOWHERE = "127.0.0.1:1"
CHANGES: dict[str, Callable[[Any], Any]] = {
    "cancel": lambda client: client.cancel(uuid.uuid4(), request_id="mine"),
    "register": lambda client: client.register(request_id="mine"),
    "advance": lambda client: client.advance(uuid.uuid4(), "opened", request_id="mine"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_that_was_refused_at_connect_was_not_made(connect: Connect, change: str) -> None:
    with pytest.raises(Unavailable, match="Nothing was sent: there is no connection") as raised:
        CHANGES[change](connect(NOWHERE, timeout=0.3))
    assert raised.value.code is grpc.StatusCode.UNAVAILABLE
    assert raised.value.request_id == "mine"
    assert "Connection refused" in str(raised.value)
    assert "Is the service running" in str(raised.value)
    assert isinstance(raised.value.__cause__, grpc.RpcError)


def test_nor_was_one_that_never_got_through(connect: Connect, silent: str) -> None:
    with pytest.raises(Unavailable, match="Nothing was sent"):
        connect(silent, timeout=0.3).cancel(uuid.uuid4())


def test_a_name_that_is_not_known_is_told(connect: Connect) -> None:
    client = connect("idpass.invalid:443", timeout=0.3, allow_plaintext=True)
    with pytest.raises(Unavailable, match=r"Nothing was sent.*Is the name right\?"):
        client.cancel(uuid.uuid4())


def test_every_one_of_many_is_told_so(connect: Connect) -> None:
    results = connect(NOWHERE, timeout=0.3).cancel_many([uuid.uuid4(), uuid.uuid4()])
    told: list[Any] = []
    with pytest.raises(Unavailable, match="Nothing was sent"):
        told.extend(result.error for result in results)
    assert [type(error) for error in told] in ([Unavailable] * 2, [])


def test_a_service_that_went_and_comes_back_is_waited_for(
    connect: Connect, own_server: ServerProcess
) -> None:
    client = connect(own_server.address)
    client.account()
    own_server.kill()
    with pytest.raises(Unavailable):  # from here on it is known that the connection is lost
        client.account(timeout=0.5)
    with pytest.raises(Unavailable, match="Nothing was sent"):
        client.cancel(uuid.uuid4(), timeout=0.5)
    own_server.start()
    with pytest.raises(NotFound):
        client.cancel(uuid.uuid4(), timeout=30)


def test_what_a_server_says_in_gRPCs_words_is_no_proof(connect: Connect, serve: Serve) -> None:
    recorder, address = serve()
    recorder.refusal = "failed to connect to all addresses; last error: UNKNOWN"
    with pytest.raises(OutcomeUnknown):
        connect(address, timeout=0.3).cancel(uuid.uuid4())


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


def test_the_hint_fits_what_is_wrong_with_tls(serve: Serve, ca: trustme.CA) -> None:
    _, plain = serve()
    _, tls = serve(server_credentials(ca, mutual=False))
    _, mutual = serve(server_credentials(ca, mutual=True))
    roots = ca.cert_pem.bytes()
    cases: list[tuple[str, dict[str, Any], str]] = [
        (tls, {}, "If the service speaks TLS, give tls=True"),
        (plain, {"tls": roots}, "leave tls out"),
        (tls, {"tls": trustme.CA().cert_pem.bytes()}, "authority that is not trusted here"),
        (tls.replace("localhost", "127.0.0.1"), {"tls": roots}, "for another name"),
        (mutual, {"tls": roots}, "give client_certificate"),
    ]
    for address, settings, hint in cases:
        with (
            IdPassClient(address, timeout=0.3, **settings) as client,
            pytest.raises(Unavailable) as raised,
        ):
            client.cancel(uuid.uuid4())
        assert "Nothing was sent" in str(raised.value)
        assert hint in str(raised.value)


def test_http_where_grpc_should_be_is_told() -> None:
    why = "last error: INTERNAL: x: Trying to connect an http1.x server (HTTP status 400)"
    assert "give the address of gRPC" in _reach.explained(NOWHERE, why, secure=False)
