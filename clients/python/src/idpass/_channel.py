"""The service's address and credentials, and channels that are created on first use."""

import asyncio
import ipaddress
import os
import re
import threading
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import grpc

from idpass import __version__, _reach, _trace

Pem = str | os.PathLike[str] | bytes
Token = str | Callable[[], str]
ChannelOptions = Sequence[tuple[str, Any]]
ChannelT = TypeVar("ChannelT")
StubT = TypeVar("StubT")

_OPTIONS: dict[str, Any] = {
    # Detects dead connections; the service allows a ping every ten seconds.
    "grpc.keepalive_time_ms": 30_000,
    "grpc.keepalive_timeout_ms": 10_000,
    # Retries wait for a service that is restarting; gRPC's own backoff, up to two minutes, would
    # outlast them.
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.max_reconnect_backoff_ms": 1_000,
}
CONNECT_S = (0.1, 5.0)
"""Minimum and maximum time for one attempt to connect, seconds."""


class Endpoint:
    """An address with credentials. Arguments and errors are those of IdPassClient."""

    def __init__(
        self,
        address: str,
        *,
        tls: bool | Pem,
        client_certificate: tuple[Pem, Pem] | None,
        token: Token | None,
        allow_plaintext: bool,
        timeout: float,
        channel_options: ChannelOptions,
    ) -> None:
        secure = bool(tls) or client_certificate is not None
        local = is_loopback(address)
        if secure and allow_plaintext:
            raise ValueError("allow_plaintext contradicts tls and client_certificate; give one")
        if not (secure or local or allow_plaintext):
            raise ValueError(
                f"{address} is not on this machine, and what is sent there could be read and "
                "changed on the way: give tls=True, or tls='ca.pem' for a private authority. "
                "If something else protects the connection, give allow_plaintext=True"
            )
        if token is not None and not (secure or local):
            raise ValueError(
                f"a token is not sent in plain text to {address}, where others could read it: "
                "give tls=True"
            )
        self.address = address
        self._secure = secure
        self._token = token
        if isinstance(token, str):
            _header(token)
        self._options = dict(_OPTIONS)
        # At most half of a call's time: a call that found no connection can then say so, while
        # one that is past its deadline may have been sent.
        connect_s = min(max(timeout / 2, CONNECT_S[0]), CONNECT_S[1])
        self._options["grpc.min_reconnect_backoff_ms"] = int(connect_s * 1_000)
        if local and not secure:
            # A proxy from the environment would see what is meant to stay on this machine.
            self._options["grpc.enable_http_proxy"] = 0
        self._options["grpc.primary_user_agent"] = f"idpass-client/{__version__}"
        self._options.update(channel_options)
        self._pems = self._read_pems(tls, client_certificate) if secure else None

    @staticmethod
    def _read_pems(
        tls: bool | Pem, client_certificate: tuple[Pem, Pem] | None
    ) -> tuple[bytes | None, bytes | None, bytes | None]:
        roots = None if isinstance(tls, bool) else _pem(tls)
        if client_certificate is None:
            return roots, None, None
        certificate, key = client_certificate
        return roots, _pem(key), _pem(certificate)

    def open(self, grpc_module: Any) -> Any:
        """A new channel. `grpc_module` is grpc or grpc.aio, whose functions have the same names."""
        options = list(self._options.items())
        if self._pems is None:
            return grpc_module.insecure_channel(self.address, options)
        credentials = grpc.ssl_channel_credentials(*self._pems)
        return grpc_module.secure_channel(self.address, credentials, options)

    def metadata(self) -> tuple[tuple[str, str], ...] | None:
        """The metadata of a call, made now: it has the caller's current trace.

        Raises:
            ValueError: the token cannot be sent in a header.
        """
        trace = _trace.metadata()
        if self._token is None:
            return trace or None
        token = self._token if isinstance(self._token, str) else self._token()
        return (("authorization", _header(token)), *trace)

    def unreached(self, why: str) -> str:
        """The message for a call that was never sent; see `_reach.explained`."""
        return _reach.explained(self.address, why, secure=self._secure)


