"""How the client for asyncio makes its calls; `_transport` has the same for the sync one."""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import Any, TypeVar

import grpc
from grpc import aio

from idpass import _calls, _interceptors
from idpass._arguments import limit
from idpass._calls import Call
from idpass._channel import LazyChannel, connect_aio
from idpass._endpoint import Endpoint
from idpass._failure import EmptyAnswer, EndedStream, StrangeCode
from idpass._interceptors import AsyncInterceptor
from idpass._metadata import Metadata, Pairs, checked
from idpass._policy import RetryPolicy, policy
from idpass._reconnect import Reconnects
from idpass._records import CancelResult, Event
from idpass._retry import Attempts, Throttle
from idpass._stubs import Stubs
from idpass._transport import Pages
from idpass.errors import IdPassError

T = TypeVar("T")


class AsyncTransport:
    """As Transport. One channel at a time, of the event loop that it is used in."""

    def __init__(
        self, endpoint: Endpoint, retry: RetryPolicy, interceptors: Sequence[AsyncInterceptor]
    ) -> None:
        own = _interceptors.asynchronous(interceptors)
        more = {"interceptors": own} if own else {}
        self._endpoint = endpoint
        self._timeout_s = endpoint.timeout_s
        self._policy = policy(retry)
        self._throttle = Throttle()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._open: set[Any] = set()
        self.channel: LazyChannel[aio.Channel, Stubs] = LazyChannel(
            lambda: endpoint.open(aio, **more), Stubs
        )

    async def close(self) -> None:
        self.channel.closed = True
        channel = self.channel.take()
        if channel is not None and self._loop is asyncio.get_running_loop():
            # Up to grpcio 1.76 at least, closing a channel does not reach all of its calls.
            for call in list(self._open):
                call.cancel()
            await channel.close()

    async def run(
        self,
        call: Call[T],
        timeout: float | None,
        metadata: Metadata | None = None,
        *,
        patient: bool = False,
    ) -> T:
        """As Transport.run."""
        timeout_s = remaining_s = self._timeout_s if timeout is None else limit(timeout)
        own = checked(metadata)
        started_s = time.monotonic()
        attempts: Attempts | None = None
        self._stub()  # drops the channel of another event loop before it is waited for
        while True:
            if attempts is not None:
                if self.channel.closed or (
                    attempts.unconnected and not await connect_aio(self.channel, remaining_s)
                ):
                    attempts.gave_up(closed=self.channel.closed)
                remaining_s = attempts.remaining_s(time.monotonic())
            try:
                answer = await self._answer(self._send(call, own, timeout=remaining_s))
            except grpc.RpcError as error:
                failure = error
            else:
                self._throttle.succeeded()
                return call.read(answer)
            attempts = attempts or Attempts(
                call,
                timeout_s,
                started_s,
                policy=self._policy,
                throttle=self._throttle,
                explain=self._endpoint.unreached,
                patient=patient,
            )
            delay_s = attempts.failed(failure, time.monotonic(), closed=self.channel.closed)
            await asyncio.sleep(delay_s)
            remaining_s = attempts.remaining_s(time.monotonic())

    async def _answer(self, sent: Any) -> Any:
        """What a call is answered with. Every failure is a grpc.RpcError."""
        self._open.add(sent)
        try:
            answer = await sent
        except KeyError as error:
            if not isinstance(error.args[0], int):
                raise
            raise StrangeCode from error
        except asyncio.CancelledError:
            if not self._ended_by_close():
                raise
            raise _closed() from None
        finally:
            self._open.discard(sent)
        if answer is None:
            raise EmptyAnswer
        return answer

    def _send(self, call: Call[Any], own: Pairs, **limits: float) -> Any:
        stub = self._stub()
        metadata = self._endpoint.metadata(own)
        return getattr(stub, call.method)(call.request, metadata=metadata, **limits)

    def _stub(self) -> Any:
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self.channel.take()  # it belongs to another event loop and is useless in this one
            self._open.clear()
            self._loop = loop
        return self.channel.stub()

    def pages(
        self, pages: Pages[T], timeout: float | None, metadata: Metadata | None
    ) -> AsyncIterator[T]:
        """As Transport.pages."""
        return self._pages(pages, None if timeout is None else limit(timeout), checked(metadata))

    async def _pages(self, pages: Pages[T], timeout: float | None, own: Pairs) -> AsyncIterator[T]:
        while not pages.done:
            for each in await self.run(pages.next_page(), timeout, own, patient=True):
                yield each

    def events(
        self,
        watching: _calls.Watching,
        reconnect_for_s: float | None,
        metadata: Metadata | None,
    ) -> AsyncIterator[Event]:
        """As Transport.events."""
        retry = self._policy.with_reconnect_for(reconnect_for_s)
        return self._events(watching, retry, checked(metadata))

    async def _events(
        self, watching: _calls.Watching, retry: RetryPolicy, own: Pairs
    ) -> AsyncIterator[Event]:
        reconnects = Reconnects(watching.method, retry, time.monotonic(), self._endpoint.unreached)
        while True:
            call = watching.next_stream()
            stream = self._send(call, own)
            self._open.add(stream)
            try:
                # Comes at once, however long there are no events.
                metadata = await stream.initial_metadata()
                if not stream.done():
                    reconnects.connected()
                    watching.opened(metadata)
                async for message in stream:
                    yield call.read(message)
                if watching.ends:
                    return
                raise EndedStream
            except grpc.RpcError as error:
                if self.channel.closed:
                    return
                delay_s = reconnects.failed(error, time.monotonic())
            except asyncio.CancelledError:
                if not self._ended_by_close():
                    raise
                return
            finally:
                # Up to grpcio 1.76 at least, this raises what an interceptor has raised.
                with contextlib.suppress(grpc.RpcError):
                    stream.cancel()
                self._open.discard(stream)
            if not await self._come_back(reconnects, delay_s):
                return

    async def _come_back(self, reconnects: Reconnects, delay_s: float) -> bool:
        """Pauses, then waits for a connection. If there is none, the next stream says why.

        Returns:
            False if the client was closed meanwhile.
        """
        await asyncio.sleep(delay_s)
        if not self.channel.closed:
            await connect_aio(self.channel, reconnects.remaining_s(time.monotonic()))
        return not self.channel.closed

    def batches(
        self,
        batches: AsyncIterator[_calls.Batch],
        in_flight: int,
        timeout: float | None,
        metadata: Metadata | None,
    ) -> AsyncIterator[CancelResult]:
        """As Transport.batches."""
        own = checked(metadata)
        return self._batches(batches, in_flight, None if timeout is None else limit(timeout), own)

    async def _batches(
        self,
        batches: AsyncIterator[_calls.Batch],
        in_flight: int,
        timeout: float | None,
        own: Pairs,
    ) -> AsyncIterator[CancelResult]:
        waiting: deque[tuple[_calls.Batch, asyncio.Task[Sequence[CancelResult]]]] = deque()
        failure: IdPassError | None = None
        try:
            while True:
                batch = None if failure else await anext(batches, None)
                if batch is not None:
                    task = asyncio.create_task(self.run(batch.call, timeout, own, patient=True))
                    waiting.append((batch, task))
                    if len(waiting) < in_flight:
                        continue
                if not waiting:
                    break
                oldest, answer = waiting.popleft()
                try:
                    results = await answer
                except IdPassError as error:
                    failure = failure or error
                    results = oldest.failed(error)
                for result in results:
                    yield result
        finally:
            for _, answer in waiting:
                answer.cancel()
        if failure:
            raise failure

    def _ended_by_close(self) -> bool:
        """Whether a call was cancelled by closing the client, and not by cancelling the task."""
        cancelling = getattr(asyncio.current_task(), "cancelling", None)  # Python 3.11 and newer
        return self.channel.closed and not (cancelling and cancelling())


def _closed() -> grpc.RpcError:
    """The error of a call whose client is closed, as gRPC raises it in the sync client."""
    return aio.AioRpcError(
        grpc.StatusCode.CANCELLED, aio.Metadata(), aio.Metadata(), "Channel closed!"
    )
