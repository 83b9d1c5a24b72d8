"""The client for asyncio; `client` has the synchronous one, which documents every argument.

The two differ only in how they wait.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, TypeVar

import grpc
from grpc import aio

from idpass import _calls
from idpass._calls import Call, Id
from idpass._channel import ChannelOptions, Endpoint, LazyChannel, Pem, Token, connect_aio
from idpass._records import (
    Account,
    AdvanceReceipt,
    CancelResult,
    Event,
    IdPass,
    Receipt,
    RegisterReceipt,
)
from idpass._retry import Attempts, Reconnects, Throttle
from idpass._stubs import Stubs
from idpass._webhook_methods import AsyncWebhooks
from idpass._words import AnyReason, AnyStatus, CancelReason
from idpass.errors import IdPassError

T = TypeVar("T")


class AsyncIdPassClient:
    """A client of the ID Pass service for asyncio.

    Arguments, errors and guarantees are those of IdPassClient. Creating one does no I/O and needs
    no running event loop: the channel is created at the first call, and again when the client is
    used in another event loop.
    """

    def __init__(
        self,
        address: str,
        *,
        tls: bool | Pem = False,
        client_certificate: tuple[Pem, Pem] | None = None,
        token: Token | None = None,
        timeout: float = 5.0,
        allow_plaintext: bool = False,
        channel_options: ChannelOptions = (),
    ) -> None:
        """As IdPassClient."""
        self._endpoint = Endpoint(
            address,
            tls=tls,
            client_certificate=client_certificate,
            token=token,
            timeout=timeout,
            allow_plaintext=allow_plaintext,
            channel_options=channel_options,
        )
        self._timeout_s = timeout
        self._throttle = Throttle()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._open: set[Any] = set()
        self._channel: LazyChannel[aio.Channel, Stubs] = LazyChannel(
            lambda: self._endpoint.open(aio), Stubs
        )

    async def __aenter__(self) -> "AsyncIdPassClient":  # noqa: PYI034 as in IdPassClient
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connection. Calls in flight fail; iterations over `watch` end.

        No task is cancelled.
        """
        self._channel.closed = True
        channel = self._channel.take()
        if channel is not None and self._loop is asyncio.get_running_loop():
            # Up to grpcio 1.76 at least, closing a channel does not reach all of its calls.
            for call in list(self._open):
                call.cancel()
            await channel.close()

    @property
    def webhooks(self) -> AsyncWebhooks:
        """As IdPassClient.webhooks."""
        return AsyncWebhooks(self._run)

    async def cancel(
        self,
        id: Id,  # noqa: A002 the contract's name
        *,
        reason: AnyReason = CancelReason.UNSPECIFIED,
        note: str = "",
        expected_status: AnyStatus | None = None,
        require_refund: bool = False,
        validate_only: bool = False,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> Receipt:
        """As IdPassClient.cancel. Cancelling the task leaves the outcome unknown, as OutcomeUnknown
        does; give a request_id to be able to ask again.
        """
        call = _calls.cancel(
            id,
            reason=reason,
            note=note,
            expected_status=expected_status,
            require_refund=require_refund,
            validate_only=validate_only,
            request_id=request_id,
        )
        return await self._run(call, timeout)

    def cancel_many(
        self,
        ids: Iterable[Id] | AsyncIterable[Id],
        *,
        reason: AnyReason = CancelReason.UNSPECIFIED,
        note: str = "",
        expected_status: AnyStatus | None = None,
        require_refund: bool = False,
        batch_size: int = 500,
        in_flight: int = 2,
        timeout: float | None = None,
    ) -> AsyncIterator[CancelResult]:
        """As IdPassClient.cancel_many; `ids` may be an async iterable as well."""
        batches = _calls.Batches(
            reason=reason,
            note=note,
            expected_status=expected_status,
            require_refund=require_refund,
            batch_size=batch_size,
            in_flight=in_flight,
        )
        return self._cancel_batches(_in_batches(batches, ids), in_flight, timeout)

    async def _cancel_batches(
        self,
        batches: AsyncIterator[_calls.Batch],
        in_flight: int,
        timeout: float | None,
    ) -> AsyncIterator[CancelResult]:
        waiting: deque[tuple[_calls.Batch, asyncio.Task[Sequence[CancelResult]]]] = deque()
        failure: IdPassError | None = None
        try:
            while True:
                batch = None if failure else await anext(batches, None)
                if batch is not None:
                    task = asyncio.create_task(self._run(batch.call, timeout, patient=True))
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

    async def register(
        self,
        *,
        link_validity_days: int = 0,
        applicant_reference: str = "",
        supersedes: Id | None = None,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> RegisterReceipt:
        """As IdPassClient.register."""
        call = _calls.register(link_validity_days, applicant_reference, supersedes, request_id)
        return await self._run(call, timeout)

    async def advance(
        self,
        id: Id,  # noqa: A002 the contract's name
        to_status: AnyStatus,
        *,
        expected_status: AnyStatus | None = None,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> AdvanceReceipt:
        """As IdPassClient.advance."""
        return await self._run(_calls.advance(id, to_status, expected_status, request_id), timeout)

    async def get(
        self,
        id: Id,  # noqa: A002 the contract's name
        *,
        timeout: float | None = None,
    ) -> IdPass:
        """As IdPassClient.get."""
        return await self._run(_calls.get(id), timeout)

    async def account(
        self,
        *,
        timeout: float | None = None,
    ) -> Account:
        """As IdPassClient.account."""
        return await self._run(_calls.account(), timeout)

    def list(
        self,
        *,
        statuses: Iterable[AnyStatus] = (),
        idle_before: datetime | None = None,
        idle_for: timedelta | None = None,
        applicant_reference: str = "",
        timeout: float | None = None,
    ) -> AsyncIterator[IdPass]:
        """As IdPassClient.list."""
        listing = _calls.Listing(statuses, idle_before, idle_for, applicant_reference)
        return self._pages(listing, timeout)

    async def _pages(
        self,
        listing: _calls.Listing,
        timeout: float | None,
    ) -> AsyncIterator[IdPass]:
        while not listing.done:
            for id_pass in await self._run(listing.next_page(), timeout, patient=True):
                yield id_pass

    def watch(
        self,
        id: Id | None = None,  # noqa: A002 the contract's name
        *,
        after_sequence: int = 0,
        history: str | None = None,
        reconnect_for: float = 60.0,
    ) -> AsyncIterator[Event]:
        """As IdPassClient.watch."""
        return self._events(_calls.Watching(id, after_sequence, history), reconnect_for)

    async def _events(
        self, watching: _calls.Watching, reconnect_for_s: float
    ) -> AsyncIterator[Event]:
        reconnects = Reconnects(reconnect_for_s, time.monotonic(), self._endpoint.unreached)
        while True:
            call = watching.next_stream()
            stream: Any = getattr(self._stub(), call.method)(
                call.request, metadata=self._endpoint.metadata()
            )
            self._open.add(stream)
            try:
                # Comes at once, however long there are no events.
                metadata = await stream.initial_metadata()
                if not stream.done():
                    reconnects.connected()
                    watching.opened(metadata)
                async for message in stream:
                    yield call.read(message)
                return  # noqa: TRY300 the stream has ended by itself
            except grpc.RpcError as error:
                if self._channel.closed:
                    return
                delay_s = reconnects.failed(error, time.monotonic())
            except asyncio.CancelledError:
                if not self._ended_by_close():
                    raise
                return
            finally:
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
        if not self._channel.closed:
            await connect_aio(self._channel, reconnects.remaining_s(time.monotonic()))
        return not self._channel.closed

    async def _run(
        self,
        call: Call[T],
        timeout: float | None,
        *,
        patient: bool = False,
    ) -> T:
        timeout_s = remaining_s = self._timeout_s if timeout is None else timeout
        started_s = time.monotonic()
        attempts: Attempts | None = None
        self._stub()  # drops the channel of another event loop before it is waited for
        while True:
            if attempts is not None:
                if self._channel.closed or (
                    attempts.unconnected and not await connect_aio(self._channel, remaining_s)
                ):
                    attempts.gave_up(closed=self._channel.closed)
                remaining_s = attempts.remaining_s(time.monotonic())
            sent: Any = getattr(self._stub(), call.method)(
                call.request, timeout=remaining_s, metadata=self._endpoint.metadata()
            )
            self._open.add(sent)
            try:
                answer = await sent
            except grpc.RpcError as error:
                failure = error
            except asyncio.CancelledError:
                if not self._ended_by_close():
                    raise
                failure = _closed()
            else:
                self._throttle.succeeded()
                return call.read(answer)
            finally:
                self._open.discard(sent)
            attempts = attempts or Attempts(
                call,
                timeout_s,
                started_s,
                self._throttle,
                self._endpoint.unreached,
                patient=patient,
            )
            delay_s = attempts.failed(failure, time.monotonic(), closed=self._channel.closed)
            await asyncio.sleep(delay_s)
            remaining_s = attempts.remaining_s(time.monotonic())

    def _ended_by_close(self) -> bool:
        """Whether a call was cancelled by closing the client, and not by cancelling the task."""
        cancelling = getattr(asyncio.current_task(), "cancelling", None)  # Python 3.11 and newer
        return self._channel.closed and not (cancelling and cancelling())

    def _stub(self) -> Any:
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._channel.take()  # it belongs to another event loop and is useless in this one
            self._open.clear()
            self._loop = loop
        return self._channel.stub()


def _closed() -> grpc.RpcError:
    """The error of a call whose client is closed, as gRPC raises it in the sync client."""
    return aio.AioRpcError(
        grpc.StatusCode.CANCELLED, aio.Metadata(), aio.Metadata(), "Channel closed!"
    )


async def _in_batches(
    batches: _calls.Batches, ids: Iterable[Id] | AsyncIterable[Id]
) -> AsyncIterator[_calls.Batch]:
    if not isinstance(ids, AsyncIterable):
        for batch in batches.of(ids):
            yield batch
        return
    chunk = []
    async for pass_id in ids:
        chunk.append(pass_id)
        if len(chunk) == batches.size:
            yield batches.batch(chunk)
            chunk = []
    if chunk:
        yield batches.batch(chunk)
