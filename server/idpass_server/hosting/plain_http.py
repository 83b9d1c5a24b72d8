"""HTTP for probes and scrapers: GET on a few paths, answered from memory.

One request per connection, bounded in size and time. When all connections are in use, a new one
ends the oldest, so that nobody can keep others out by holding connections open.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Final, NamedTuple, Self

from idpass_server import addresses

MAX_CONNECTIONS: Final = 64
"""Limit of open connections."""
MAX_HEAD_BYTES: Final = 8 * 1024
"""Limit of a request line and headers, bytes."""
PATIENCE_S: Final = 5.0
"""Deadline of a connection, from accepting it to the last byte of the answer, seconds."""
_TEXT: Final = "text/plain; charset=utf-8"


class Answer(NamedTuple):
    """What a page answers; the body is sent as it is, with its type in `content_type`."""

    body: bytes
    status: HTTPStatus = HTTPStatus.OK
    content_type: str = _TEXT


class Request(NamedTuple):
    """What a page gets to see of a request.

    Args:
        query: what follows the `?`, as it was sent.
        headers: values by name in lower case.
    """

    query: str
    headers: Mapping[str, str]


Page = Callable[[Request], Answer]


class PlainHttp:
    """A small HTTP server. Args: pages: by path; other paths are answered 404."""

    def __init__(self, pages: Mapping[str, Page]) -> None:
        self._pages = pages
        self._open: dict[asyncio.StreamWriter, None] = {}  # the oldest first
        self._server: asyncio.Server | None = None

    async def listen(self, host: str, port: int) -> str:
        """Begins to answer.

        Returns:
            HOST:PORT, with the port that was taken if it was 0.

        Raises:
            OSError: the address cannot be listened on.
        """
        self._server = await asyncio.start_server(self._connected, host, port, limit=MAX_HEAD_BYTES)
        port = self._server.sockets[0].getsockname()[1]
        return addresses.join(host, port)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Stops at once and cuts every connection."""
        if self._server is not None:
            self._server.close()
        for writer in self._open:
            writer.transport.abort()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._open) >= MAX_CONNECTIONS:
            oldest = next(iter(self._open))
            del self._open[oldest]
            oldest.transport.abort()
        self._open[writer] = None
        try:
            with contextlib.suppress(TimeoutError, ConnectionError, asyncio.IncompleteReadError):
                async with asyncio.timeout(PATIENCE_S):
                    writer.write(await self._answer(reader))
                    writer.close()
                    await writer.wait_closed()
        finally:
            self._open.pop(writer, None)
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader) -> bytes:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            return _bytes(_plain(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE))
        line, *fields = head.decode("latin-1").splitlines()
        try:
            method, target, version = line.split(" ")
        except ValueError:
            return _bytes(_plain(HTTPStatus.BAD_REQUEST))
        if not version.startswith("HTTP/1."):
            return _bytes(_plain(HTTPStatus.BAD_REQUEST))
        path, _, query = target.partition("?")
        page = self._pages.get(path)
        if page is None:
            return _bytes(_plain(HTTPStatus.NOT_FOUND))
        if method not in {"GET", "HEAD"}:
            return _bytes(_plain(HTTPStatus.METHOD_NOT_ALLOWED), "Allow: GET, HEAD")
        headers = {name.lower(): value.strip() for name, _, value in map(_split, fields)}
        answer = _bytes(page(Request(query, headers)))
        return answer if method == "GET" else answer.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"


def _split(field: str) -> tuple[str, str, str]:
    return field.partition(":")


def _plain(status: HTTPStatus) -> Answer:
    return Answer(f"{status.phrase}\n".encode(), status)


def _bytes(answer: Answer, *more: str) -> bytes:
    head = [
        f"HTTP/1.1 {answer.status} {answer.status.phrase}",
        f"Content-Type: {answer.content_type}",
        f"Content-Length: {len(answer.body)}",
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
        "Connection: close",
        *more,
    ]
    return "\r\n".join([*head, "", ""]).encode("latin-1") + answer.body
