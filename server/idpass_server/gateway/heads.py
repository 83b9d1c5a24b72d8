"""Request lines and headers that can be read in one way only.

What two programs would read in two ways lets a stranger say one thing to a proxy and another to
the program behind it. The parser refuses most of that; the rest is refused here.
"""

import re
from collections.abc import Sequence
from typing import Final

_TARGET: Final = re.compile(rb"/[!-\"$-~]*")  # a path and a query; no fragment, no scheme

Headers = Sequence[tuple[bytes, bytes]]


class Refused(Exception):
    """A request is not read; the message says why.

    Args:
        http_status: of the answer.
    """

    def __init__(self, message: str, http_status: int = 400) -> None:
        super().__init__(message)
        self.http_status = http_status


def check(target: bytes, version: str, headers: Headers) -> None:
    """
    Args:
        headers: their names in lower case.

    Raises:
        Refused: they could be read in more than one way.
    """
    names = [name for name, _ in headers]
    codings = [value.lower() for name, value in headers if name == b"transfer-encoding"]
    if version not in {"1.0", "1.1"}:
        raise Refused("HTTP/1.1 is spoken here", http_status=505)
    if not _TARGET.fullmatch(target):
        raise Refused("the request line does not name a path, such as /idpass/cancel")
    if names.count(b"host") != 1 and (version == "1.1" or b"host" in names):
        raise Refused("there has to be one Host header")
    if codings and (codings != [b"chunked"] or version == "1.0"):
        raise Refused("Transfer-Encoding is not `chunked`, once and in HTTP/1.1")


def without_upgrade(method: bytes, target: bytes, version: str, headers: Headers) -> bytes:
    """The same head again, but for its offer of another protocol.

    Raises:
        Refused: the client can do nothing with an answer in this one.
    """
    if method == b"CONNECT":
        raise Refused("CONNECT is for proxies", http_status=405)
    if any(name == b"upgrade" and b"websocket" in value.lower() for name, value in headers):
        raise Refused("WebSocket is not spoken here; /idpass/events streams events")
    lines = [b"%b %b HTTP/%b" % (method, target, version.encode())]
    lines += [b"%b: %b" % header for header in headers if header[0] != b"upgrade"]
    return b"\r\n".join([*lines, b"", b""])
