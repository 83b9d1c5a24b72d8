"""Certificates of every kind, made for the tests that speak TLS."""

import ipaddress
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey
PEM = serialization.Encoding.PEM


class Pair(NamedTuple):
    """PEM files of a certificate and its private key, as IdPassClient takes them."""

    cert: Path
    key: Path

    def replace(self, other: "Pair") -> None:
        """Puts other ones in their place, each file at once but one after the other."""
        for ours, theirs in zip(self, other, strict=True):
            replace(ours, theirs.read_bytes())


def replace(path: Path, content: bytes) -> None:
    """As whatever renews certificates does: whoever reads finds the one or the other."""
    new = path.with_suffix(".new")
    new.write_bytes(content)
    os.replace(new, path)  # noqa: PTH105 as one says it


class Authority:
    """Args: folder: where its files go."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._issued = 0
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, folder.name)])
        builder = _builder(self._name, self._name, self._key, -1, 30)
        builder = builder.add_extension(x509.BasicConstraints(True, None), critical=True)
        self.pem = builder.sign(self._key, hashes.SHA256()).public_bytes(PEM)
        self.path = folder / "ca.pem"
        self.path.write_bytes(self.pem)

    def issue(
        self, *names: str, from_day: int = -1, to_day: int = 30, key: PrivateKey | None = None
    ) -> Pair:
        """A certificate.

        Args:
            names: host names, IP addresses and URIs.
            from_day, to_day: when it is valid, counted from today.
            key: of its own; None makes one for P-256.
        """
        key = key or ec.generate_private_key(ec.SECP256R1())
        builder = _builder(x509.Name([]), self._name, key, from_day, to_day)
        if names:
            alternatives = x509.SubjectAlternativeName(map(_name, names))
            builder = builder.add_extension(alternatives, critical=True)
        self._issued += 1
        made = Pair(self._folder / f"{self._issued}.pem", self._folder / f"{self._issued}-key.pem")
        made.cert.write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(PEM))
        private = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        made.key.write_bytes(key.private_bytes(PEM, *private))
        return made


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: PrivateKey,
    from_day: int,
    to_day: int,
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return x509.CertificateBuilder(
        issuer_name=issuer,
        subject_name=subject,
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=now + timedelta(days=from_day),
        not_valid_after=now + timedelta(days=to_day),
    )


def _name(text: str) -> x509.GeneralName:
    if "://" in text:
        return x509.UniformResourceIdentifier(text)
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def channel_credentials(roots: bytes, pair: Pair | None = None) -> grpc.ChannelCredentials:
    if pair is None:
        return grpc.ssl_channel_credentials(roots)
    return grpc.ssl_channel_credentials(roots, pair.key.read_bytes(), pair.cert.read_bytes())


def with_passphrase(key: Path) -> bytes:
    """A private key, encrypted."""
    loaded = serialization.load_pem_private_key(key.read_bytes(), None)
    encryption = serialization.BestAvailableEncryption(b"secret")
    return loaded.private_bytes(PEM, serialization.PrivateFormat.PKCS8, encryption)
