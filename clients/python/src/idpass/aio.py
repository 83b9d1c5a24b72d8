"""The client for asyncio; `client` has the synchronous one, which documents every argument.

The two differ only in how they wait.
"""

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Sequence
from datetime import datetime, timedelta
from types import TracebackType

from idpass import _calls
from idpass._arguments import Id, several
from idpass._endpoint import ChannelOptions, Endpoint, Pem, Token
from idpass._interceptors import AsyncInterceptor
from idpass._metadata import Metadata
from idpass._policy import DEFAULT, RetryPolicy
from idpass._records import (
    Account,
    AdvanceReceipt,
    CancelResult,
    Event,
    IdPass,
    Receipt,
    RegisterReceipt,
)
from idpass._transport_aio import AsyncTransport
from idpass._webhook_methods import AsyncWebhooks
from idpass._words import AnyReason, AnyStatus, CancelReason


class AsyncIdPassClient:
    """A client of the ID Pass service for asyncio.

    Arguments, errors and guarantees are those of IdPassClient; `interceptors` are grpc.aio's.
    Creating one does no I/O and needs no running event loop: the channel is created at the first
    call, and again when the client is used in another event loop.
    """

    def __init__(
        self,
        address: str,
        *,
        tls: bool | Pem = False,
        client_certificate: tuple[Pem, Pem] | None = None,
        token: Token | None = None,
        timeout: float = 5.0,
        retry: RetryPolicy = DEFAULT,
        metadata: Metadata | None = None,
        interceptors: Sequence[AsyncInterceptor] = (),
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
            metadata=metadata,
            allow_plaintext=allow_plaintext,
            channel_options=channel_options,
        )
        self._transport = AsyncTransport(self._endpoint, retry, interceptors)

    def __repr__(self) -> str:
        state = ", closed" if self._transport.channel.closed else ""
        return f"{type(self).__name__}({self._endpoint!r}{state})"

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
        await self._transport.close()

    @property
    def webhooks(self) -> AsyncWebhooks:
        """As IdPassClient.webhooks."""
        return AsyncWebhooks(self._transport)

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
        metadata: Metadata | None = None,
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
        return await self._transport.run(call, timeout, metadata)

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
        metadata: Metadata | None = None,
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
        several("ids", ids)
        return self._transport.batches(_in_batches(batches, ids), in_flight, timeout, metadata)

    async def register(
        self,
        *,
        link_validity_days: int = 0,
        applicant_reference: str = "",
        supersedes: Id | None = None,
        request_id: str | None = None,
        timeout: float | None = None,
        metadata: Metadata | None = None,
    ) -> RegisterReceipt:
        """As IdPassClient.register."""
        call = _calls.register(link_validity_days, applicant_reference, supersedes, request_id)
        return await self._transport.run(call, timeout, metadata)

    async def advance(
        self,
        id: Id,  # noqa: A002 the contract's name
        to_status: AnyStatus,
        *,
        expected_status: AnyStatus | None = None,
        request_id: str | None = None,
        timeout: float | None = None,
        metadata: Metadata | None = None,
    ) -> AdvanceReceipt:
        """As IdPassClient.advance."""
        call = _calls.advance(id, to_status, expected_status, request_id)
        return await self._transport.run(call, timeout, metadata)

    async def get(
        self,
        id: Id,  # noqa: A002 the contract's name
        *,
        timeout: float | None = None,
        metadata: Metadata | None = None,
    ) -> IdPass:
        """As IdPassClient.get."""
        return await self._transport.run(_calls.get(id), timeout, metadata)

    async def account(
        self,
        *,
        timeout: float | None = None,
        metadata: Metadata | None = None,
    ) -> Account:
        """As IdPassClient.account."""
        return await self._transport.run(_calls.account(), timeout, metadata)

    def list(
        self,
        *,
        statuses: Iterable[AnyStatus] = (),
        idle_before: datetime | None = None,
        idle_for: timedelta | None = None,
        applicant_reference: str = "",
        timeout: float | None = None,
        metadata: Metadata | None = None,
    ) -> AsyncIterator[IdPass]:
        """As IdPassClient.list."""
        listing = _calls.Listing(statuses, idle_before, idle_for, applicant_reference)
        return self._transport.pages(listing, timeout, metadata)

    def watch(
        self,
        id: Id | None = None,  # noqa: A002 the contract's name
        *,
        after_sequence: int = 0,
        history: str | None = None,
        reconnect_for: float | None = None,
        metadata: Metadata | None = None,
    ) -> AsyncIterator[Event]:
        """As IdPassClient.watch."""
        watching = _calls.Watching(id, after_sequence, history)
        return self._transport.events(watching, reconnect_for, metadata)


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
