"""Makes an authority and certificates for development.

Not for production, where certificates come from an issuer such as SPIRE or cert-manager: here the
authority's key lies beside what it signed, and nothing can be revoked.
"""

import ipaddress
import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from idpass_server.failures import OperatorError
from idpass_server.hosting.callers import SPIFFE_ID

LOCAL_HOSTS: Final = ("localhost", "127.0.0.1", "::1")
AUTHORITY: Final = "ID Pass development authority"
CLOCKS_DIFFER: Final = timedelta(minutes=5)
"""Tolerated clock skew: how long before now certificates become valid."""


class CannotMake(OperatorError):
    """The certificates cannot be made; the message says why and what to do."""


class Pair(NamedTuple):
    """A certificate and its key.

    Args:
        cert: PEM file of a certificate.
        key: PEM file of its private key.
        names: in the certificate.
    """

    cert: Path
    key: Path
    names: Sequence[str]


class DevCerts(NamedTuple):
    """What was made.

    Args:
        ca: of the authority.
        server: of the server.
        clients: of the callers, in the order of their SPIFFE IDs.
    """

    ca: Pair
    server: Pair
    clients: Sequence[Pair]

    def described(self) -> str:
        """The files and the commands that use them, for the terminal."""
        pairs = (self.ca, self.server, *self.clients)
        lines = [f"{pair.cert}, {pair.key.name}: {', '.join(pair.names)}" for pair in pairs]
        mutual = f" --tls-client-ca {self.ca.cert}" if self.clients else ""
        serve = f"--tls-cert {self.server.cert} --tls-key {self.server.key}{mutual}"
        own = [f" --cert {client.cert} --key {client.key}" for client in self.clients] or [""]
        calls = [f"  idpass --ca {self.ca.cert}{options} account" for options in own]
        return "\n".join([*lines, "", "Serve:", f"  idpass-server serve {serve}", "Call:", *calls])


def make(folder: Path, *, hosts: Sequence[str], spiffe_ids: Sequence[str], days: int) -> DevCerts:
    """Makes an authority, a certificate for a server, and one for each SPIFFE ID.

    Args:
        folder: for the files; created if missing.
        hosts: names and IP addresses of the server, in addition to those of this machine.
        spiffe_ids: of callers, such as spiffe://example.org/billing.
        days: of validity.

    Raises:
        CannotMake: a file exists already or cannot be written, or a name is not one.
    """
    names = tuple(dict.fromkeys((*LOCAL_HOSTS, *hosts)))
    made = DevCerts(
        _pair(folder, "ca", [AUTHORITY]),
        _pair(folder, "server", names),
        [_pair(folder, f"client-{_stem(spiffe_id)}", [spiffe_id]) for spiffe_id in spiffe_ids],
    )
    _check_free([path for pair in (made.ca, made.server, *made.clients) for path in pair[:2]])
    server_names = [_host(name) for name in names]
    authority = _Authority(days)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        authority.write(made.ca)
        authority.issue(made.server, server_names)
        for client in made.clients:
            authority.issue(client, [x509.UniformResourceIdentifier(client.names[0])])
    except OSError as error:
        raise CannotMake(f"{error.filename} cannot be written: {error.strerror}") from error
    return made


def _pair(folder: Path, stem: str, names: Sequence[str]) -> Pair:
    return Pair(folder / f"{stem}.pem", folder / f"{stem}-key.pem", names)


def _stem(spiffe_id: str) -> str:
    """The stem of a file name: ns-billing for spiffe://example.org/ns/billing.

    Raises:
        CannotMake: it is not a SPIFFE ID.
    """
    if not SPIFFE_ID.fullmatch(spiffe_id):
        raise CannotMake(f"{spiffe_id!r} is not a SPIFFE ID such as spiffe://example.org/billing")
    domain, _, path = spiffe_id.removeprefix("spiffe://").partition("/")
    return path.replace("/", "-") or domain


def _check_free(paths: Sequence[Path]) -> None:
    for path in paths:
        if paths.count(path) > 1:
            raise CannotMake(f"two SPIFFE IDs would have the same file {path}; give each a DIR")
        if path.exists():
            raise CannotMake(f"{path} exists already; give another DIR, or remove it")


def _host(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    try:
        return x509.DNSName(name)
    except ValueError as error:
        raise CannotMake(f"{name!r} is not a host name: write it in ASCII (punycode)") from error


class _Authority:
    """A certificate authority. Args: days: of validity, its own and that of what it issues."""

    def __init__(self, days: int) -> None:
        self._start = datetime.now(UTC) - CLOCKS_DIFFER
        self._end = datetime.now(UTC) + timedelta(days=days)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, AUTHORITY)])

    def write(self, pair: Pair) -> None:
        """Writes its own certificate and key."""
        builder = (
            self._builder(self._name, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
        )
        self._sign_and_write(pair, builder, self._key)

    def issue(self, pair: Pair, names: Sequence[x509.GeneralName]) -> None:
        """Writes a certificate with these names, and its key."""
        server = not isinstance(names[0], x509.UniformResourceIdentifier)
        purpose = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
        key = ec.generate_private_key(ec.SECP256R1())
        builder = (
            # All names are in the extension, as RFC 6125 demands; the subject is empty.
            self._builder(x509.Name([]), key)
            .add_extension(x509.SubjectAlternativeName(names), critical=True)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
        )
        self._sign_and_write(pair, builder, key)

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._start)
            .not_valid_after(self._end)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
        )

    def _sign_and_write(
        self, pair: Pair, builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey
    ) -> None:
        pem = serialization.Encoding.PEM
        _write(pair.cert, builder.sign(self._key, hashes.SHA256()).public_bytes(pem), mode=0o644)
        private = key.private_bytes(
            pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        _write(pair.key, private, mode=0o600)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _write(path: Path, content: bytes, *, mode: int) -> None:
    """Writes a new file. Raises: OSError: it cannot be written, or exists already."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(file, "wb") as stream:
        stream.write(content)
