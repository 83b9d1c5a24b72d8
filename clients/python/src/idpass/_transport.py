"""How the sync client makes its calls: attempts, pages, streams and batches over one channel.

`_transport_aio` has the same for asyncio. The two differ only in how they wait; what is decided is
decided in `_calls`, `_retry` and `_reconnect`.
"""

import contextvars
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

import grpc

from idpass import _calls, _interceptors
from idpass._arguments import limit
from idpass._calls import Call
from idpass._channel import LazyChannel, connect
from idpass._endpoint import Endpoint
from idpass._failure import EmptyAnswer, EndedStream
from idpass._interceptors import SyncInterceptor
from idpass._metadata import Metadata, Pairs, checked
from idpass._policy import RetryPolicy, policy
from idpass._reconnect import Reconnects
from idpass._records import CancelResult, Event
from idpass._retry import Attempts, Throttle
from idpass._stream import Stream
from idpass._stubs import Stubs
from idpass.errors import IdPassError

T = TypeVar("T")


class Pages(Protocol[T]):
    """The position of an iteration over pages."""

    @property
    def done(self) -> bool: ...

    def next_page(self) -> Call[list[T]]: ...


class Transport:
    """Arguments and errors are those of IdPassClient."""

    def __init__(
        self,
        endpoint: Endpoint,
        retry: RetryPolicy,
        interceptors: Sequence[SyncInterceptor],
    ) -> None:
        own = _interceptors.sync(interceptors)

        def stubs(channel: grpc.Channel) -> Stubs:
            # A channel without interceptors has less to do.
            return Stubs(grpc.intercept_channel(channel, *own) if own else channel)

        self._endpoint = endpoint
        self._timeout_s = endpoint.timeout_s
        self._policy = policy(retry)
        self._throttle = Throttle()
        self.channel: LazyChannel[grpc.Channel, Stubs] = LazyChannel(
            lambda: endpoint.open(grpc), stubs
        )

    def close(self) -> None:
        self.channel.closed = True
        channel = self.channel.take()
        if channel is not None:
            channel.close()

    def run(
        self,
        call: Call[T],
        timeout: float | None,
        metadata: Metadata | None = None,
        *,
        patient: bool = False,
        pause: Callable[[float], None] | None = None,
    ) -> T:
        """Makes a call, as often as it takes.

        Args:
            timeout: overall time limit, seconds; the client's if None.
            metadata: of the caller's own.
            patient: as for `Attempts`.
            pause: waits so many seconds.
        """
        timeout_s = remaining_s = self._timeout_s if timeout is None else limit(timeout)
        own = checked(metadata)
        started_s = time.monotonic()
        attempts: Attempts | None = None
        while True:
            if attempts is not None:
                if self.channel.closed or (
                    attempts.unconnected and not connect(self.channel, remaining_s)
                ):
                    attempts.gave_up(closed=self.channel.closed)
                remaining_s = attempts.remaining_s(time.monotonic())
            try:
                answer = self._send(call, own, timeout=remaining_s)
                if answer is None:
                    raise EmptyAnswer
            except grpc.RpcError as error:
                attempts = attempts or Attempts(
                    call,
                    timeout_s,
                    started_s,
                    policy=self._policy,
                    throttle=self._throttle,
                    explain=self._endpoint.unreached,
                    patient=patient,
                )
                delay_s = attempts.failed(error, time.monotonic(), closed=self.channel.closed)
            else:
                self._throttle.succeeded()
                return call.read(answer)
            (pause or time.sleep)(delay_s)
            remaining_s = attempts.remaining_s(time.monotonic())

    def _send(self, call: Call[Any], own: Pairs, **limit: float) -> Any:
        stub = self.channel.stub()
        metadata = self._endpoint.metadata(own)
        try:
            return getattr(stub, call.method)(call.request, metadata=metadata, **limit)
        except ValueError as error:
            if self.channel.closed:  # meanwhile, by another thread
                raise RuntimeError("the client is closed") from error
            raise

    def pages(
        self, pages: Pages[T], timeout: float | None, metadata: Metadata | None
    ) -> Iterator[T]:
        """What is on all pages; each is requested when it is needed."""
        return self._pages(pages, None if timeout is None else limit(timeout), checked(metadata))

    def _pages(self, pages: Pages[T], timeout: float | None, own: Pairs) -> Iterator[T]:
        while not pages.done:
            yield from self.run(pages.next_page(), timeout, own, patient=True)

    def events(
        self,
        watching: _calls.Watching,
        reconnect_for_s: float | None,
        metadata: Metadata | None,
    ) -> Iterator[Event]:
        """
        Args:
            reconnect_for_s: the policy's if None.
        """
        retry = self._policy.with_reconnect_for(reconnect_for_s)
        return self._events(watching, retry, checked(metadata))

    def _events(self, watching: _calls.Watching, retry: RetryPolicy, own: Pairs) -> Iterator[Event]:
        reconnects = Reconnects(watching.method, retry, time.monotonic(), self._endpoint.unreached)
        while True:
            call = watching.next_stream()
            stream = Stream(self._send(call, own))
            patience_s = reconnects.remaining_s(time.monotonic()) if reconnects.waiting else None
            try:
                if stream.opened(patience_s):
                    reconnects.connected()
                    watching.opened(stream.metadata)
                for message in stream:
                    reconnects.connected()
                    yield call.read(message)
                if watching.ends:
                    return
                raise EndedStream
            except grpc.RpcError as error:
                if self.channel.closed:
                    return
                if stream.gave_up and reconnects.waiting:
                    reconnects.gave_up()
                if stream.seems_open():
                    reconnects.connected()
                delay_s = reconnects.failed(error, time.monotonic())
            finally:
                stream.cancel()
            if not self._come_back(reconnects, delay_s):
                return

    def _come_back(self, reconnects: Reconnects, delay_s: float) -> bool:
        """Pauses, then waits for a connection. If there is none, the next stream says why.

        Returns:
            False if the client was closed meanwhile.
        """
        time.sleep(delay_s)
        if not self.channel.closed:
            connect(self.channel, reconnects.remaining_s(time.monotonic()))
        return not self.channel.closed

    def batches(
        self,
        batches: Iterator[_calls.Batch],
        in_flight: int,
        timeout: float | None,
        metadata: Metadata | None,
    ) -> Iterator[CancelResult]:
        """The results of all batches in order, of which so many are under way at once."""
        return self._batches(
            batches, in_flight, None if timeout is None else limit(timeout), checked(metadata)
        )

    def _batches(
        self, batches: Iterator[_calls.Batch], in_flight: int, timeout: float | None, own: Pairs
    ) -> Iterator[CancelResult]:
        waiting: deque[tuple[_calls.Batch, Future[Sequence[CancelResult]]]] = deque()
        failure: IdPassError | None = None
        closed = threading.Event()

        def pause(seconds: float) -> None:
            if closed.wait(seconds):
                raise CancelledError  # nobody is waiting for the answer any more

        def run(batch: _calls.Batch) -> Sequence[CancelResult]:
            return self.run(batch.call, timeout, own, patient=True, pause=pause)

        executor = ThreadPoolExecutor(in_flight, thread_name_prefix="idpass-cancel")
        try:
            while True:
                batch = None if failure else next(batches, None)
                if batch is not None:
                    # With the caller's context variables: its trace is among them.
                    context = contextvars.copy_context()
                    waiting.append((batch, executor.submit(context.run, run, batch)))
                    if len(waiting) < in_flight:
                        continue
                if not waiting:
                    break
                oldest, answer = waiting.popleft()
                try:
                    yield from answer.result()
                except IdPassError as error:
                    failure = failure or error
                    yield from oldest.failed(error)
        finally:
            closed.set()
            executor.shutdown(wait=False, cancel_futures=True)
        if failure:
            raise failure
