"""Connections of HTTP clients, with limits on all that a client may send, hold or leave unread.

uvicorn serves, httptools parses, and this subclass of uvicorn's protocol enforces the limits, since
no server that we examined has them all:

* uvicorn with httptools as it is drops the body of a POST with `Upgrade: h2c`, which Java's
  HttpClient and `curl --http2` send, and has no limit on the head, its time, or connections.
* uvicorn with h11 keeps such a body and bounds the head, but not the times nor the connections,
  and takes 130 µs more of a request's 410: POST /idpass/cancel would be less than half as fast as
  the gRPC call.
* hypercorn parses with h11 too, and refuses no connection; granian serves from a runtime of its
  own, away from the loop that the service and its shutdown share.

The class is longer than most: it is the callbacks of a transport and of a parser, over one state.
"""

import asyncio
import http
import itertools
from collections.abc import Callable
from enum import Enum, auto
from typing import Any, Final, NamedTuple, cast

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from idpass_server.gateway import errors
from idpass_server.gateway.api import answer_headers
from idpass_server.gateway.errors import HttpError
from idpass_server.gateway.heads import Refused, check, without_upgrade
from idpass_server.gateway.routes import MAX_BODY_BYTES

MAX_PIPELINED: Final = 20
"""Limit of requests that wait on a connection while one is answered."""
CLOSE_S: Final = 5.0
"""Grace period for a client to read its last answer before the connection is cut, seconds."""
MAX_BODY_ON_WIRE: Final = 2 * MAX_BODY_BYTES
"""Limit of a body with its framing (chunk sizes, extensions, trailers), bytes."""
_TURNS: Final = itertools.count()
"""Orders events, the earlier lower; the loop's own time stands still within a turn."""


class Limits(NamedTuple):
    """Limits of the HTTP connections.

    Args:
        connections: number of open ones; a further one replaces one that waits for its client.
        head_bytes: size of a request line and its headers.
        head_s: deadline for them to arrive, from the connection or their first byte on, seconds.
        idle_s: time that a connection may stay open without a request, seconds.
        stalled_s: time for a client to read on when an answer fills its buffers, seconds.
    """

    connections: int = 250
    head_bytes: int = 16_384
    head_s: float = 10.0
    idle_s: float = 75.0
    stalled_s: float = 30.0


class _Phase(Enum):
    """Where the message that a client is sending is."""

    BETWEEN = auto()
    HEAD = auto()
    BODY = auto()


class _Outlet:
    """The transport as uvicorn's answers see it, with `close` replaced by ours."""

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self.write = transport.write
        self.is_closing = transport.is_closing
        self.close = close


