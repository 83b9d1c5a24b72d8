"""TLS and mutual TLS: who is let in, by which version, and what everyone else is told."""

import codecs
import contextlib
import json
import socket
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from idpass import IdPassClient, Unauthenticated, Unavailable
from idpass_server.config import Settings
from idpass_server.failures import BadSetting
from idpass_server.hosting import tls
from idpass_server.hosting.tls import BadCertificates, Certificates
from kit.certificates import Authority, Pair, PrivateKey, channel_credentials, with_passphrase
from kit.secure import BILLING, CALLERS, LOCAL, Secure
from kit.support import Service, bearer, cli, make_accounts, process

# -- who is let in


def test_a_client_certificate_says_who_calls(secure: Secure) -> None:
    with secure.client(secure.billing) as client:
        id_pass = client.register().id_pass
        assert client.cancel(id_pass.id).fee_refunded
        assert client.get(id_pass.id).cancellation.caller == "billing"  # type: ignore[union-attr]


def test_a_renewed_certificate_is_the_same_caller(secure: Secure) -> None:
    pass_id = secure.register(request_id="r").id_pass.id
    with secure.client(secure.clients.issue(BILLING)) as client:
        again = client.register(request_id="r")
        assert (again.replayed, again.id_pass.id) == (True, pass_id)


STRANGERS: dict[str, Callable[[Secure], Pair | None]] = {
    "no certificate": lambda _: None,
    "of a foreign authority": lambda secure: Authority(secure.file.parent / "foreign").issue(
        BILLING
    ),
    "of the server's authority": lambda secure: secure.servers.issue(BILLING),
    "expired": lambda secure: secure.clients.issue(BILLING, from_day=-9, to_day=-1),
    "not yet valid": lambda secure: secure.clients.issue(BILLING, from_day=1),
}


@pytest.mark.parametrize("stranger", STRANGERS)
def test_a_stranger_gets_no_connection(secure: Secure, stranger: str) -> None:
    pair = STRANGERS[stranger](secure)
    with secure.client(pair, token="billing-token", timeout=0.5) as client:
        with pytest.raises(Unavailable) as caught:
            client.account()
        assert secure.address.rpartition(":")[2] in caught.value.message
    assert secure.answers()


@pytest.mark.parametrize(
    "names",
    [
        pytest.param((), id="no name"),
        pytest.param(("billing.example.org",), id="no URI"),
        pytest.param((BILLING, "spiffe://example.org/other"), id="two URIs"),
        pytest.param((BILLING, BILLING), id="the URI twice"),
        pytest.param(("spiffe://example.com/billing",), id="of another trust domain"),
        pytest.param((f"{BILLING}/more",), id="unknown"),
        pytest.param(("https://example.org/billing",), id="no SPIFFE ID"),
    ],
)
def test_a_certificate_of_nobody_is_told_so(secure: Secure, names: tuple[str, ...]) -> None:
    with secure.client(secure.clients.issue(*names)) as client:
        with pytest.raises(Unauthenticated) as caught:
            client.account()
        assert caught.value.reason == "UNAUTHENTICATED_CALLER"
        assert caught.value.reference


def test_host_names_beside_the_one_uri_do_no_harm(secure: Secure) -> None:
    with secure.client(secure.clients.issue("billing.example.org", BILLING)) as client:
        assert client.account().id == "acme"


def test_without_mutual_tls_a_token_says_who_calls(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "servers")
    pair = authority.issue(*LOCAL)
    (tmp_path / "callers.toml").write_text(CALLERS)
    make_accounts(tmp_path / "idpass.db", "acme")
    service = Service(
        tmp_path / "idpass.db",
        credentials=channel_credentials(authority.pem),
        tls_cert=str(pair.cert),
        tls_key=str(pair.key),
        callers=str(tmp_path / "callers.toml"),
    )
    with IdPassClient(service.address, tls=authority.path, token="billing-token") as client:
        assert client.account().id == "acme"
    with (
        IdPassClient(service.address, tls=authority.path) as client,
        pytest.raises(Unauthenticated),
    ):
        client.account()
    service.stop()