class LazyChannel(Generic[ChannelT, StubT]):
    """A channel with its stub, created at the first call, and again in a forked child.

    Args:
        open_channel: creates a channel.
        make_stub: creates a stub for it.

    Attributes:
        closed: whether the client is closed; no further channel is created then.
    """

    def __init__(
        self, open_channel: Callable[[], ChannelT], make_stub: Callable[[ChannelT], StubT]
    ) -> None:
        self._open_channel = open_channel
        self._make_stub = make_stub
        self._lock = threading.Lock()
        self._channel: ChannelT | None = None
        self._stub: StubT | None = None
        self.closed = False
        _living.add(self)

    def stub(self) -> StubT:
        """
        Raises:
            RuntimeError: the client is closed, or gRPC does not survive this fork.
        """
        stub = self._stub
        if stub is not None:
            return stub
        with self._lock:
            if self.closed:
                raise RuntimeError("the client is closed")
            if _fork.broken:
                raise RuntimeError(
                    "this process was forked from one with an open gRPC channel, and gRPC would "
                    "hang here: make the first call after the fork, or set "
                    "GRPC_ENABLE_FORK_SUPPORT=1 before Python starts"
                )
            if self._stub is None:
                self._channel = self._open_channel()
                self._stub = self._make_stub(self._channel)
            return self._stub

    def channel(self) -> ChannelT:
        """
        Raises:
            RuntimeError: as for `stub`.
        """
        while True:
            self.stub()
            if (channel := self._channel) is not None:
                return channel

    def take(self) -> ChannelT | None:
        """Gives up the channel, and returns it if there is one."""
        with self._lock:
            channel, self._channel, self._stub = self._channel, None, None
        return channel

    def forked(self) -> bool:
        """In the child: forgets the parent's channel. Returns whether there was one."""
        self._lock = threading.Lock()  # a thread that is not in the child may have held it
        channel = self.take()
        if channel is not None:
            _fork.abandoned.append(channel)
        return channel is not None


def connect(lazy: LazyChannel[grpc.Channel, Any], timeout_s: float) -> bool:
    """Waits for a connection. Returns whether there is one.

    It sends a health check that waits for the connection; any answer will do. Up to grpcio 1.76 at
    least, a sync channel does not go on connecting unless a call waits. gRPC's own ways to wait
    leave a thread behind that prints an error if the channel is closed soon after.
    """
    check: Any = lazy.channel().unary_unary("/grpc.health.v1.Health/Check")
    try:
        check(b"", timeout=timeout_s, wait_for_ready=True)
    except grpc.RpcError as error:
        ended = error.code()
        return not lazy.closed and ended is not grpc.StatusCode.DEADLINE_EXCEEDED
    return True


async def connect_aio(lazy: LazyChannel[grpc.aio.Channel, Any], timeout_s: float) -> bool:
    """As `connect`; an aio channel reports its state."""
    channel = lazy.channel()

    async def settle() -> None:
        state = channel.get_state(try_to_connect=True)
        while state not in _SETTLED:
            await channel.wait_for_state_change(state)
            state = channel.get_state(try_to_connect=True)

    try:
        await asyncio.wait_for(settle(), timeout_s)
    except asyncio.TimeoutError:
        return False
    return not lazy.closed


_SETTLED = frozenset({grpc.ChannelConnectivity.READY, grpc.ChannelConnectivity.SHUTDOWN})


class _Fork:
    """Whether this process was forked from one with open channels."""

    def __init__(self) -> None:
        self.supported = os.environ.get("GRPC_ENABLE_FORK_SUPPORT", "").lower() in {
            "1",
            "true",
            "yes",
        }
        self.broken = False
        # Kept, since gRPC cannot safely close the parent's channels in the child either.
        self.abandoned: list[Any] = []

    def in_child(self) -> None:
        open_channels = [channel.forked() for channel in list(_living)]
        if any(open_channels) and not self.supported:
            self.broken = True


_living: "weakref.WeakSet[LazyChannel[Any, Any]]" = weakref.WeakSet()
_fork = _Fork()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_fork.in_child)


def is_loopback(address: str) -> bool:
    """Whether a gRPC address is on this machine.

    Raises:
        ValueError: it is neither HOST:PORT nor has a scheme such as unix: or dns:///.
    """
    scheme, colon, rest = address.partition(":")
    if colon and scheme in {"unix", "unix-abstract"}:
        return True
    if scheme in {"ipv4", "ipv6"}:
        return all(_is_loopback_host(part) for part in rest.split(","))
    if scheme == "dns":
        # dns:host:port, dns:///host:port or dns://resolver/host:port
        return is_loopback(rest.rpartition("/")[2])
    if "://" in address or rest.startswith("/"):
        return False
    return _is_loopback_host(address)


def _is_loopback_host(text: str) -> bool:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or (":" in host and not host.startswith("[")):
        raise ValueError(f"{text!r} is not HOST:PORT, such as localhost:50051 or [::1]:50051")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _pem(source: Pem) -> bytes:
    return source if isinstance(source, bytes) else Path(source).read_bytes()


def _header(token: object) -> str:
    """The value of the header `authorization`. No message contains the token: it is a secret.

    Raises:
        TypeError: it is not text.
        ValueError: it cannot be sent in a header.
    """
    if not isinstance(token, str):
        raise TypeError(
            f"the token is {type(token).__name__}; give text, or a function that returns text"
        )
    stripped = token.strip()
    if not re.fullmatch(r"[ -~]+", stripped):
        what = "has characters other than printable ASCII" if stripped else "is empty"
        raise ValueError(f"the token {what}, and cannot be sent in a header")
    return f"Bearer {stripped}"
