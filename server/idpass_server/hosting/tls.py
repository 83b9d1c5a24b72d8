"""TLS: the server's certificate and the authorities of client certificates, reread on change.

gRPC asks for them at every handshake, on its own threads: a new connection gets what is in force,
an open one is not affected. Only `reload` reads and checks files, never those threads. Files that
cannot be used are not given to gRPC: what was in force stays so.

The minimum version is TLS 1.2: gRPC's own default, which a test pins.
"""

import codecs
import contextlib
import ipaddress
import ssl
import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn

import grpc
import structlog

from idpass_server.failures import OperatorError
from idpass_server.hosting import files

TRIAL_S: Final = 10.0
"""Deadline of the handshake that tries new certificates, seconds."""
_ANOTHER_NAME: Final = "Hostname Verification Check failed"  # gRPC's error after a good handshake

log = structlog.get_logger()


class BadCertificates(OperatorError):
    """TLS cannot be spoken with the files given; the message says which and why."""


class _Loaded(NamedTuple):
    configuration: Any
    not_after: datetime


class Certificates:
    """The certificates in force.

    Args:
        cert: PEM file of the server's certificate, followed by its intermediates.
        key: PEM file of its private key.
        client_ca: PEM file of the authorities of client certificates; None requests no
            certificate from clients.

    Raises:
        BadCertificates: they cannot be used.
    """

    def __init__(self, cert: Path, key: Path, client_ca: Path | None = None) -> None:
        self._paths = (cert, key) if client_ca is None else (cert, key, client_ca)
        self._mutual = client_ca is not None
        self._in_force = self._given = self._load()

    def not_after_s(self) -> float:
        """When the server's certificate that is in force ends, seconds since the epoch."""
        return self._in_force.not_after.timestamp()

    def credentials(self) -> grpc.ServerCredentials:
        """gRPC's credentials, for opening a port."""
        return grpc.dynamic_ssl_server_credentials(
            self._in_force.configuration, self._fetch, require_client_authentication=self._mutual
        )

    def reload(self) -> bool:
        """Rereads the files and puts them in force if they can be used; logs which it was.

        Returns:
            whether they can be used.
        """
        try:
            self._in_force = self._load()
        except BadCertificates as error:
            not_after = self._in_force.not_after.isoformat()
            log.error("certificates_rejected", reason=str(error), in_force_not_after=not_after)
            return False
        return True

    def _fetch(self) -> Any:
        """Called by gRPC at each handshake, never twice at once: what is new, or None."""
        in_force = self._in_force
        if in_force is self._given:
            return None
        self._given = in_force
        return in_force.configuration

    def _load(self) -> _Loaded:
        """Reads and checks the files. Raises: BadCertificates: they cannot be used."""
        pems = [_read(path) for path in self._paths]
        try:
            shown = _check(*self._paths)
        except OSError as error:
            raise BadCertificates(f"a file disappeared while it was read: {error}") from error
        if [_read(path) for path in self._paths] != pems:
            raise BadCertificates("the files were changed while they were read")
        cert, key, client_ca = pems[0], pems[1], pems[2] if self._mutual else None
        _try_grpc(cert, key, client_ca, _name(shown), named=f"{self._paths[0]} and its key")
        _warn_of_readers(self._paths[1])
        not_after = datetime.fromtimestamp(ssl.cert_time_to_seconds(str(shown["notAfter"])), UTC)
        configuration = grpc.ssl_server_certificate_configuration([(key, cert)], client_ca)
        log.info("certificates_loaded", cert=str(self._paths[0]), not_after=not_after.isoformat())
        return _Loaded(configuration, not_after)


def _read(path: Path) -> bytes:
    try:
        content, _ = files.read(path)
    except OSError as error:
        raise BadCertificates(f"{path} cannot be read: {error.strerror}") from error
    except files.WritableByOthers as error:
        raise BadCertificates(f"{path} {error}") from error
    if content.startswith(codecs.BOM_UTF8):
        raise BadCertificates(f"{path} begins with a byte-order mark; save it without one")
    return content


