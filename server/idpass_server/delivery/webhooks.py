"""Endpoints, as callers manage them. Every method raises refusals of `rules.refusals`."""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol

from idpass_server.delivery.addresses import Addresses, BadUrl
from idpass_server.delivery.signing import Secrets
from idpass_server.engine.clock import Clock
from idpass_server.engine.reads import Reads
from idpass_server.engine.writes import Engine
from idpass_server.ids import new_uuid
from idpass_server.rules import webhooks as rules
from idpass_server.rules.positions import Positions
from idpass_server.rules.records import Account, Event, Status
from idpass_server.rules.refusals import InvalidRequest, Violation, WebhookNotFound
from idpass_server.rules.webhooks import Attempt, Delivery, PausedReason, Webhook
from idpass_server.store import Store
from idpass_server.store.webhooks import Pending

MAX_PAGE: Final = 200
"""Number of deliveries in a page."""


class DeliveryPage(NamedTuple):
    """Part of an endpoint's deliveries.

    Attributes:
        deliveries: newest event first, each with the `webhook-id` of its attempts.
        next_before_sequence: `before_sequence` of the next page; None after the last.
    """

    deliveries: list[tuple[Delivery, str]]
    next_before_sequence: int | None


class Created(NamedTuple):
    """An endpoint was created.

    Attributes:
        webhook: the endpoint.
        secret: its secret.
        replayed: whether an earlier call with the same request_id created it.
    """

    webhook: Webhook
    secret: str
    replayed: bool


class Outgoing(Protocol):
    """What delivers: `delivering.Delivering`."""

    def changed(self, webhook_id: str) -> None:
        """An endpoint has changed: nothing more is begun for it as it was."""

    async def save(self) -> None:
        """Stores what has become of events; a change forgets what is not stored."""

    async def test(self, webhook: Webhook) -> Attempt:
        """Sends a test event, once."""


