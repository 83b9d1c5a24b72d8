"""Certificates, authorities and connections that are replaced while calls go on."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

from idpass import IdPassClient, Unauthenticated, Unavailable
from idpass.v1.id_pass_service_pb2 import GetAccountRequest
from idpass.v1.id_pass_service_pb2_grpc import IdPassServiceStub
from idpass_server.api.identity import Caller, KnownCallers
from idpass_server.api.watch import Watchers
from idpass_server.hosting import channel_options as options
from kit.certificates import Authority, Pair, channel_credentials, replace
from kit.guarded import caller
from kit.secure import BILLING, LOCAL, Secure
from kit.support import Process, process

WAIT_S = 30
NEW_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]
"""Or gRPC would have channels to the same address share their connections."""


@pytest.fixture
def secure_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Secure]:
    """A server whose connections have had their time soon."""
    monkeypatch.setattr(options, "CONNECTION_GRACE_S", 0.1)
    running = Secure(tmp_path, max_connection_age_s=0.2)
    try:
        yield running
    finally:
        running.stop()


class Load:
    """Calls that go on all the time, from threads of their own.

    Args:
        calls: each is made again and again by a thread; none may raise.
    """

    def __init__(self, *calls: Callable[[], object]) -> None:
        self._made = [0] * len(calls)
        self._news = threading.Condition()
        self._over = False
        self._error: BaseException | None = None
        self._threads = [threading.Thread(target=self._run, args=each) for each in enumerate(calls)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True
        for thread in self._threads:
            thread.join(WAIT_S)
            assert not thread.is_alive()
        if self._error is not None:
            raise self._error

    def go_on(self, calls: int = 5) -> None:
        """Returns when every thread has made so many more."""
        with self._news:
            goals = [made + calls + 1 for made in self._made]  # one may be under way already
            assert self._news.wait_for(
                lambda: self._error or all(map(int.__ge__, self._made, goals)), WAIT_S
            )

    def _run(self, number: int, call: Callable[[], object]) -> None:
        while not self._over and self._error is None:
            try:
                call()
            except BaseException as error:  # noqa: BLE001 raised by the test's thread
                self._error = error
            with self._news:
                self._made[number] += 1
                self._news.notify_all()


def test_certificates_and_authorities_rotate_under_load_without_a_failed_call(
    secure: Secure, tmp_path: Path
) -> None:
    new_servers, new_clients = Authority(tmp_path / "servers-2"), Authority(tmp_path / "clients-2")
    trusted = secure.servers.pem + new_servers.pem
    billing = [secure.billing]

    def connect_and_call_once() -> None:
        """Without retries: it is an error if the first attempt fails."""
        credentials = channel_credentials(trusted, billing[0])
        with grpc.secure_channel(secure.address, credentials, NEW_CONNECTION) as channel:
            IdPassServiceStub(channel).GetAccount(GetAccountRequest(), timeout=WAIT_S)

    def connect_and_cancel() -> None:
        options = NEW_CONNECTION
        with secure.client(billing[0], tls=trusted, channel_options=options) as client:
            assert client.cancel(client.register().id_pass.id).fee_refunded

    lasting = secure.client(secure.billing)
    calls = (connect_and_call_once, connect_and_call_once, connect_and_cancel, lasting.account)
    with lasting, Load(*calls) as load:
        load.go_on()
        secure.pair.replace(new_servers.issue(*LOCAL))
        secure.read_again()
        load.go_on()
        with secure.client(billing[0], tls=new_servers.pem) as client:
            assert client.account().id == "acme"
        # The authority of clients: the new one comes, the clients move, the old one goes.
        replace(secure.clients.path, secure.clients.pem + new_clients.pem)
        secure.read_again()
        load.go_on()
        billing[0] = new_clients.issue(BILLING)
        load.go_on()
        replace(secure.clients.path, new_clients.pem)
        secure.read_again()
        load.go_on()
    # The old ones count no more: neither of the server for the client, nor the other way round.
    for pair, roots in ((secure.billing, new_servers), (billing[0], secure.servers)):
        with (
            secure.client(pair, tls=roots.pem, timeout=0.5, channel_options=NEW_CONNECTION) as old,
            pytest.raises(Unavailable),
        ):
            old.account()


@contextlib.contextmanager
def mutual(folder: Path) -> Iterator[tuple[Process, Authority, Pair, Authority]]:
    servers, clients = Authority(folder / "servers"), Authority(folder / "clients")
    pair = servers.issue(*LOCAL)
    options = ["--tls-cert", pair.cert, "--tls-key", pair.key, "--tls-client-ca", clients.path]
    credentials = channel_credentials(servers.pem, clients.issue(BILLING))
    with process(folder / "idpass.db", *map(str, options), credentials=credentials) as server:
        yield server, servers, pair, clients


def new_certificate_is_served(server: Process, servers: Authority, pair: Pair) -> bool:
    tls: dict[str, Any] = {
        "tls": servers.pem,
        "client_certificate": pair,
        "channel_options": NEW_CONNECTION,
    }
    with IdPassClient(server.address, timeout=WAIT_S, **tls) as client:
        return client.account().id == "demo"


def test_files_that_change_are_in_force_without_being_asked_for(tmp_path: Path) -> None:
    with mutual(tmp_path) as (server, _, pair, clients):
        assert server.account().id == "demo"
        new = Authority(tmp_path / "servers-2")
        pair.replace(new.issue(*LOCAL))
        server.wait_for("certificates_loaded", count=2)
        assert new_certificate_is_served(server, new, clients.issue(BILLING))
        assert server.account().id == "demo"  # on the connection from before


def test_broken_new_files_leave_the_former_in_force(tmp_path: Path) -> None:
    with mutual(tmp_path) as (server, servers, pair, clients):
        good, billing = pair.cert.read_bytes(), clients.issue(BILLING)
        other, expired = servers.issue(*LOCAL), servers.issue(*LOCAL, from_day=-9, to_day=-1)

        def rejected(reason: str) -> None:
            server.signal(signal.SIGHUP)
            server.wait_for_line(
                lambda line: line["event"] == "certificates_rejected" and reason in line["reason"]
            )
            assert new_certificate_is_served(server, servers, billing)

        for path, content, reason in [
            (pair.cert, good[: len(good) // 2], f"{pair.cert} holds no certificate"),
            (
                pair.cert,
                other.cert.read_bytes(),
                f"not that of the first certificate in {pair.cert}",
            ),
            (pair.key, b"nonsense", f"{pair.key} holds no private key"),
            (clients.path, b"nonsense", f"{clients.path} holds no certificate"),
        ]:
            before = path.read_bytes()
            path.write_bytes(content)
            rejected(reason)
            path.write_bytes(before)
        pair.cert.unlink()
        rejected(f"{pair.cert} cannot be read: No such file or directory")
        pair.replace(expired)
        rejected(f"{pair.cert} cannot be used: certificate has expired")
        pair.replace(servers.issue(*LOCAL, key=ed25519.Ed25519PrivateKey.generate()))
        rejected(f"{pair.cert} and its key cannot be used by gRPC")
        new = Authority(tmp_path / "servers-2")
        pair.replace(new.issue(*LOCAL))
        server.signal(signal.SIGHUP)
        assert new_certificate_is_served(server, new, billing)
        server.signal()
        assert server.wait() == 0


def test_a_caller_that_is_removed_is_nobody_on_its_open_connection_too(secure: Secure) -> None:
    with secure.client(secure.billing) as client:
        assert client.account().id == "acme"
        secure.reload(caller("other"))
        with pytest.raises(Unauthenticated):
            client.account()


# -- the age of connections


def test_a_watch_goes_on_over_connections_that_have_had_their_time(
    secure_soon: Secure, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    follow = Watchers.follow

    def counted(*arguments: Any, **named: Any) -> Any:
        opened.append(arguments)
        return follow(*arguments, **named)

    monkeypatch.setattr(Watchers, "follow", counted)
    sequences = []
    with secure_soon.client(secure_soon.billing) as client:
        events = client.watch()
        deadline_s = time.monotonic() + WAIT_S
        while len(opened) < 4 and time.monotonic() < deadline_s:
            client.cancel(client.register().id_pass.id)
            sequences += [next(events).sequence, next(events).sequence]
    assert len(opened) >= 4
    assert sequences == list(range(1, len(sequences) + 1))


def test_calls_go_on_over_connections_that_have_had_their_time(
    secure_soon: Secure, monkeypatch: pytest.MonkeyPatch
) -> None:
    peers = set()
    caller_of = KnownCallers.caller

    def noted(identity: KnownCallers, context: Any) -> Caller:
        peers.add(context.peer())
        return caller_of(identity, context)

    monkeypatch.setattr(KnownCallers, "caller", noted)
    with secure_soon.client(secure_soon.billing) as client:

        def register_and_cancel() -> None:
            assert client.cancel(client.register().id_pass.id).fee_refunded

        with Load(*[register_and_cancel] * 4) as load:
            deadline_s = time.monotonic() + WAIT_S
            while len(peers) < 8 and time.monotonic() < deadline_s:
                load.go_on()
    assert len(peers) >= 8
