"""A receiver of webhooks that does whatever a test wants it to.

    with Receiver() as receiver:
        receiver.answers = [500, 200]       # one for each request; the last one goes on
        ... receiver.wait_for(2)

It speaks HTTP/1.1 by itself, so that it can speak it badly.
"""

import asyncio
import contextlib
import json
import ssl
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, NamedTuple, Self

from standardwebhooks import Webhook

Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


class Request(NamedTuple):
    """A request that came in."""

    path: str
    headers: dict[str, str]
    body: bytes
    time_s: float

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def sequence(self) -> int:
        return int(self.json["data"]["event"]["sequence"])

    @property
    def pass_id(self) -> str:
        return str(self.json["data"]["event"]["id_pass_id"])

    def verified(self, secret: str) -> Any:
        """Its payload, once the receivers' own library has checked it."""
        return Webhook(secret).verify(self.body, self.headers)


class Answer(NamedTuple):
    """An answer that is more than a status code."""

    code: int = 200
    headers: tuple[str, ...] = ()
    body: bytes = b"ok"

    def bytes(self) -> bytes:
        head = [f"HTTP/1.1 {self.code} Said", f"content-length: {len(self.body)}", *self.headers]
        return "\r\n".join(head).encode() + b"\r\n\r\n" + self.body


class Receiver:
    """A receiver on a free port of this machine, on a thread of its own.

    Args:
        tls: to speak TLS with.
        on_connect: what to do with each connection instead of HTTP.

    Attributes:
        answers: what to answer: a status code, an Answer, a behaviour that writes for itself, or a
            function of the request that returns one of them. One for each request; the last one
            goes on.
        requests: those that came in whole.
        connections: number of connections.
        under_way: number of requests being answered.
        most_under_way: the largest number of them there was.
    """

    def __init__(
        self, *, tls: ssl.SSLContext | None = None, on_connect: Behaviour | None = None
    ) -> None:
        self.answers: list[Any] = [200]
        self.requests: list[Request] = []
        self.connections = 0
        self.under_way = 0
        self.most_under_way = 0
        self._tls = tls
        self._on_connect = on_connect
        self._came = threading.Condition()
        self._open: set[asyncio.StreamWriter] = set()
        started: threading.Event = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,), daemon=True)
        self._thread.start()
        assert started.wait(10)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._main.cancel)
        self._thread.join(10)

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}/hook"

    def wait_for(self, count: int, timeout_s: float = 30) -> list[Request]:
        """The requests, once there are so many."""
        with self._came:
            came = self._came.wait_for(lambda: len(self.requests) >= count, timeout_s)
            assert came, f"{len(self.requests)} of {count} requests came"
            return list(self.requests)

    def _run(self, started: threading.Event) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            asyncio.run(self._serve(started))

    async def _serve(self, started: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task
        self._main = task
        server = await asyncio.start_server(
            self._connection, "127.0.0.1", 0, ssl=self._tls, backlog=1_000
        )
        self.port: int = server.sockets[0].getsockname()[1]
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            server.close()
            for writer in self._open:
                writer.transport.abort()
            await asyncio.sleep(0)  # in which they close

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._open.add(writer)
        try:
            if self._on_connect is not None:
                await self._on_connect(reader, writer)
            else:
                while await self._request(reader, writer):
                    pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError, ssl.SSLError):
            pass
        finally:
            writer.close()

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")[:-2]
        headers = {
            name.lower(): value.strip() for name, _, value in (e.partition(":") for e in lines)
        }
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        request = Request(first.split(" ")[1], headers, body, time.monotonic())
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            answer = self._next_answer()
            while callable(answer) and not asyncio.iscoroutinefunction(answer):
                answer = answer(request)
            with self._came:
                self.requests.append(request)
                self._came.notify_all()
            if callable(answer):
                await answer(reader, writer)
                return False
            if isinstance(answer, int):
                answer = Answer(answer)
            writer.write(answer.bytes())
            await writer.drain()
            return True
        finally:
            self.under_way -= 1

    def _next_answer(self) -> Any:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


async def hang(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    """Says nothing."""
    await asyncio.sleep(3_600)


async def close(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    """Closes without an answer."""


async def hang_after_headers(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n")
    await asyncio.sleep(3_600)


async def drip(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
    while True:
        writer.write(b".")
        await writer.drain()
        await asyncio.sleep(0.2)


async def cut_short(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Ends in the middle of an answer."""
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nshort")
    await writer.drain()


async def endless_head(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"x-more: " + b"x" * 4_000 + b"\r\n")
        await writer.drain()


@contextlib.contextmanager
def receivers(count: int) -> Iterator[list[Receiver]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Receiver()) for _ in range(count)]