class Webhooks:
    """Endpoints of all accounts.

    Args:
        store: keeps them.
        engine: runs what changes them.
        reads: runs what reads them.
        clock: tells when.
        secrets: derives their secrets.
        addresses: judges their URLs.
        outgoing: delivers; told of each change.
    """

    def __init__(
        self,
        *,
        store: Store,
        engine: Engine,
        reads: Reads,
        clock: Clock,
        secrets: Secrets,
        addresses: Addresses,
        outgoing: Outgoing,
    ) -> None:
        self._tables = store.webhooks
        self._store = store
        self._engine = engine
        self._reads = reads
        self._clock = clock
        self._secrets = secrets
        self._addresses = addresses
        self._outgoing = outgoing

    async def create(  # noqa: PLR0917 the fields of a request
        self,
        account: str,
        caller: str,
        url: str,
        statuses: Sequence[str] = (),
        after_sequence: int | None = None,
        request_id: str | None = None,
    ) -> Created:
        """Creates an endpoint.

        Args:
            account: whose events it gets.
            caller: who creates it.
            url: where events are posted to.
            statuses: only events that lead to one of these; empty for all.
            after_sequence: the sequence to start after; None to start with the next event.
            request_id: idempotency key: repeated with the same content, it gives the endpoint that
                was created first, with the secret that is in force.

        Raises:
            InvalidRequest: the URL cannot be an endpoint's, or `after_sequence` is ahead of the
                newest event.
            HistoryLost: not every event after `after_sequence` is there.
            TooManyWebhooks: the account has MAX_WEBHOOKS.
            RequestIdReused: the request_id was used for another request.
        """
        url = self._checked(url)
        wanted = _joined(statuses)
        if after_sequence is not None:
            await self._check_position(account, "after_sequence", after_sequence)
        now_us = self._clock.now().us
        webhook = Webhook(
            account=account,
            id=new_uuid(),
            url=url,
            wanted=wanted,
            state=rules.State.ACTIVE,
            paused_reason=PausedReason.NOT_PAUSED,
            generation=1,
            previous_until_us=0,
            cursor=0,
            version=1,
            caller=caller,
            create_time_us=now_us,
            update_time_us=now_us,
            request_id=request_id,
            request_digest=request_id and rules.request_digest(url, wanted, after_sequence),
        )
        made = await self._engine.run(lambda it: it.webhooks.create(webhook, after_sequence))
        self._outgoing.changed(made.id)
        return Created(made, self._secrets.secret(made), replayed=made.id != webhook.id)

    async def get(self, account: str, webhook_id: str) -> Webhook:
        """An endpoint.

        Raises:
            WebhookNotFound: the account has no such endpoint.
        """
        webhook = await self._reads.run(self._tables.get, account, webhook_id)
        if webhook is None:
            raise WebhookNotFound(webhook_id)
        return webhook

    async def list(self, account: str) -> list[Webhook]:
        """The endpoints of an account, oldest first: MAX_WEBHOOKS at most."""
        return await self._reads.run(self._tables.of_account, account)

    async def update(
        self,
        account: str,
        webhook_id: str,
        *,
        url: str | None = None,
        statuses: Sequence[str] | None = None,
        paused: bool | None = None,
    ) -> Webhook:
        """Changes an endpoint; None leaves a field as it is.

        What it missed while it was paused is delivered once it is not.

        Args:
            account: that it belongs to.
            webhook_id: its UUID.
            url: where events are posted to.
            statuses: only events that lead to one of these; empty for all.
            paused: whether it is left alone; false ends a pause, whatever its reason.

        Raises:
            InvalidRequest: the URL cannot be an endpoint's.
            WebhookNotFound: the account has no such endpoint.
        """
        url = None if url is None else self._checked(url)

        def change(webhook: Webhook) -> Webhook:
            if url is not None:
                webhook = webhook._replace(url=url)
            if statuses is not None:
                webhook = webhook._replace(wanted=_joined(statuses))
            if paused is None or paused == webhook.paused:
                return webhook
            return rules.paused(webhook, PausedReason.CALLER) if paused else rules.resumed(webhook)

        now_us = self._clock.now().us
        return await self._change(account, webhook_id, change, now_us)

    async def delete(self, account: str, webhook_id: str) -> None:
        """Deletes an endpoint. What is being sent may still arrive; nothing is begun any more.

        Raises:
            WebhookNotFound: the account has no such endpoint.
        """
        await self._engine.run(lambda it: it.webhooks.delete(account, webhook_id))
        self._outgoing.changed(webhook_id)

    async def rotate_secret(
        self, account: str, webhook_id: str, *, immediate: bool = False
    ) -> tuple[Webhook, str]:
        """Gives an endpoint a new secret; the former one signs as well for 24 hours.

        Repeated within that time it gives the same secret again.

        Args:
            account: that it belongs to.
            webhook_id: its UUID.
            immediate: give it another secret in any case, and let no former one sign.

        Returns:
            the endpoint, and its new secret.

        Raises:
            WebhookNotFound: the account has no such endpoint.
        """
        now_us = self._clock.now().us

        def change(webhook: Webhook) -> Webhook:
            return rules.rotated(webhook, now_us, immediate=immediate)

        webhook = await self._change(account, webhook_id, change, now_us)
        return webhook, self._secrets.secret(webhook)

    async def test(self, account: str, webhook_id: str) -> Attempt:
        """Sends an event `webhook.test` to an endpoint, paused or not, once.

        Returns:
            what came of it.

        Raises:
            WebhookNotFound: the account has no such endpoint.
            Overloaded: too many requests to receivers are under way.
        """
        return await self._outgoing.test(await self.get(account, webhook_id))

    async def deliveries(
        self, account: str, webhook_id: str, limit: int, before_sequence: int | None = None
    ) -> DeliveryPage:
        """One page of what is kept of an endpoint's deliveries.

        Args:
            account: that it belongs to.
            webhook_id: its UUID.
            limit: largest number of deliveries; MAX_PAGE at most.
            before_sequence: `next_before_sequence` of the page before; None for the first.

        Raises:
            WebhookNotFound: the account has no such endpoint.
        """
        await self.get(account, webhook_id)
        limit = min(limit, MAX_PAGE)
        found = await self._reads.run(
            self._tables.deliveries, account, webhook_id, limit, before_sequence
        )
        history = await self._reads.history()
        shown = [
            (each, rules.message_id(history, account, each.sequence, webhook_id)) for each in found
        ]
        return DeliveryPage(shown, found[-1].sequence if len(found) == limit else None)

    async def redeliver(
        self,
        account: str,
        webhook_id: str,
        *,
        sequence: int | None = None,
        from_sequence: int | None = None,
    ) -> Webhook:
        """Delivers again what was delivered or given up: one event, or every one from a sequence.

        An event that has not been begun yet comes anyway, and is left alone.

        Args:
            account: that the endpoint belongs to.
            webhook_id: UUID of the endpoint.
            sequence: of the one event.
            from_sequence: of the first event.

        Raises:
            InvalidRequest: not exactly one of the two is given, or the account has no such event.
            HistoryLost: not every event from `from_sequence` on is there.
            WebhookNotFound: the account has no such endpoint.
        """
        if (sequence is None) == (from_sequence is None):
            text = "give either a sequence or a from_sequence"
            raise InvalidRequest([Violation("sequence", text)])
        await self.get(account, webhook_id)
        now_us = self._clock.now().us
        if sequence is not None:
            event = await self._event(account, sequence)
            kind = rules.event_type(event)
            again = Pending(sequence, event.id_pass_id, kind, event.event_time_us, 0, 0)
            webhook = await self._engine.run(
                lambda it: it.webhooks.redeliver(account, webhook_id, again, now_us)
            )
        else:
            first = from_sequence or 0
            await self._check_position(account, "from_sequence", first - 1)
            webhook = await self._engine.run(
                lambda it: it.webhooks.redeliver_from(account, webhook_id, first, now_us)
            )
        self._outgoing.changed(webhook_id)
        return webhook

    async def _change(
        self, account: str, webhook_id: str, change: Callable[[Webhook], Webhook], now_us: int
    ) -> Webhook:
        await self._outgoing.save()
        webhook = await self._engine.run(
            lambda it: it.webhooks.change(account, webhook_id, change, now_us)
        )
        self._outgoing.changed(webhook_id)
        return webhook

    def _checked(self, url: str) -> str:
        try:
            return self._addresses.check(url)
        except BadUrl as error:
            raise InvalidRequest([Violation("url", str(error))]) from error

    async def _event(self, account: str, sequence: int) -> Event:
        found = await self._reads.run(self._store.events, account, sequence - 1, 1)
        if not found or found[0].sequence != sequence:
            raise InvalidRequest([Violation("sequence", "is not of an event of the account")])
        return found[0]

    async def _check_position(self, account: str, field: str, position: int) -> None:
        """Checks that every event after a position is there."""

        def read() -> tuple[Account | None, Positions]:
            gaps = tuple(self._store.gaps(account))
            return self._store.get_account(account), Positions(self._store.history(), gaps)

        found, positions = await self._reads.run(read)
        newest = found.last_sequence if found is not None else 0
        if not 0 <= position <= newest:
            told = f"is not among the events, whose newest is {newest}"
            raise InvalidRequest([Violation(field, told)])
        positions.check(position)


def _joined(statuses: Sequence[str]) -> str:
    return ",".join(sorted({str(Status(status)) for status in statuses}))
