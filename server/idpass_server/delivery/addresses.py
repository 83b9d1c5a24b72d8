"""Where webhooks may be sent: public addresses only, so that a caller's URL cannot be turned
against what this server alone can reach.

A URL is checked when it is given, as far as its text goes; what its name resolves to is judged by
`sending` at each connection, on the very address that is connected to.
"""

import ipaddress
import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import SplitResult, urlsplit

import idna

from idpass_server.addresses import Network

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

MAX_URL_CHARACTERS: Final = 2_048
"""Length of an endpoint's URL."""
MAX_HOST_CHARACTERS: Final = 253
"""Length of a host name, as DNS limits it."""

# https://www.iana.org/assignments/iana-ipv4-special-registry and what clouds serve metadata at.
# `is_global` differs from one Python to the next.
_CLOSED_V4: Final = [
    ipaddress.IPv4Network(network)
    for network in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),
        *("172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16"),
        *("198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
        "168.63.129.16/32",  # Azure's metadata and DNS, from within its machines only
    )
]
_GLOBAL_UNICAST: Final = ipaddress.IPv6Network("2000::/3")
# https://www.iana.org/assignments/iana-ipv6-special-registry
_CLOSED_V6: Final = [
    ipaddress.IPv6Network(network)
    for network in ("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20")
]
_MAPPED: Final = ipaddress.IPv6Network("::ffff:0:0/96")
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_6TO4: Final = ipaddress.IPv6Network("2002::/16")

# https://fetch.spec.whatwg.org/#port-blocking: other protocols' ports, where a POST might do harm.
BAD_PORTS: Final = frozenset(
    [
        *(0, 1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95),
        *(101, 102, 103, 104, 109, 110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161),
        *(179, 389, 427, 465, 512, 513, 514, 515, 526, 530, 531, 532, 540, 548, 554, 556, 563),
        *(587, 601, 636, 989, 990, 993, 995, 1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060),
        *(5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080),
    ]
)
_NUMBER: Final = re.compile(r"\d+|0[xX][0-9a-fA-F]*")  # a last label that makes a host an address
_NAME: Final = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_TEXT: Final = re.compile(r"[!-~]*")


class BadUrl(ValueError):
    """A URL cannot be an endpoint's; the message is to be read after the field's name."""


class Addresses:
    """Judges addresses and URLs.

    Args:
        allowed: networks that are open although they are not public; http is open there too.
    """

    def __init__(self, allowed: Sequence[Network] = ()) -> None:
        self._allowed = tuple(allowed)

    def judge(self, text: str, scheme: str) -> str | None:
        """Why an address may not be connected to; None if it may.

        Args:
            text: the address as numbers.
            scheme: of the URL.
        """
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            return "is not an address"
        if getattr(address, "scope_id", None):
            return "has a zone"
        address = _embedded(address)
        if any(address.version == each.version and address in each for each in self._allowed):
            return None
        if not _is_public(address):
            return "is not public"
        return None if scheme == "https" else "needs https"

    def check(self, text: str) -> str:
        """Checks a URL that a caller gives for an endpoint.

        Returns:
            the URL, with an internationalised host in its ASCII form.

        Raises:
            BadUrl: it cannot be an endpoint's.
        """
        if len(text) > MAX_URL_CHARACTERS:
            raise BadUrl(f"has {len(text)} characters; at most {MAX_URL_CHARACTERS} are allowed")
        if "\\" in text or any(c.isspace() or not c.isprintable() for c in text):
            raise BadUrl("has a space, a backslash or a character that cannot be printed")
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError as error:
            raise BadUrl("is not a URL such as https://example.com/hook") from error
        self._check_scheme(parts)
        if parts.username is not None or parts.password is not None or "@" in parts.netloc:
            raise BadUrl("has a user or password in it; receivers know us by the signature")
        if parts.fragment or text.endswith("#"):
            raise BadUrl("has a fragment (#), which is never sent")
        if port in BAD_PORTS:
            raise BadUrl(f"has port {port}, where another protocol is spoken")
        host = self._host(parts)
        rest = parts.path + (f"?{parts.query}" if parts.query else "")
        if not _TEXT.fullmatch(rest):
            raise BadUrl("has characters after the host that must be percent-encoded")
        return f"{parts.scheme}://{host}{'' if port is None else f':{port}'}{rest or '/'}"

    def _check_scheme(self, parts: SplitResult) -> None:
        if parts.scheme not in ("https", "http") or not parts.netloc:
            raise BadUrl("is not a URL such as https://example.com/hook")
        if parts.scheme == "http" and not self._allowed:
            raise BadUrl("needs https: events tell of people, and http can be read on the way")

    def _host(self, parts: SplitResult) -> str:
        """The host, in the form that is connected to."""
        host = parts.hostname or ""
        if "[" in parts.netloc:
            reason = self.judge(host, parts.scheme)
            if reason is not None:
                raise BadUrl(f"has the address {host}, which {reason}")
            return f"[{ipaddress.IPv6Address(host).compressed}]"
        if not host.isascii():
            host = _ascii(host)
        host = host.removesuffix(".")
        labels = host.split(".")
        if _NUMBER.fullmatch(labels[-1]):
            return self._numbers(host, parts.scheme)
        if len(host) > MAX_HOST_CHARACTERS or not all(map(_NAME.fullmatch, labels)):
            raise BadUrl("has a host that is no name and no address")
        return host

    def _numbers(self, host: str, scheme: str) -> str:
        """An IPv4 address, which must be written in the one form that everyone reads alike."""
        try:
            text = str(ipaddress.IPv4Address(host))
        except ValueError as error:
            raise BadUrl("has an address that is not four decimal numbers") from error
        reason = self.judge(text, scheme)
        if reason is not None:
            raise BadUrl(f"has the address {text}, which {reason}")
        return text


def _ascii(host: str) -> str:
    try:
        return idna.encode(host, uts46=True).decode()
    except idna.IDNAError as error:
        raise BadUrl("has a host that is no internationalised name") from error


def _embedded(address: Address) -> Address:
    """The IPv4 address that an IPv6 address stands for, or else the address itself."""
    if isinstance(address, ipaddress.IPv6Address):
        if address in _MAPPED or address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
        if address in _6TO4:
            return ipaddress.IPv4Address(int(address) >> 80 & 0xFFFF_FFFF)
    return address


def _is_public(address: Address) -> bool:
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _CLOSED_V4)
    return address in _GLOBAL_UNICAST and not any(address in each for each in _CLOSED_V6)
