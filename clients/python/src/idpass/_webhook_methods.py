"""The clients' methods for webhooks: `client.webhooks`, for both clients.

The two classes differ only in how they wait; the synchronous one documents every argument.
"""

from collections.abc import AsyncIterator, Iterable, Iterator

from idpass import _webhook_calls
from idpass._arguments import Id
from idpass._metadata import Metadata
from idpass._transport import Transport
from idpass._transport_aio import AsyncTransport
from idpass._webhook_records import (
    AnyWebhookState,
    Webhook,
    WebhookAttempt,
    WebhookDelivery,
    WebhookSecret,
)
from idpass._words import AnyStatus


class Webhooks:
    """The account's webhooks, as `IdPassClient.webhooks`.

    Every method raises FailedPrecondition if the server sends no webhooks, and what
    idpass.errors says of every call. `timeout` is that of the call with all its retries, seconds;
    the client's own if None. `metadata` is as for `IdPassClient.cancel`.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(
        self,
        url: str,
        *,
        statuses: Iterable[AnyStatus] = (),
        after_sequence: int | None = None,
        request_id: str | None = None,
        timeout: float | None = None,
        metadata: Metadata | None = None,
    ) -> WebhookSecret:
        """Creates a webhook. The answer has its secret, which no other answer shows.

        Args:
            url: https, with a public address unless the server's operator allows others.
            statuses: the statuses whose events are wanted; empty for all.
            after_sequence: events after this sequence are sent; None for those from now on.
            request_id: that of an earlier call whose outcome is unknown.

        Raises:
            ResourceExhausted: the account has as many webhooks as it may.
        """
        return self._transport.run(
            _webhook_calls.create(url, statuses, after_sequence, request_id), timeout, metadata
        )

    def get(
        self,
        id: Id,  # noqa: A002 as elsewhere
        *,
        timeout: float | None = None,
        metadata: Metadata | None = None,
    ) -> Webhook:
        """One webhook.

        Raises:
            NotFound: the account has no such webhook.
        """
        return self._transport.run(_webhook_calls.get(id), timeout, metadata)

    def list(
        self, *, timeout: float | None = None, metadata: Metadata | None = None
    ) -> "list[Webhook]":
        """All webhooks, the oldest first."""
        return self._transport.run(_webhook_calls.list_(), timeout, metadata)

    def update(
        self,
        id: Id,  # noqa: A002 as elsewhere
        *,
        url: str | None = None,
        statuses: Iterable[AnyStatus] | None = None,
        state: AnyWebhookState | None = None,
        timeout: float | None = None,
        metadata: Metadata | None = None,
    ) -> Webhook:
        """Changes a webhook; what is None stays as it is.

        Args:
            url: as for `create`.
            statuses: the statuses wanted from now on; empty for all.
            state: "paused" or "active".

        Raises:
            NotFound: the account has no such webhook.
        """
        return self._transport.run(
            _webhook_calls.update(id, url, statuses, state), timeout, metadata
        )

    def delete(
        self,
        id: Id,  # noqa: A002 as elsewhere
        *,
        timeout: float | None = None,
        metadata: Metadata | None = None,
    ) -> None:
        """Deletes a webhook.

        Raises:
            NotFound: the account has no such webhook.
        """
        self._transport.run(_webhook_calls.delete(id), timeout, metadata)

    def rotate_secret(
        self,
        id: Id,  # noqa: A002 as elsewhere
        *,
        immediate: bool = False,
        timeout: float | None = None,
        metadata: Metadata | None = None,
    ) -> WebhookSecret:
        """Gives a webhook a new secret. For 24 hours the old one signs too.

        Calling again within these 24 hours returns the same new secret.

        Args:
            immediate: stops the old secrets at once, because one has leaked.

        Raises:
            NotFound: the account has no such webhook.
        """
        return self._transport.run(
            _webhook_calls.rotate_secret(id, immediate=immediate), timeout, metadata
        )

    def test(
        self,
        id: Id,  # noqa: A002 as elsewhere
        *,
        timeout: float = _webhook_calls.TEST_TIMEOUT_S,
        metadata: Metadata | None = None,
    ) -> WebhookAttempt:
        """Sends an event of type `webhook.test` now, once, and returns what came of it.

        Raises:
            NotFound: the account has no such webhook.
        """
        return self._transport.run(_webhook_calls.test(id), timeout, metadata)

    def deliveries(
        self,
        id: Id,  # noqa: A002 as elsewhere
        *,
        timeout: float | None = None,
        metadata: Metadata | None = None,
    ) -> Iterator[WebhookDelivery]:
        """The webhook's deliveries, newest event first; pages are fetched as they are needed.

        Raises:
            NotFound: the account has no such webhook.
        """
        pages = _webhook_calls.Deliveries(id)
        return self._transport.pages(pages, timeout, metadata)

    def redeliver(
        self,
        id: Id,  # noqa: A002 as elsewhere
        *,
        sequence: int | None = None,
        from_sequence: int | None = None,
        timeout: float | None = None,
        metadata: Metadata | None = None,
    ) -> Webhook:
        """Delivers events again, with the `webhook-id` they had.

        Args:
            sequence: of the one event to deliver again.
            from_sequence: of the first event to deliver again, and all after it.

        Raises:
            NotFound: the account has no such webhook.
            FailedPrecondition: the events are no longer there.
            ValueError: neither sequence is given, or both.
        """
        return self._transport.run(
            _webhook_calls.redeliver(id, sequence, from_sequence), timeout, metadata
        )


class AsyncWebhooks:
    """The account's webhooks, as `AsyncIdPassClient.webhooks`. All is as in Webhooks."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def create(
        self,
        url: str,
        *,
        statuses: Iterable[AnyStatus] = (),
        after_sequence: int | None = None,
        request_id: str | None = None,
        timeout: float | None = None,
        metadata: Metadata | None = None,
    ) -> WebhookSecret:
        """As Webhooks.create."""
        call = _webhook_calls.create(url, statuses, after_sequence, request_id)
        return await self._transport.run(call, timeout, metadata)

    async def get(
        self,
        id: Id,  # noqa: A002 likewise
        *,
        timeout: float | None = None,
        metadata: Metadata | None = None,
    ) -> Webhook:
        """As Webhooks.get."""
        return await self._transport.run(_webhook_calls.get(id), timeout, metadata)

    async def list(
        self, *, timeout: float | None = None, metadata: Metadata | None = None
    ) -> "list[Webhook]":
        """As Webhooks.list."""
        return await self._transport.run(_webhook_calls.list_(), timeout, metadata)

    async def update(
        self,
        id: Id,  # noqa: A002 likewise
        *,
        url: str | None = None,
        statuses: Iterable[AnyStatus] | None = None,
        state: AnyWebhookState | None = None,
        timeout: float | None = None,
        metadata: Metadata | None = None,
    ) -> Webhook:
        """As Webhooks.update."""
        return await self._transport.run(
            _webhook_calls.update(id, url, statuses, state), timeout, metadata
        )

    async def delete(
        self,
        id: Id,  # noqa: A002 likewise
        *,
        timeout: float | None = None,
        metadata: Metadata | None = None,
    ) -> None:
        """As Webhooks.delete."""
        await self._transport.run(_webhook_calls.delete(id), timeout, metadata)

    async def rotate_secret(
        self,
        id: Id,  # noqa: A002 likewise
        *,
        immediate: bool = False,
        timeout: float | None = None,
        metadata: Metadata | None = None,
    ) -> WebhookSecret:
        """As Webhooks.rotate_secret."""
        return await self._transport.run(
            _webhook_calls.rotate_secret(id, immediate=immediate), timeout, metadata
        )

    async def test(
        self,
        id: Id,  # noqa: A002 likewise
        *,
        timeout: float = _webhook_calls.TEST_TIMEOUT_S,
        metadata: Metadata | None = None,
    ) -> WebhookAttempt:
        """As Webhooks.test."""
        return await self._transport.run(_webhook_calls.test(id), timeout, metadata)

    def deliveries(
        self,
        id: Id,  # noqa: A002 likewise
        *,
        timeout: float | None = None,
        metadata: Metadata | None = None,
    ) -> AsyncIterator[WebhookDelivery]:
        """As Webhooks.deliveries."""
        return self._transport.pages(_webhook_calls.Deliveries(id), timeout, metadata)

    async def redeliver(
        self,
        id: Id,  # noqa: A002 likewise
        *,
        sequence: int | None = None,
        from_sequence: int | None = None,
        timeout: float | None = None,
        metadata: Metadata | None = None,
    ) -> Webhook:
        """As Webhooks.redeliver."""
        return await self._transport.run(
            _webhook_calls.redeliver(id, sequence, from_sequence), timeout, metadata
        )
