"""The clients' methods for webhooks: `client.webhooks`, for both clients.

The two classes differ only in how they wait; the synchronous one documents every argument.
"""

from collections.abc import AsyncIterator, Awaitable, Iterable, Iterator
from typing import Protocol

from idpass import _webhook_calls
from idpass._calls import Call, Id, T
from idpass._webhook_records import (
    AnyWebhookState,
    Webhook,
    WebhookAttempt,
    WebhookDelivery,
    WebhookSecret,
)
from idpass._words import AnyStatus


class _Run(Protocol):
    def __call__(self, call: Call[T], timeout: float | None) -> T: ...


class _RunAsync(Protocol):
    def __call__(self, call: Call[T], timeout: float | None) -> Awaitable[T]: ...


class Webhooks:
    """The account's webhooks, as `IdPassClient.webhooks`.

    Every method raises FailedPrecondition if the server sends no webhooks, and what
    idpass.errors says of every call. `timeout` is that of the call with all its retries, seconds;
    the client's own if None.
    """

    def __init__(self, run: _Run) -> None:
        self._run = run

    def create(
        self,
        url: str,
        *,
        statuses: Iterable[AnyStatus] = (),
        after_sequence: int | None = None,
        request_id: str | None = None,
        timeout: float | None = None,
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
        return self._run(_webhook_calls.create(url, statuses, after_sequence, request_id), timeout)

    def get(self, id: Id, *, timeout: float | None = None) -> Webhook:  # noqa: A002 as elsewhere
        """One webhook.

        Raises:
            NotFound: the account has no such webhook.
        """
        return self._run(_webhook_calls.get(id), timeout)

    def list(self, *, timeout: float | None = None) -> "list[Webhook]":
        """All webhooks, the oldest first."""
        return self._run(_webhook_calls.list_(), timeout)

    def update(
        self,
        id: Id,  # noqa: A002 as elsewhere
        *,
        url: str | None = None,
        statuses: Iterable[AnyStatus] | None = None,
        state: AnyWebhookState | None = None,
        timeout: float | None = None,
    ) -> Webhook:
        """Changes a webhook; what is None stays as it is.

        Args:
            url: as for `create`.
            statuses: the statuses wanted from now on; empty for all.
            state: "paused" or "active".

        Raises:
            NotFound: the account has no such webhook.
        """
        return self._run(_webhook_calls.update(id, url, statuses, state), timeout)

    def delete(self, id: Id, *, timeout: float | None = None) -> None:  # noqa: A002 as elsewhere
        """Deletes a webhook.

        Raises:
            NotFound: the account has no such webhook.
        """
        self._run(_webhook_calls.delete(id), timeout)

    def rotate_secret(
        self,
        id: Id,  # noqa: A002 as elsewhere
        *,
        immediate: bool = False,
        timeout: float | None = None,
    ) -> WebhookSecret:
        """Gives a webhook a new secret. For 24 hours the old one signs too.

        Calling again within these 24 hours returns the same new secret.

        Args:
            immediate: stops the old secrets at once, because one has leaked.

        Raises:
            NotFound: the account has no such webhook.
        """
        return self._run(_webhook_calls.rotate_secret(id, immediate=immediate), timeout)

    def test(
        self,
        id: Id,  # noqa: A002 as elsewhere
        *,
        timeout: float = _webhook_calls.TEST_TIMEOUT_S,
    ) -> WebhookAttempt:
        """Sends an event of type `webhook.test` now, once, and returns what came of it.

        Raises:
            NotFound: the account has no such webhook.
        """
        return self._run(_webhook_calls.test(id), timeout)

    def deliveries(
        self,
        id: Id,  # noqa: A002 as elsewhere
        *,
        timeout: float | None = None,
    ) -> Iterator[WebhookDelivery]:
        """The webhook's deliveries, newest event first; pages are fetched as they are needed.

        Raises:
            NotFound: the account has no such webhook.
        """
        pages = _webhook_calls.Deliveries(id)
        return self._pages(pages, timeout)

    def _pages(
        self, pages: _webhook_calls.Deliveries, timeout: float | None
    ) -> Iterator[WebhookDelivery]:
        while not pages.done:
            yield from self._run(pages.next_page(), timeout)

    def redeliver(
        self,
        id: Id,  # noqa: A002 as elsewhere
        *,
        sequence: int | None = None,
        from_sequence: int | None = None,
        timeout: float | None = None,
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
        return self._run(_webhook_calls.redeliver(id, sequence, from_sequence), timeout)


class AsyncWebhooks:
    """The account's webhooks, as `AsyncIdPassClient.webhooks`. All is as in Webhooks."""

    def __init__(self, run: _RunAsync) -> None:
        self._run = run

    async def create(
        self,
        url: str,
        *,
        statuses: Iterable[AnyStatus] = (),
        after_sequence: int | None = None,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> WebhookSecret:
        """As Webhooks.create."""
        call = _webhook_calls.create(url, statuses, after_sequence, request_id)
        return await self._run(call, timeout)

    async def get(self, id: Id, *, timeout: float | None = None) -> Webhook:  # noqa: A002 likewise
        """As Webhooks.get."""
        return await self._run(_webhook_calls.get(id), timeout)

    async def list(self, *, timeout: float | None = None) -> "list[Webhook]":
        """As Webhooks.list."""
        return await self._run(_webhook_calls.list_(), timeout)

    async def update(
        self,
        id: Id,  # noqa: A002 likewise
        *,
        url: str | None = None,
        statuses: Iterable[AnyStatus] | None = None,
        state: AnyWebhookState | None = None,
        timeout: float | None = None,
    ) -> Webhook:
        """As Webhooks.update."""
        return await self._run(_webhook_calls.update(id, url, statuses, state), timeout)

    async def delete(
        self,
        id: Id,  # noqa: A002 likewise
        *,
        timeout: float | None = None,
    ) -> None:
        """As Webhooks.delete."""
        await self._run(_webhook_calls.delete(id), timeout)

    async def rotate_secret(
        self,
        id: Id,  # noqa: A002 likewise
        *,
        immediate: bool = False,
        timeout: float | None = None,
    ) -> WebhookSecret:
        """As Webhooks.rotate_secret."""
        return await self._run(_webhook_calls.rotate_secret(id, immediate=immediate), timeout)

    async def test(
        self,
        id: Id,  # noqa: A002 likewise
        *,
        timeout: float = _webhook_calls.TEST_TIMEOUT_S,
    ) -> WebhookAttempt:
        """As Webhooks.test."""
        return await self._run(_webhook_calls.test(id), timeout)

    def deliveries(
        self,
        id: Id,  # noqa: A002 likewise
        *,
        timeout: float | None = None,
    ) -> AsyncIterator[WebhookDelivery]:
        """As Webhooks.deliveries."""
        return self._pages(_webhook_calls.Deliveries(id), timeout)

    async def _pages(
        self, pages: _webhook_calls.Deliveries, timeout: float | None
    ) -> AsyncIterator[WebhookDelivery]:
        while not pages.done:
            for delivery in await self._run(pages.next_page(), timeout):
                yield delivery

    async def redeliver(
        self,
        id: Id,  # noqa: A002 likewise
        *,
        sequence: int | None = None,
        from_sequence: int | None = None,
        timeout: float | None = None,
    ) -> Webhook:
        """As Webhooks.redeliver."""
        return await self._run(_webhook_calls.redeliver(id, sequence, from_sequence), timeout)
