"""Where the service is and how it is spoken to: address, credentials, metadata, channel options."""

import ipaddress
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import grpc

from idpass import __version__, _metadata, _reach, _trace
from idpass._arguments import limit
from idpass._metadata import Metadata, Pairs

Pem = str | os.PathLike[str] | bytes
Token = str | Callable[[], str]
ChannelOptions = Sequence[tuple[str, Any]]

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
    """An address with credentials. Arguments and errors are those of IdPassClient.

    Attributes:
        timeout_s: of a call that brings none of its own.
    """

    def __init__(
        self,
        address: str,
        *,
        tls: bool | Pem,
        client_certificate: tuple[Pem, Pem] | None,
        token: Token | None,
        timeout: float,
        metadata: Metadata | None,
        allow_plaintext: bool,
        channel_options: ChannelOptions,
    ) -> None:
        if not isinstance(address, str):
            raise TypeError(f"address is {address!r}; give HOST:PORT as text")
        if not (token is None or isinstance(token, str) or callable(token)):
            raise TypeError(
                f"token is {type(token).__name__}; give text, or a function that returns text"
            )
        self.timeout_s = limit(timeout)
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
        self._metadata = _metadata.checked(metadata)
        if isinstance(token, str):
            _header(token)
        self._options = dict(_OPTIONS)
        # At most half of a call's time: a call that found no connection can then say so, while
        # one that is past its deadline may have been sent.
        connect_s = min(max(timeout / 2, CONNECT_S[0]), CONNECT_S[1])
        self._options["grpc.min_reconnect_backoff_ms"] = int(connect_s * 1_000)
        if local:
            # What a proxy from the environment finds there is not this machine.
            self._options["grpc.enable_http_proxy"] = 0
        self._options["grpc.primary_user_agent"] = f"idpass-client/{__version__}"
        self._options.update(_checked_options(channel_options))
        self._pems = _read_pems(tls, client_certificate) if secure else None

    def __repr__(self) -> str:
        told = [repr(self.address), f"tls={self._secure}"]
        if self._token is not None:
            told.append("token=…")
        return ", ".join(told)

    def open(self, grpc_module: Any, **more: Any) -> Any:
        """A new channel. `grpc_module` is grpc or grpc.aio, whose functions have the same names."""
        options = list(self._options.items())
        if self._pems is None:
            return grpc_module.insecure_channel(self.address, options, **more)
        credentials = grpc.ssl_channel_credentials(*self._pems)
        return grpc_module.secure_channel(self.address, credentials, options, **more)

    def metadata(self, own: Pairs = ()) -> Pairs | None:
        """The metadata of an attempt, made now: it has the caller's current trace.

        Args:
            own: what the call brings; see `_metadata.checked`.

        Raises:
            ValueError: the token cannot be sent in a header.
        """
        sent = _metadata.merged(self._metadata, own)
        trace = _trace.metadata()
        if trace and sent:
            given = {key for key, _ in sent}
            trace = tuple(pair for pair in trace if pair[0] not in given)
        if self._token is None:
            return (*sent, *trace) or None
        token = self._token if isinstance(self._token, str) else self._token()
        return (("authorization", _header(token)), *sent, *trace)

    def unreached(self, why: str) -> str:
        """The message for a call that was never sent; see `_reach.explained`."""
        return _reach.explained(self.address, why, secure=self._secure)


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


def _checked_options(options: object) -> ChannelOptions:
    if not isinstance(options, Sequence):
        raise TypeError(f"channel_options is {type(options).__name__}; give pairs: name and value")
    for each in options:
        pair = isinstance(each, tuple | list) and len(each) == 2  # noqa: PLR2004
        if not (pair and isinstance(each[0], str)):
            raise TypeError(f"channel_options has {each!r}; give pairs: name and value")
    return options


def _read_pems(
    tls: bool | Pem, client_certificate: tuple[Pem, Pem] | None
) -> tuple[bytes | None, bytes | None, bytes | None]:
    roots = None if isinstance(tls, bool) else _pem("tls", tls)
    if client_certificate is None:
        return roots, None, None
    if not isinstance(client_certificate, tuple | list) or len(client_certificate) != 2:  # noqa: PLR2004
        raise TypeError("client_certificate is a pair: the certificate chain, and its private key")
    certificate, key = client_certificate
    return roots, _pem("client_certificate", key), _pem("client_certificate", certificate)


def _pem(name: str, source: Pem) -> bytes:
    if not isinstance(source, str | os.PathLike | bytes):
        raise TypeError(f"{name} is {type(source).__name__}; give the path or bytes of a PEM file")
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
