"""TLS: the server's certificate and the authorities of its callers', read again when they change.

gRPC asks for them at every handshake, on threads of its own: a new connection gets what is in
force by then, an open one goes on as it is. Files are read and checked by `reload` alone, never
on those threads, and what cannot be used is not given to gRPC: what was there before stays in
force.

The least version is TLS 1.2: gRPC's own rule, which a test holds it to.
"""

import contextlib
import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import grpc
import structlog

log = structlog.get_logger()


class BadCertificates(Exception):
    """A file cannot be used; the message says which and why."""


class _Loaded(NamedTuple):
    configuration: Any
    not_after: datetime


class Certificates:
    """
    Args:
        cert: PEM file of the server's certificate, and of those between it and its authority.
        key: PEM file of its private key.
        client_ca: PEM file of the authorities of callers' certificates; None asks callers for
            no certificate.

    Raises:
        BadCertificates: they cannot be used.
    """

    def __init__(self, cert: Path, key: Path, client_ca: Path | None = None) -> None:
        self._paths = (cert, key) if client_ca is None else (cert, key, client_ca)
        self._mutual = client_ca is not None
        self._in_force = self._given = self._load()

    def credentials(self) -> grpc.ServerCredentials:
        """What a port is opened with."""
        return grpc.dynamic_ssl_server_credentials(
            self._in_force.configuration, self._fetch, require_client_authentication=self._mutual
        )

    def reload(self) -> None:
        """Puts the files in force if they can be used; says in the log whether."""
        try:
            self._in_force = self._load()
        except BadCertificates as error:
            not_after = self._in_force.not_after.isoformat()
            log.error("certificates_rejected", reason=str(error), in_force_not_after=not_after)

    def _fetch(self) -> Any:
        """gRPC's question at each handshake: what is new, or None. It never asks twice at once."""
        in_force = self._in_force
        if in_force is self._given:
            return None
        self._given = in_force
        return in_force.configuration

    def _load(self) -> _Loaded:
        """Raises: BadCertificates."""
        pems = [_read(path) for path in self._paths]
        try:
            not_after = _check(*self._paths)
        except OSError as error:
            raise BadCertificates(f"a file went away while it was read: {error}") from error
        if [_read(path) for path in self._paths] != pems:
            raise BadCertificates("the files were changed while they were read")
        cert, key, *client_ca = pems
        configuration = grpc.ssl_server_certificate_configuration(
            [(key, cert)], client_ca[0] if client_ca else None
        )
        log.info("certificates_loaded", cert=str(self._paths[0]), not_after=not_after.isoformat())
        return _Loaded(configuration, not_after)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadCertificates(f"{path} cannot be read: {error.strerror}") from error


def _check(cert: Path, key: Path, client_ca: Path | None = None) -> datetime:
    """Tries whether TLS can be spoken with the files. Returns when the certificate expires.

    Raises:
        BadCertificates: it cannot.
    """
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the certificate itself is trusted
    _trust(client, cert)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)

    def no_password() -> NoReturn:
        raise BadCertificates(f"{key} is encrypted; a server needs a key without a passphrase")

    try:
        server.load_cert_chain(cert, key, no_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise BadCertificates(
                f"the key in {key} is not that of the first certificate in {cert}"
            ) from error
        raise BadCertificates(
            f"{key} holds no private key that can be used{_why(error)}"
        ) from error
    if client_ca is not None:
        _trust(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), client_ca)
    try:
        found = _handshake(client, server)
    except ssl.SSLCertVerificationError as error:
        raise BadCertificates(f"{cert} cannot be used: {error.verify_message}") from error
    except ssl.SSLError as error:
        raise BadCertificates(f"{cert} cannot be used{_why(error)}") from error
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(str(found["notAfter"])), UTC)


def _trust(context: ssl.SSLContext, path: Path) -> None:
    try:
        context.load_verify_locations(path)
    except ssl.SSLError as error:
        raise BadCertificates(
            f"{path} holds no certificate that can be read{_why(error)}"
        ) from error


def _why(error: ssl.SSLError) -> str:
    """OpenSSL's own words; for a file that is not PEM at all it has none."""
    return f": {error.reason.lower().replace('_', ' ')}" if error.reason else ": is it PEM?"


def _handshake(client: ssl.SSLContext, server: ssl.SSLContext) -> dict[str, Any]:
    """Shakes hands in memory. Returns the server's certificate as the client sees it."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = client.wrap_bio(down, up), server.wrap_bio(up, down, server_side=True)
    for end in ends * 3:  # TLS 1.2 goes there and back twice
        with contextlib.suppress(ssl.SSLWantReadError):
            end.do_handshake()
    return ends[0].getpeercert() or {}