class Connection(HttpToolsProtocol):
    """One HTTP connection.

    Args:
        limits: in addition to uvicorn's own arguments.

    Attributes:
        turn: since when the client is waited for; lower is longer.
    """

    def __init__(self, *args: Any, limits: Limits, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._limits = limits
        self._phase = _Phase.BETWEEN
        self._messages = 0
        self._part_bytes = 0
        self._keep_alive = False
        self._deaf = False
        self._refusal: Refused | None = None
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self.turn = 0

    # The transport's callbacks

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._outlet = cast("asyncio.Transport", _Outlet(transport, self._end))
        self.turn = next(_TURNS)
        if len(self.connections) > self._limits.connections and not self._make_room():
            self._answer(errors.overloaded(self._limits.connections))
            self.hang_up()
        else:
            self._time_the_head()

    def data_received(self, data: bytes) -> None:
        if self._deaf or self.transport.is_closing():
            self._drop(len(data))
            return
        self._unset_keepalive_if_required()
        part = (self._messages, self._phase)
        size = self._part_bytes + len(data)
        try:
            self._feed(data)
            if part == (self._messages, self._phase):
                self._count(size - self._part_bytes)  # unparsed bytes reach no callback
        except (httptools.HttpParserError, Refused) as error:
            # The parser swallows what its callbacks raise.
            refusal = error if isinstance(error, Refused) else self._refusal
            self._refuse(refusal or Refused("the bytes on this connection are not HTTP/1.1"))
            return
        self._time_the_head()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._start("unread", self._limits.stalled_s, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop("unread")

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        for name in list(self._timers):
            self._stop(name)

    # The parser's callbacks

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._phase = _Phase.HEAD
        self._messages += 1
        self._part_bytes = 0

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._phase is _Phase.BODY:
            return  # a trailer: unused here, and it must not be taken for a header
        self._count(len(name) + len(value) + 4)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            return  # the parser stops here; _feed goes on
        self._check_head()
        self._phase = _Phase.BODY
        self._part_bytes = 0
        self._stop("head")
        self.turn = next(_TURNS)
        super().on_headers_complete()
        self.cycle.transport = self._outlet
        # If the answer does not wait for the body, it is the last one on this connection.
        self._keep_alive, self.cycle.keep_alive = self.cycle.keep_alive, False

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        self._phase = _Phase.BETWEEN
        if not self.cycle.response_started:
            self.cycle.keep_alive = self._keep_alive
        super().on_message_complete()

    def on_response_complete(self) -> None:
        self.turn = next(_TURNS)
        super().on_response_complete()

    def shutdown(self) -> None:
        self._keep_alive = False
        super().shutdown()

    def timeout_keep_alive_handler(self) -> None:
        self.hang_up()

    # Our own methods

    def _feed(self, data: bytes) -> None:
        """Feeds the parser, ignoring an Upgrade header, as RFC 9110 allows.

        The parser would take what follows such a head, even a body, for another protocol, so it is
        given the head again without that header.
        """
        rest = memoryview(data)
        while True:
            try:
                self.parser.feed_data(rest)
            except httptools.HttpParserUpgrade as upgrade:
                rest = rest[upgrade.args[0] :]
                version = self.parser.get_http_version()
                head = without_upgrade(self.parser.get_method(), self.url, version, self.headers)
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
                self.parser.feed_data(head)
            else:
                return

    def _check_head(self) -> None:
        """Raises Refused if the head that has arrived is refused."""
        try:
            check(self.url, self.parser.get_http_version(), self.headers)
            if len(self.pipeline) >= MAX_PIPELINED:
                raise Refused("too many requests wait on this connection; await the answers")
        except Refused as refusal:
            self._refusal = refusal
            raise

    def _count(self, size: int) -> None:
        """Adds to the size of the head or body in progress. Raises Refused beyond its limit."""
        self._part_bytes += size
        if self._phase is _Phase.BODY and self._part_bytes > MAX_BODY_ON_WIRE:
            self._refusal = Refused("the body is too long", http_status=413)
        elif self._phase is _Phase.HEAD and self._part_bytes > self._limits.head_bytes:
            text = f"the request line and headers are longer than {self._limits.head_bytes} bytes"
            self._refusal = Refused(text, http_status=431)
        if self._refusal is not None:
            raise self._refusal

    def _refuse(self, refusal: Refused) -> None:
        """Answers the latest request with a refusal, and hangs up.

        If earlier requests are still being answered, the connection ends with the last of those
        answers instead.
        """
        if self._answering():
            if self._phase is not _Phase.BODY or self.cycle.response_started or self.pipeline:
                self.cycle.keep_alive = False
                self._deaf = True
                return
            # Its own body is refused: this answer replaces the application's.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self._answer(errors.unreadable(str(refusal), http_status=refusal.http_status))
        self._linger()

    def _answer(self, error: HttpError) -> None:
        body = error.body()
        lines = [b"HTTP/1.1 %d %b" % (error.http_status, _phrase(error.http_status))]
        lines += [b"%b: %b" % header for header in answer_headers(body, error.headers)]
        self.transport.write(b"\r\n".join([*lines, b"connection: close", b"", body]))

    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def awaits_client(self) -> bool:
        """Whether the connection waits for its client to send something."""
        return self._phase is not _Phase.BETWEEN or not self._answering()

    def _make_room(self) -> bool:
        """Closes the connection that has waited longest for its client, if any does."""
        connections = cast("set[Connection]", self.connections)
        others = [
            each
            for each in connections
            if each is not self and each.awaits_client() and not each.transport.is_closing()
        ]
        if not others:
            return False
        errors.connections_full(self._limits.connections)
        min(others, key=lambda each: each.turn).hang_up()
        return True

    def _time_the_head(self) -> None:
        """Starts the deadline of a head that is due; bytes that trickle in do not extend it."""
        between = self._phase is _Phase.BETWEEN and not self._answering()
        if between or self._phase is _Phase.HEAD:
            if "head" not in self._timers:
                self._start("head", self._limits.head_s, self._head_is_late)
        else:
            self._stop("head")

    def _head_is_late(self) -> None:
        self._stop("head")
        if self.flow.read_paused:
            self._time_the_head()  # reading was paused: not the client's fault
        elif self._phase is _Phase.HEAD:
            text = f"the request did not arrive within {self._limits.head_s:g} s"
            self._refuse(Refused(text, http_status=408))
        else:
            self.hang_up()

    def _end(self) -> None:
        """Hangs up after an answer."""
        if self._deaf or self._phase is _Phase.BODY:
            self._linger()
        else:
            self.hang_up()

    def _linger(self) -> None:
        """Hangs up on a client that may still be sending.

        If its bytes met a closed socket, it would see a reset instead of the answer. So they are
        read and dropped until it hangs up too, within bounds of time and size.
        """
        if "close" in self._timers or self.transport.is_closing():
            return
        self._deaf = True
        self._part_bytes = 0
        self.flow.resume_reading()
        self.transport.write_eof()
        self._start("close", CLOSE_S, self.transport.abort)

    def _drop(self, size: int) -> None:
        self._part_bytes += size
        if self._part_bytes > MAX_BODY_ON_WIRE:
            self.transport.abort()

    def hang_up(self) -> None:
        """Closes the connection; cuts it after CLOSE_S if its client does not read."""
        self.transport.close()
        self._start("close", CLOSE_S, self.transport.abort)

    def _start(self, name: str, seconds: float, act: Callable[[], object]) -> None:
        self._stop(name)
        self._timers[name] = self.loop.call_later(seconds, act)

    def _stop(self, name: str) -> None:
        timer = self._timers.pop(name, None)
        if timer is not None:
            timer.cancel()


def _phrase(http_status: int) -> bytes:
    return http.HTTPStatus(http_status).phrase.encode()
