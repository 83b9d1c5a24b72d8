"""The service's address as people write it: HOST:PORT, a URL, or one of gRPC's own forms."""

from typing import Any, NamedTuple
from urllib.parse import urlsplit

import click

PORT = 50051
"""Port of a grpc:// or grpcs:// URL without one: that of `idpass-server serve`."""


class _Scheme(NamedTuple):
    """What a URL's scheme says.

    Attributes:
        tls: whether TLS is used.
        port: if the URL has none.
    """

    tls: bool
    port: int


_SCHEMES = {
    "grpc": _Scheme(tls=False, port=PORT),
    "grpcs": _Scheme(tls=True, port=PORT),
    "http": _Scheme(tls=False, port=80),
    "https": _Scheme(tls=True, port=443),
}
_OF_GRPC = {"dns", "unix", "unix-abstract", "ipv4", "ipv6"}


class Target(NamedTuple):
    """Where the service is.

    Attributes:
        address: as gRPC takes it.
        tls: whether the scheme says that TLS is used; None if it does not say.
    """

    address: str
    tls: bool | None


class Address(click.ParamType[Target]):
    name = "address"

    def convert(self, value: Any, param: Any, ctx: Any) -> Target:
        if isinstance(value, Target):
            return value
        scheme, url, _ = value.strip().partition("://")
        if not url or scheme in _OF_GRPC:
            return Target(value.strip(), None)
        if scheme.lower() not in _SCHEMES:
            self.fail(
                f"{scheme}:// is not for gRPC; give HOST:PORT, grpc://HOST:PORT in plain text, "
                "grpcs://HOST:PORT with TLS, dns:///HOST:PORT or unix:PATH",
                param,
                ctx,
            )
        try:
            return _target(value.strip())
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _target(url: str) -> Target:
    """
    Raises:
        ValueError: the URL has what an address of gRPC has not; no message contains its password.
    """
    parts = urlsplit(url)
    scheme = _SCHEMES[parts.scheme]
    if parts.username is not None or parts.password is not None:
        raise ValueError(
            "the URL has credentials, which everyone on the machine could see; put the token into "
            "the environment variable IDPASS_TOKEN"
        )
    if parts.path not in {"", "/"} or parts.query or parts.fragment:
        raise ValueError(
            f"{url} has more than a host and a port. The paths of HTTP/JSON, such as "
            "/idpass/cancel, are not for this program, which speaks gRPC: give "
            f"{parts.scheme}://HOST:PORT of the service's gRPC port"
        )
    if not parts.hostname:
        raise ValueError(f"{url} has no host; give {parts.scheme}://HOST:PORT")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return Target(f"{host}:{scheme.port if parts.port is None else parts.port}", scheme.tls)