def _warn_of_readers(key: Path) -> None:
    mode = stat.S_IMODE(key.stat().st_mode)
    if mode & stat.S_IROTH:
        log.warning("key_readable_by_others", key=str(key), mode=f"{mode:04o}")


def _check(cert: Path, key: Path, client_ca: Path | None = None) -> dict[str, Any]:
    """Tries whether TLS can be spoken with the files.

    Returns:
        the server's certificate, as `ssl` decodes it.

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
        return _handshake(client, server)
    except ssl.SSLCertVerificationError as error:
        raise BadCertificates(f"{cert} cannot be used: {error.verify_message}") from error
    except ssl.SSLError as error:
        raise BadCertificates(f"{cert} cannot be used{_why(error)}") from error


def _trust(context: ssl.SSLContext, path: Path) -> None:
    try:
        context.load_verify_locations(path)
    except ssl.SSLError as error:
        raise BadCertificates(
            f"{path} holds no certificate that can be read{_why(error)}"
        ) from error


def _why(error: ssl.SSLError) -> str:
    """OpenSSL's reason; it has none for a file that is not PEM at all."""
    return f": {error.reason.lower().replace('_', ' ')}" if error.reason else ": is it PEM?"


def _handshake(client: ssl.SSLContext, server: ssl.SSLContext) -> dict[str, Any]:
    """Does a handshake in memory. Returns the server's certificate as the client sees it."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = client.wrap_bio(down, up), server.wrap_bio(up, down, server_side=True)
    for end in ends * 3:  # TLS 1.2 takes two round trips
        with contextlib.suppress(ssl.SSLWantReadError):
            end.do_handshake()
    return ends[0].getpeercert() or {}


def _name(shown: dict[str, Any]) -> str:
    """A name of the certificate; empty if it has none that gRPC compares."""
    names = shown.get("subjectAltName", ())
    found = [name for kind, name in names if kind == "DNS"]
    found += [str(ipaddress.ip_address(name)) for kind, name in names if kind == "IP Address"]
    return found[0].replace("*", "any", 1) if found else ""


def _try_grpc(cert: bytes, key: bytes, client_ca: bytes | None, name: str, *, named: str) -> None:
    """Does a handshake with a gRPC client over loopback: gRPC accepts less than OpenSSL does.

    No client certificate is requested, since there is none to show.

    Args:
        cert: PEM of the server's certificate chain.
        key: PEM of its private key.
        client_ca: PEM of the authorities of client certificates, or None.
        name: a name of the certificate; may be empty.
        named: the files, for the message.

    Raises:
        BadCertificates: gRPC cannot read them, or the handshake fails or exceeds TRIAL_S.
    """
    client_options = (
        ("grpc.ssl_target_name_override", name or "nobody"),
        ("grpc.enable_http_proxy", 0),
        ("grpc.use_local_subchannel_pool", 1),
    )
    with ThreadPoolExecutor(1) as executor:
        server = grpc.server(executor, options=[("grpc.so_reuseport", 0)])
        try:
            port = server.add_secure_port(
                "127.0.0.1:0", grpc.ssl_server_credentials([(key, cert)], client_ca)
            )
        except RuntimeError as error:
            raise BadCertificates(f"{named} or the authorities cannot be read by gRPC") from error
        server.start()
        trusted = grpc.ssl_channel_credentials(cert)
        try:
            with grpc.secure_channel(f"127.0.0.1:{port}", trusted, client_options) as channel:
                call: Any = channel.unary_unary("/trial")
                call(b"", timeout=TRIAL_S)
        except grpc.RpcError as error:
            why = error.details() or ""
            answered = error.code() is grpc.StatusCode.UNIMPLEMENTED
            if not answered and (name or _ANOTHER_NAME not in why):
                raise BadCertificates(
                    f"{named} cannot be used by gRPC, which takes RSA, P-256 and P-384 keys: {why}"
                ) from error
        finally:
            server.stop(None).wait()
