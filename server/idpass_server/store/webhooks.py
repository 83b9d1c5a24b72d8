"""Webhooks in the database: endpoints, what is not delivered yet, and what lately was.

Both stores keep the same tables and run the same statements, which are few, short and off the hot
path; each store says how a statement is read and how a transaction is run. Rows of a batch come as
one JSON parameter, as in `sqlite.sql`.

`save` is the only write of the process that delivers. It is fenced twice: it does nothing once the
lease has another term, and leaves out endpoints that a caller has changed meanwhile (`version`).
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeVar

from idpass_server.rules.refusals import RequestIdReused, TooManyWebhooks, WebhookNotFound
from idpass_server.rules.webhooks import (
    MAX_WEBHOOKS,
    Attempt,
    Delivery,
    DeliveryState,
    Webhook,
)
from idpass_server.store import webhook_sql as sql

KEPT_DELIVERED: Final = 100
"""Number of delivered events of an endpoint that are kept for the list of deliveries."""
KEPT_GIVEN_UP: Final = 1_000
"""Number of given up events of an endpoint that are kept for the list of deliveries."""

T = TypeVar("T")
Execute = Callable[[str, Mapping[str, object]], list[Any]]
"""Runs a statement in the transaction and returns its rows; none for one without rows."""
Read = Callable[[str, Mapping[str, object]], list[Any]]
"""Runs a reading statement by itself."""
Transaction = Callable[[Callable[[Execute], T]], T]
"""Runs a function in one transaction; it may be run again if the connection was lost."""


class Pending(NamedTuple):
    """An event that is not delivered yet.

    Attributes:
        sequence: of the event.
        id_pass_id: UUID of its pass.
        event_type: such as "id_pass.cancelled".
        event_time_us: when the change was decided.
        attempts: number of attempts so far.
        next_time_us: when it is tried next, microseconds since the epoch; 0 for at once.
    """

    sequence: int
    id_pass_id: str
    event_type: str
    event_time_us: int
    attempts: int
    next_time_us: int


class Done(NamedTuple):
    """What has become of an event, to be stored; fields as in Delivery and Pending."""

    sequence: int
    id_pass_id: str
    event_type: str
    event_time_us: int
    state: DeliveryState
    attempts: int
    next_time_us: int


class Progress(NamedTuple):
    """What has become of an endpoint since the last `save`.

    Attributes:
        webhook: as it is now; only what the delivering process may change is stored.
        done: events, each at most once.
        attempts: attempts with the sequences of their events.
    """

    webhook: Webhook
    done: Sequence[Done]
    attempts: Sequence[tuple[int, Attempt]]


class Dialect(NamedTuple):
    """How a database runs the statements.

    Attributes:
        read: runs a reading statement by itself.
        transaction: runs a function in one transaction, on the thread that calls it.
        rows: the table of the arrays in the JSON parameter `rows`, with one column `value`.
        claim: takes the right to create webhooks alone, to the end of the transaction; a statement,
            or None where transactions follow each other anyway.
        fence: returns a row while the lease has the term `:term`; None where there is no lease.
    """

    read: Read
    transaction: Transaction[Any]
    rows: str
    claim: str | None = None
    fence: str | None = None


class WebhookTables:
    """The tables. Reads are for any thread, writes for the thread that commits.

    Every method raises StoreUnavailable when the database cannot do it now, and StoreBroken when
    the process must go down.

    Args:
        dialect: how the database runs the statements.
    """

    def __init__(self, dialect: Dialect) -> None:
        self._read = dialect.read
        self._transaction: Any = dialect.transaction
        self._dialect = dialect

    # -- reads

    def get(self, account: str, webhook_id: str) -> Webhook | None:
        """An endpoint of the account; None if it has none with this id."""
        return _one(self._read(sql.SELECT, {"account": account, "id": webhook_id}))

    def of_account(self, account: str) -> list[Webhook]:
        """The endpoints of an account, oldest first."""
        return list(map(Webhook._make, self._read(sql.SELECT_OF_ACCOUNT, {"account": account})))

    def enabled(self) -> list[tuple[Webhook, int]]:
        """The endpoints of all accounts but disabled ones, with the account's newest sequence."""
        rows = self._read(sql.SELECT_ENABLED, {})
        return [(Webhook._make(row[:-1]), row[-1]) for row in rows]

    def stamp(self) -> object:
        """What differs whenever `enabled` may have other endpoints, or others' versions."""
        return self._read(sql.STAMP, {})

    def pending(self, account: str, webhook_id: str) -> list[Pending]:
        """The events up to the endpoint's cursor that are not delivered yet, in order."""
        key = {"account": account, "id": webhook_id}
        return list(map(Pending._make, self._read(sql.SELECT_PENDING, key)))

    def deliveries(
        self, account: str, webhook_id: str, limit: int, before_sequence: int | None = None
    ) -> list[Delivery]:
        """What is kept of an endpoint's deliveries, newest event first.

        Args:
            account: that the endpoint belongs to.
            webhook_id: UUID of the endpoint.
            limit: largest number of them.
            before_sequence: only events with a smaller sequence; None for all.
        """
        key = {"account": account, "id": webhook_id}
        before = 2**62 if before_sequence is None else before_sequence
        found = self._read(sql.SELECT_DELIVERIES, key | {"before_sequence": before, "limit": limit})
        if not found:
            return []
        attempts: dict[int, list[Attempt]] = {row[0]: [] for row in found}
        span = {"oldest": found[-1][0], "newest": found[0][0]}
        for sequence, *attempt in self._read(sql.SELECT_ATTEMPTS, key | span):
            if sequence in attempts:
                attempts[sequence].append(Attempt._make(attempt))
        return [
            Delivery(
                *(webhook_id, sequence, id_pass_id, event_type, state),
                next_time_us=next_time_us or None,
                attempts=tuple(attempts[sequence]),
            )
            for sequence, id_pass_id, event_type, state, next_time_us in found
        ]

    # -- a caller's changes

    def create(self, webhook: Webhook, after_sequence: int | None) -> Webhook:
        """Creates an endpoint, once for each request_id.

        Args:
            webhook: the endpoint; its cursor is set here.
            after_sequence: the cursor; None for the account's newest event.

        Returns:
            the endpoint; with a request_id that was used before for the same, that one.

        Raises:
            TooManyWebhooks: the account has MAX_WEBHOOKS.
            RequestIdReused: the request_id was used for another request.
        """

        def work(execute: Execute) -> Webhook:
            if self._dialect.claim is not None:
                execute(self._dialect.claim, {})
            if webhook.request_id is not None:
                former = _one(execute(sql.SELECT_BY_REQUEST, webhook._asdict()))
                if former is not None and former.request_digest != webhook.request_digest:
                    raise RequestIdReused(webhook.request_id)
                if former is not None:
                    return former
            if execute(sql.COUNT, {"account": webhook.account})[0][0] >= MAX_WEBHOOKS:
                raise TooManyWebhooks(webhook.account, MAX_WEBHOOKS)
            ((newest,),) = execute(sql.SELECT_LAST_SEQUENCE, {"account": webhook.account})
            made = webhook._replace(cursor=newest if after_sequence is None else after_sequence)
            execute(sql.INSERT, made._asdict())
            return made

        created: Webhook = self._transaction(work)
        return created

    def change(
        self, account: str, webhook_id: str, change: Callable[[Webhook], Webhook], now_us: int
    ) -> Webhook:
        """Changes an endpoint.

        What waits for another attempt is tried at once if the change ends a pause.

        Args:
            account: that it belongs to.
            webhook_id: its UUID.
            change: returns what it becomes.
            now_us: the time, microseconds since the epoch.

        Raises:
            WebhookNotFound: the account has no such endpoint.
        """

        def work(execute: Execute) -> Webhook:
            before = self._found(execute, account, webhook_id)
            after = change(before)
            if after == before:
                return before
            after = after._replace(version=before.version + 1, update_time_us=now_us)
            execute(sql.UPDATE, after._asdict())
            if before.paused and not after.paused:
                execute(sql.DUE_AT_ONCE, {"account": account, "id": webhook_id})
            return after

        changed: Webhook = self._transaction(work)
        return changed

    def delete(self, account: str, webhook_id: str) -> None:
        """Deletes an endpoint and what is kept of its deliveries.

        Raises:
            WebhookNotFound: the account has no such endpoint.
        """

        def work(execute: Execute) -> None:
            self._found(execute, account, webhook_id)
            for statement in sql.DELETE:
                execute(statement, {"account": account, "id": webhook_id})

        self._transaction(work)

    def redeliver(self, account: str, webhook_id: str, event: Pending, now_us: int) -> Webhook:
        """Has one event delivered again, whatever became of it.

        Args:
            account: that the endpoint belongs to.
            webhook_id: UUID of the endpoint.
            event: the event.
            now_us: the time, microseconds since the epoch.

        Raises:
            WebhookNotFound: the account has no such endpoint.
        """
        key = {"account": account, "id": webhook_id}

        def work(execute: Execute) -> Webhook:
            before = self._found(execute, account, webhook_id)
            if event.sequence > before.cursor:
                return before  # it is on its way, or comes anyway
            execute(sql.FORGET_ATTEMPTS, key | {"sequence": event.sequence})
            execute(sql.AGAIN, key | event._asdict())
            after = before._replace(version=before.version + 1, update_time_us=now_us)
            execute(sql.UPDATE, after._asdict())
            return after

        changed: Webhook = self._transaction(work)
        return changed

    def redeliver_from(self, account: str, webhook_id: str, sequence: int, now_us: int) -> Webhook:
        """Has every event from a sequence on delivered again.

        Args:
            account: that the endpoint belongs to.
            webhook_id: UUID of the endpoint.
            sequence: of the first event.
            now_us: the time, microseconds since the epoch.

        Raises:
            WebhookNotFound: the account has no such endpoint.
        """
        key = {"account": account, "id": webhook_id}

        def work(execute: Execute) -> Webhook:
            before = self._found(execute, account, webhook_id)
            if sequence > before.cursor:
                return before
            for statement in sql.FORGET_FROM:
                execute(statement, key | {"sequence": sequence})
            after = before._replace(
                cursor=sequence - 1, version=before.version + 1, update_time_us=now_us
            )
            execute(sql.UPDATE, after._asdict())
            return after

        changed: Webhook = self._transaction(work)
        return changed

    def _found(self, execute: Execute, account: str, webhook_id: str) -> Webhook:
        found = _one(execute(sql.SELECT, {"account": account, "id": webhook_id}))
        if found is None:
            raise WebhookNotFound(webhook_id)
        return found

    # -- what the delivering process writes

    def save(self, progress: Sequence[Progress], term: int) -> bool:
        """Stores what has become of endpoints, in one transaction.

        Args:
            progress: of each endpoint at most once.
            term: of the lease that the process holds.

        Returns:
            false, having stored nothing, if the lease has another term by now.
        """
        webhooks, done, attempts = _rows(progress)

        def work(execute: Execute) -> bool:
            fence = self._dialect.fence
            if fence is not None and not execute(fence, {"term": term}):
                return False
            # Endpoints come last: the others look at their versions.
            for statement, rows in (
                (sql.SAVE_DELIVERIES, done),
                (sql.SAVE_ATTEMPTS, attempts),
                (sql.SAVE_WEBHOOKS, webhooks),
            ):
                if rows:
                    text = statement.format(rows=self._dialect.rows)
                    execute(text, {"rows": json.dumps(rows)})
            return True

        saved: bool = self._transaction(work)
        return saved

    def prune(self, account: str, webhook_id: str) -> None:
        """Deletes what is kept of an endpoint's deliveries beyond the newest."""
        key = {"account": account, "id": webhook_id}

        def work(execute: Execute) -> None:
            for state, kept in (
                (DeliveryState.DELIVERED, KEPT_DELIVERED),
                (DeliveryState.GIVEN_UP, KEPT_GIVEN_UP),
            ):
                for statement in sql.PRUNE:
                    execute(statement, key | {"state": str(state), "kept": kept})

        self._transaction(work)


def _one(rows: list[Any]) -> Webhook | None:
    return Webhook._make(rows[0]) if rows else None


def _rows(progress: Sequence[Progress]) -> tuple[list[Any], list[Any], list[Any]]:
    """The rows of `save`: endpoints, deliveries, attempts."""
    webhooks: list[Any] = []
    done: list[Any] = []
    attempts: list[Any] = []
    for webhook, finished, tried in progress:
        key = (webhook.account, webhook.id)
        webhooks.append(
            (
                *(*key, webhook.version, webhook.cursor, webhook.state, webhook.paused_reason),
                *(webhook.last_success_us, webhook.failing_since_us),
            )
        )
        done += [(*key, *each, webhook.version) for each in finished]
        attempts += [(*key, sequence, *each, webhook.version) for sequence, each in tried]
    return webhooks, done, attempts
