"""Refuses request lines and headers that are ambiguous.

What two programs would read differently lets a stranger say one thing to a proxy and another to the
server behind it (request smuggling). The parser refuses most of that; the rest is refused here.
"""

import re
from collections.abc import Sequence
from typing import Final

_TARGET: Final = re.compile(rb"/[!-\"$-~]*")  # a path and a query; no fragment, no scheme

Headers = Sequence[tuple[bytes, bytes]]


class Refused(Exception):
    """A request is refused before it is read in full.

    Args:
        message: why, for the caller.
        http_status: of the answer.
    """

    def __init__(self, message: str, http_status: int = 400) -> None:
        super().__init__(message)
        self.http_status = http_status


def check(target: bytes, version: str, headers: Headers) -> None:
    """Checks a request line and its headers.

    Args:
        target: of the request line, as sent.
        version: of HTTP, such as "1.1".
        headers: names in lower case, and values.

    Raises:
        Refused: they are ambiguous, or not of a version or form that this server supports.
    """
    names = [name for name, _ in headers]
    codings = [value.lower() for name, value in headers if name == b"transfer-encoding"]
    if version not in {"1.0", "1.1"}:
        raise Refused("this server speaks HTTP/1.1", http_status=505)
    if not _TARGET.fullmatch(target):
        raise Refused("the request line does not name a path, such as /idpass/cancel")
    if names.count(b"host") != 1 and (version == "1.1" or b"host" in names):
        raise Refused("exactly one Host header is required")
    if codings and (codings != [b"chunked"] or version == "1.0"):
        raise Refused("Transfer-Encoding must be `chunked`, once, and only in HTTP/1.1")


def without_upgrade(method: bytes, target: bytes, version: str, headers: Headers) -> bytes:
    """The same head without its Upgrade header.

    Args:
        method: of the request line.
        target: of the request line.
        version: of HTTP, such as "1.1".
        headers: names in lower case, and values.

    Raises:
        Refused: the client could not use an answer in HTTP/1.1.
    """
    if method == b"CONNECT":
        raise Refused("CONNECT is for proxies", http_status=405)
    if any(name == b"upgrade" and b"websocket" in value.lower() for name, value in headers):
        raise Refused("WebSocket is not supported; /idpass/events streams events")
    lines = [b"%b %b HTTP/%b" % (method, target, version.encode())]
    lines += [b"%b: %b" % header for header in headers if header[0] != b"upgrade"]
    return b"\r\n".join([*lines, b"", b""])