def test_the_command_line_speaks_mutual_tls(secure: Secure) -> None:
    command = [
        *(sys.executable, "-m", "idpass.cli", "--address", secure.address),
        *("--ca", str(secure.servers.path)),
        *("--cert", str(secure.billing.cert), "--key", str(secure.billing.key)),
    ]
    done = subprocess.run(
        [*command, "account", "--json"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["id"] == "acme"


# -- how it is spoken


def client_hello(version: bytes) -> bytes:
    """What a client sends first whose newest version is this one.

    Taken from a client whose newest is TLS 1.2, since OpenSSL offers no older one by default.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    out = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), out, server_hostname="localhost").do_handshake()
    hello = bytearray(out.read())
    handshake, newest = hello[5], bytes(hello[9:11])
    assert (handshake, newest) == (1, b"\x03\x03")
    hello[9:11] = version
    return bytes(hello)


@pytest.mark.parametrize(
    ("version", "spoken"),
    [
        pytest.param(b"\x03\x03", True, id="1.2"),
        pytest.param(b"\x03\x02", False, id="1.1"),
        pytest.param(b"\x03\x01", False, id="1.0"),
    ],
)
def test_nothing_older_than_tls_1_2_is_spoken(secure: Secure, version: bytes, spoken: bool) -> None:
    host, port = secure.address.split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(client_hello(version))
        answer = connection.recv(6)
    server_hello = b"\x16\x03\x03"
    assert answer.startswith(server_hello) is spoken
    assert secure.answers()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_1_2_and_newer_are_spoken(secure: Secure, version: ssl.TLSVersion) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(secure.servers.path)
    context.minimum_version = context.maximum_version = version
    context.load_cert_chain(*secure.billing)
    context.set_alpn_protocols(["h2"])
    host, port = secure.address.split(":")
    with (
        socket.create_connection((host, int(port)), timeout=30) as connection,
        context.wrap_socket(connection, server_hostname="localhost") as encrypted,
    ):
        assert encrypted.selected_alpn_protocol() == "h2"
        encrypted.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5))
        assert encrypted.recv(9)[3] == 4  # its SETTINGS: it takes the connection


def test_plain_text_to_a_tls_port_is_an_error_and_no_harm(secure: Secure) -> None:
    with IdPassClient(secure.address, timeout=0.5) as client, pytest.raises(Unavailable):
        client.account()
    host, port = secure.address.split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(1) in {b"", b"\x15"}  # hangs up, perhaps with an alert
    assert secure.answers()


def test_tls_to_a_plain_text_port_is_an_error_and_no_harm(service: Service, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "servers")
    with (
        IdPassClient(service.address, tls=authority.pem, timeout=0.5) as client,
        pytest.raises(Unavailable),
    ):
        client.account()
    assert service.account().id == "demo"


# -- HTTP beside it


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A folder with a name short enough for a socket in it: 107 characters are the most."""
    with tempfile.TemporaryDirectory(prefix="idpass-test-") as folder:
        yield Path(folder)


def test_the_gateway_beside_mutual_tls_passes_tokens_on_and_is_nobody_itself(
    tmp_path: Path, temporary: Path
) -> None:
    servers, clients = Authority(tmp_path / "servers"), Authority(tmp_path / "clients")
    pair = servers.issue(*LOCAL)
    (tmp_path / "callers.toml").write_text(CALLERS)
    make_accounts(tmp_path / "idpass.db", "acme")
    options = {
        "--tls-cert": pair.cert,
        "--tls-key": pair.key,
        "--tls-client-ca": clients.path,
        "--callers": tmp_path / "callers.toml",
        "--http": "127.0.0.1:0",
    }
    with process(
        tmp_path / "idpass.db",
        *(str(word) for option in options.items() for word in option),
        env={"TMPDIR": str(temporary)},
        credentials=channel_credentials(servers.pem, clients.issue(BILLING)),
    ) as server:
        (folder,) = temporary.iterdir()
        assert folder.stat().st_mode & 0o777 == 0o700
        pass_id = server.register().id_pass.id
        url = f"http://{server.wait_for('gateway')['http']}/idpass/cancel"
        headers = dict(bearer("billing-token"))

        def post(headers: dict[str, str]) -> httpx.Response:
            return httpx.post(url, json={"id": pass_id}, headers=headers, trust_env=False)

        for wrong in ({}, dict(bearer("another"))):
            answer = post(wrong)
            assert answer.status_code == 401
            assert "UNAUTHENTICATED_CALLER" in answer.text
        answer = post(headers)
        assert answer.json()["fee_refunded"] is True
        assert server.get(pass_id).cancellation.caller == "billing"
        server.signal()
        assert server.wait() == 0
    assert list(temporary.iterdir()) == []


# -- what is refused at the start


@pytest.mark.long
def test_certificates_that_cannot_be_used_stop_the_start(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "servers")
    good, other = authority.issue(*LOCAL), authority.issue(*LOCAL)
    expired = authority.issue(*LOCAL, from_day=-9, to_day=-1)
    nonsense, missing = tmp_path / "nonsense.pem", tmp_path / "missing.pem"
    nonsense.write_text("nonsense")
    encrypted = tmp_path / "encrypted.pem"
    encrypted.write_bytes(with_passphrase(good.key))
    marked, open_key, open_ca = (tmp_path / f"{name}.pem" for name in ("marked", "key", "ca"))
    marked.write_bytes(codecs.BOM_UTF8 + authority.pem)
    open_key.write_bytes(good.key.read_bytes())
    open_key.chmod(0o620)
    open_ca.write_bytes(authority.pem)
    open_ca.chmod(0o602)
    for cert, key_path, client_ca, reason in [
        (missing, good.key, None, f"{missing} cannot be read: No such file"),
        (good.cert, missing, None, f"{missing} cannot be read: No such file"),
        (good.cert, good.key, missing, f"{missing} cannot be read: No such file"),
        (tmp_path, good.key, None, f"{tmp_path} cannot be read: Is a directory"),
        (nonsense, good.key, None, f"{nonsense} holds no certificate"),
        (good.cert, nonsense, None, f"{nonsense} holds no private key"),
        (good.cert, good.key, nonsense, f"{nonsense} holds no certificate"),
        (good.cert, encrypted, None, f"{encrypted} is encrypted"),
        (good.cert, other.key, None, f"{other.key} is not that of the first certificate in"),
        (*expired, None, f"{expired.cert} cannot be used: certificate has expired"),
        (*good, marked, f"{marked} begins with a byte-order mark"),
        (good.cert, open_key, None, f"{open_key} can be written by other users (mode 0620)"),
        (*good, open_ca, f"{open_ca} can be written by other users (mode 0602)"),
    ]:
        options = ["--tls-cert", str(cert), "--tls-key", str(key_path)]
        options += ["--tls-client-ca", str(client_ca)] if client_ca else []
        done = cli("serve", "--listen", "127.0.0.1:0", *options, cwd=tmp_path)
        assert done.returncode == 1
        assert reason in done.stderr
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "idpass.db").exists()


@pytest.mark.parametrize(
    ("key", "names", "usable"),
    [
        pytest.param(ec.generate_private_key(ec.SECP384R1()), LOCAL, True, id="P-384"),
        pytest.param(rsa.generate_private_key(65_537, 2_048), ("127.0.0.1",), True, id="RSA"),
        pytest.param(None, ("*.example.org",), True, id="wildcard"),
        pytest.param(None, ("::1",), True, id="IPv6"),
        pytest.param(None, ("spiffe://example.org/server",), True, id="no host name"),
        pytest.param(ed25519.Ed25519PrivateKey.generate(), LOCAL, False, id="Ed25519"),
        pytest.param(ec.generate_private_key(ec.SECP521R1()), LOCAL, False, id="P-521"),
        pytest.param(
            ed25519.Ed25519PrivateKey.generate(), ("spiffe://a/b",), False, id="Ed25519, no host"
        ),
    ],
)
def test_a_certificate_is_tried_with_grpc_itself(
    tmp_path: Path, key: PrivateKey | None, names: tuple[str, ...], usable: bool
) -> None:
    authority = Authority(tmp_path / "servers")
    pair = authority.issue(*names, key=key)
    with contextlib.nullcontext() if usable else pytest.raises(BadCertificates, match="by gRPC"):
        Certificates(*pair, authority.path)


def test_a_key_that_others_may_read_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = structlog.testing.LogCapture()
    log = structlog.wrap_logger(None, [lines], structlog.make_filtering_bound_logger("info"))
    monkeypatch.setattr(tls, "log", log)
    authority = Authority(tmp_path / "servers")
    pair = authority.issue(*LOCAL)
    for mode, warned in ((0o644, True), (0o640, False), (0o600, False)):
        pair.key.chmod(mode)
        lines.entries.clear()
        Certificates(*pair)
        assert ("key_readable_by_others" in [line["event"] for line in lines.entries]) is warned


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"tls_cert": "c"}, "belong together"),
        ({"tls_key": "k"}, "belong together"),
        ({"tls_client_ca": "a"}, "--tls-client-ca needs --tls-cert"),
        ({"listen": "0.0.0.0:1"}, "plain text"),
        ({"listen": "0.0.0.0:1", "callers": "f"}, "plain text"),
        ({"listen": "0.0.0.0:1", "tls_cert": "c", "tls_key": "k"}, "Give --callers"),
        (
            {"listen": "10.1.2.3:1", "tls_cert": "c", "tls_key": "k", "tls_client_ca": "a"},
            "Give --callers",
        ),
        ({"http": "127.0.0.1:1", "sandbox": True, "tls_cert": "c", "tls_key": "k"}, "--sandbox"),
        ({"http": "0.0.0.0:1", "tls_cert": "c", "tls_key": "k", "callers": "f"}, "plain text"),
        (
            {"http": "127.0.0.1:1", "tls_cert": "c", "tls_key": "k", "tls_client_ca": "a"},
            "HTTP asks for no certificate",
        ),
        ({"metrics": "0.0.0.0:1"}, "Give --metrics-remote"),
        ({"metrics": "[::]:1"}, "Give --metrics-remote"),
        ({"metrics": "10.1.2.3:1"}, "Give --metrics-remote"),
        ({"metrics": "here", "metrics_remote": True}, "is not HOST:PORT"),
        ({"listen": "here", "tls_cert": "c", "tls_key": "k", "callers": "f"}, "is not HOST:PORT"),
    ],
)
def test_other_machines_are_spoken_to_by_tls_and_know_their_callers(
    settings: dict[str, Any], reason: str
) -> None:
    with pytest.raises(BadSetting, match=reason):
        Settings(**settings)


@pytest.mark.parametrize("listen", ["0.0.0.0:50051", "[::]:1", "10.1.2.3:1", "idpass.internal:443"])
def test_with_tls_and_callers_any_address_is_served(listen: str) -> None:
    Settings(listen=listen, tls_cert="c", tls_key="k", callers="f")


def test_metrics_are_served_to_other_machines_where_that_is_meant() -> None:
    Settings(metrics="0.0.0.0:1", metrics_remote=True)
