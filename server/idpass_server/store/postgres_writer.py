"""How a batch is committed to PostgreSQL: one transaction in two round trips.

The first locks the accounts and loads what the commands need, the second saves what was decided
and commits. Accounts are locked in the order of their names, so that no two batches wait for
each other, and everything else is read after they are locked.

Where the connection is lost at COMMIT nobody has said whether it took place. Then the batch is
run again: it waits for the accounts' locks, which the lost transaction held to its end, and
looks for the first event it wrote last time. If the event is there the batch is committed as it
was decided then; if not, it is decided anew. So a caller without a request_id gets its true
answer as well. Every transaction here takes a lock and so writes to the log: with a synchronous
standby its COMMIT returns when the standby has all that it has seen, replays included.
"""

import itertools
import json
import operator
import random
import time
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import psycopg

from idpass_server.batch import Batch, Needs, short_of_slots
from idpass_server.records import Account, Command, Event, Pass
from idpass_server.refusals import StoreUnavailable
from idpass_server.store import Committed
from idpass_server.store import postgres_sql as sql
from idpass_server.store.postgres_link import (
    CONFLICT,
    OUTCOME_UNKNOWN,
    Connection,
    Link,
    unavailable,
)

CONFLICT_ATTEMPTS: Final = 10
SETTLE_S: Final = 20.0
"""For so long it is tried to learn what became of a COMMIT."""


class _Unsettled(NamedTuple):
    """A batch whose COMMIT may have taken place."""

    committed: Committed
    written: Event
    """Its first event: in the database if it did."""


class _OutcomeUnknown(Exception):
    def __init__(self, unsettled: _Unsettled) -> None:
        super().__init__()
        self.unsettled = unsettled


class _NotConfirmed(psycopg.OperationalError):
    """COMMIT was answered with a warning: the standby has perhaps not got it."""


class Writer:
    """Commits batches, one after the other. Args: link: its own."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def commit(
        self, commands: Sequence[Command], now_us: int, due_us: int | None = None
    ) -> Committed:
        """As Store.commit."""
        unsettled: _Unsettled | None = None
        give_up_s = 0.0
        for attempt in itertools.count(1):
            try:
                return self._attempt(commands, now_us, due_us, unsettled)
            except _OutcomeUnknown as error:
                if unsettled is None:
                    give_up_s = time.monotonic() + SETTLE_S
                unsettled = error.unsettled
                cause: BaseException | None = error.__cause__
            except (psycopg.Error, StoreUnavailable) as error:
                if unsettled is None and attempt >= self._attempts(error):
                    raise unavailable(error) or error from error
                cause = error
            if unsettled is not None and time.monotonic() >= give_up_s:
                raise StoreUnavailable(
                    "the connection to the database was lost; whether the change was stored is "
                    "not known",
                    outcome_unknown=True,
                ) from cause
            if attempt > 1:
                time.sleep(random.uniform(0.5, 1) * min(0.005 * 2**attempt, 1.0))  # noqa: S311
        raise AssertionError("counted to infinity")

    def _attempts(self, error: Exception) -> int:
        """How many attempts are worth it for an error that left nothing behind."""
        if isinstance(error, psycopg.Error) and error.sqlstate in CONFLICT:
            return CONFLICT_ATTEMPTS
        return 2 if self._link.was_lost else 1

    def _attempt(
        self,
        commands: Sequence[Command],
        now_us: int,
        due_us: int | None,
        unsettled: _Unsettled | None,
    ) -> Committed:
        connection = self._link.connection()
        committing = unsettled
        try:
            with connection.pipeline():
                batch = _load(connection, commands, now_us if due_us is None else due_us)
                if unsettled is not None and _is_there(connection, unsettled.written):
                    committed = unsettled.committed
                else:
                    outcomes = batch.run(commands, now_us, due_us)
                    committed = Committed(
                        outcomes, {a.name: a.last_sequence for a in batch.changed_accounts()}
                    )
                    committing = _Unsettled(committed, batch.events[0]) if batch.events else None
                    _save(connection, batch)
                self._link.warnings.clear()
                connection.execute("COMMIT")
            if self._link.warnings:
                raise _NotConfirmed("; ".join(self._link.warnings))
        except BaseException as error:
            self._link.reset(error)
            if committing is not None and isinstance(error, psycopg.Error):
                said_nothing = self._link.was_lost or error.sqlstate in OUTCOME_UNKNOWN
                if said_nothing or isinstance(error, _NotConfirmed):
                    raise _OutcomeUnknown(committing) from error
            raise
        return committed


def _load(connection: Connection, commands: Sequence[Command], due_us: int) -> Batch:
    needs = Needs.of(commands)
    connection.execute("BEGIN")
    locked = connection.execute(sql.LOCK, (needs.accounts,))
    found = _query(connection, sql.LOAD_PASSES, sql.PASS_KEY, needs.passes)
    used = _query(connection, sql.LOAD_RECEIPTS, sql.RECEIPT_KEY, needs.receipts)
    accounts = list(map(Account._make, locked))
    passes = list(map(Pass._make, found))
    receipts = list(map(Event._make, used))
    preceding: list[Event] = []
    if receipts:
        subjects = [(receipt.account, receipt.id_pass_id) for receipt in receipts]
        before = [(receipt.account, receipt.sequence - 1) for receipt in receipts]
        found = _query(connection, sql.LOAD_PASSES, sql.PASS_KEY, subjects)
        used = _query(connection, sql.LOAD_EVENTS, sql.EVENT_KEY, before)
        passes += map(Pass._make, found)
        preceding += map(Event._make, used)
    overdue = [
        Pass._make(row)
        for account, wanted in short_of_slots(accounts, commands).items()
        for row in connection.execute(
            sql.OVERDUE, {"account": account, "due_us": due_us, "limit": wanted}
        )
    ]
    return Batch(accounts, passes, receipts, preceding, overdue)


def _query(
    connection: Connection, statement: str, names: Sequence[str], keys: Sequence[tuple[object, ...]]
) -> Iterable[Any]:
    if not keys:
        return ()
    rows = [dict(zip(names, key, strict=True)) for key in keys]
    return connection.execute(statement, (json.dumps(rows),))


def _is_there(connection: Connection, event: Event) -> bool:
    key = (event.account, event.sequence, event.reference)
    return connection.execute(sql.WRITTEN, key).fetchone() is not None


def _save(connection: Connection, batch: Batch) -> None:
    created = batch.created.values()
    for statement, names, rows in (
        (sql.UPDATE_PASSES, (*sql.PASS_KEY, *sql.PASS_CHANGES), batch.changed.values()),
        (sql.INSERT_PASSES, Pass._fields, created),
        (sql.INSERT_EVENTS, Event._fields, batch.events),
        (sql.UPDATE_ACCOUNTS, ("name", *sql.ACCOUNT_CHANGES), batch.changed_accounts()),
    ):
        _write(connection, statement, names, map(operator.attrgetter(*names), rows))
    _write(connection, sql.INSERT_TIMERS, sql.TIMER, map(_timer, created))
    _write(connection, sql.DELETE_TIMERS, sql.TIMER, map(_timer, batch.rung))


def _write(
    connection: Connection,
    statement: str,
    names: Sequence[str],
    rows: Iterable[tuple[object, ...]],
) -> None:
    if listed := [dict(zip(names, row, strict=True)) for row in rows]:
        connection.execute(statement, (json.dumps(listed),))


def _timer(id_pass: Pass) -> tuple[str, int, str]:
    return id_pass.account, id_pass.expire_time_us, id_pass.id
