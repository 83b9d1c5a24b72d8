"""Channels that lead to the fake service, for the real clients; they stand in for gRPC's.

What a call is answered with, or refused with, is given to the clients as gRPC would give it, so
everything that they do with it is their own: reading, errors, retries, reconnects.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc
from google.rpc import status_pb2

from idpass._fake import Fake
from idpass._fake_refusals import Refused

_CODES = {code.value[0]: code for code in grpc.StatusCode}


class FakeRpcError(grpc.RpcError):
    """As gRPC raises it."""

    def __init__(
        self, code: grpc.StatusCode, details: str, status: status_pb2.Status | None = None
    ) -> None:
        super().__init__(details)
        self._code, self._details = code, details
        self._trailing: tuple[tuple[str, bytes], ...] = ()
        if status is not None:
            self._trailing = (("grpc-status-details-bin", status.SerializeToString()),)

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._details

    def initial_metadata(self) -> tuple[()]:
        return ()

    def trailing_metadata(self) -> Any:
        return self._trailing


class Line:
    """The way to the fake service.

    Attributes:
        reachable: whether calls get there.
        answers_to_lose: how many of the next answers get lost on their way back.
    """

    def __init__(self, fake: Fake) -> None:
        self.fake = fake
        self.reachable = True
        self.answers_to_lose = 0

    def call(self, method: str, request: Any) -> Any:
        self.reach()
        try:
            answer = self.fake.answer(method, request)
        except Refused as refused:
            raise _error(refused) from None
        with self.fake.lock:
            if self.answers_to_lose:
                self.answers_to_lose -= 1
                raise FakeRpcError(grpc.StatusCode.UNAVAILABLE, "Socket closed")
        return answer

    def reach(self) -> None:
        if not self.reachable:
            why = "failed to connect to all addresses; last error: the fake is out of reach"
            raise FakeRpcError(grpc.StatusCode.UNAVAILABLE, why)


def _error(refused: Refused) -> FakeRpcError:
    status = refused.status
    return FakeRpcError(_CODES[status.code], status.message, status)


class Watch:
    """One stream of events, begun.

    Attributes:
        error: why it was refused, or None.
    """

    def __init__(self, line: Line, request: Any) -> None:
        self.fake = line.fake
        self.error: FakeRpcError | None = None
        self._request = type(request)()
        self._request.CopyFrom(request)  # the client changes its own as events come
        try:
            line.reach()
            self.fake.check_watch(self._request)
        except FakeRpcError as error:
            self.error = error
        except Refused as refused:
            self.error = _error(refused)

    def initial_metadata(self) -> tuple[tuple[str, str], ...]:
        return () if self.error else (("idpass-history", self.fake.history),)

    def more(self) -> tuple[list[Any], bool]:
        """The events since the last time, and whether there will be no more."""
        events, ended = self.fake.watch(self._request)
        if events:
            self._request.after_sequence = events[-1].sequence
        return events, ended


class SyncChannel:
    """Args: line: to the fake service."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._streams: set[SyncStream] = set()

    def unary_unary(self, path: str, *_: Any, **__: Any) -> Callable[..., Any]:
        method = path.rpartition("/")[2]

        def call(request: Any, **_: Any) -> Any:
            if method == "Check":  # asked whether there is a connection
                if not self._line.reachable:
                    raise FakeRpcError(grpc.StatusCode.DEADLINE_EXCEEDED, "")
                return b""
            return self._line.call(method, request)

        return call

    def unary_stream(self, *_: Any, **__: Any) -> Callable[..., Any]:
        def call(request: Any, **_: Any) -> SyncStream:
            stream = SyncStream(self._line, request)
            self._streams.add(stream)
            return stream

        return call

    def close(self) -> None:
        for stream in list(self._streams):
            stream.cancel()


class SyncStream:
    """As gRPC's call object."""

    def __init__(self, line: Line, request: Any) -> None:
        self._watch = Watch(line, request)
        self._changed = threading.Event()
        self._cancelled = False

    def initial_metadata(self) -> tuple[tuple[str, str], ...]:
        return self._watch.initial_metadata()

    def is_active(self) -> bool:
        return not (self._watch.error or self._cancelled)

    def cancel(self) -> None:
        self._cancelled = True
        self._changed.set()

    def __iter__(self) -> Iterator[Any]:
        if self._watch.error:
            raise self._watch.error
        watchers = self._watch.fake.watchers
        watchers.add(self._changed.set)
        try:
            while not self._cancelled:
                events, ended = self._watch.more()
                yield from events
                if ended:
                    return
                self._changed.wait()
                self._changed.clear()
            raise FakeRpcError(grpc.StatusCode.CANCELLED, "")
        finally:
            watchers.discard(self._changed.set)


class AsyncChannel:
    """Args: line: to the fake service."""

    def __init__(self, line: Line) -> None:
        self._line = line

    def unary_unary(self, path: str, *_: Any, **__: Any) -> Callable[..., Any]:
        method = path.rpartition("/")[2]

        async def answer(request: Any) -> Any:
            return self._line.call(method, request)

        return lambda request, **_: asyncio.ensure_future(answer(request))

    def unary_stream(self, *_: Any, **__: Any) -> Callable[..., Any]:
        return lambda request, **_: AsyncStream(self._line, request)

    def get_state(self, *, try_to_connect: bool) -> grpc.ChannelConnectivity:  # noqa: ARG002 gRPC's
        if not self._line.reachable:
            raise asyncio.TimeoutError  # rather than have tests wait for it
        return grpc.ChannelConnectivity.READY

    async def close(self) -> None:
        """Its calls are cancelled by the client."""


class AsyncStream:
    """As gRPC's call object."""

    def __init__(self, line: Line, request: Any) -> None:
        self._watch = Watch(line, request)
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._cancelled = False

    async def initial_metadata(self) -> tuple[tuple[str, str], ...]:
        return self._watch.initial_metadata()

    def done(self) -> bool:
        return bool(self._watch.error or self._cancelled)

    def cancel(self) -> None:
        self._cancelled = True
        self._changed.set()

    def _tell(self) -> None:
        self._loop.call_soon_threadsafe(self._changed.set)

    async def __aiter__(self) -> AsyncIterator[Any]:
        if self._watch.error:
            raise self._watch.error
        watchers = self._watch.fake.watchers
        watchers.add(self._tell)
        try:
            while not self._cancelled:
                events, ended = self._watch.more()
                for event in events:
                    yield event
                if ended:
                    return
                await self._changed.wait()
                self._changed.clear()
            raise FakeRpcError(grpc.StatusCode.CANCELLED, "")
        finally:
            watchers.discard(self._tell)
