"""How a batch is committed to PostgreSQL: one transaction in two round trips.

The first locks the accounts and loads what the commands need, the second saves what was decided
and commits. Accounts are locked in the order of their names, so that no two batches wait for
each other, and everything else is read after they are locked.

An account that somebody else keeps locked does not hold up the others. A batch queues for its
accounts for LOCK_WAIT_S, longer than servers that share them need for theirs. After that it takes
those that are free and leaves the rest, in one round trip more; and so, without waiting, does each
batch with one of those, until it is free.

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

from idpass_server.rules.batch import Batch, Needs, short_of_slots
from idpass_server.rules.commands import Command
from idpass_server.rules.records import Account, Event, Pass
from idpass_server.rules.refusals import StoreUnavailable
from idpass_server.store import Committed
from idpass_server.store.postgres import sql
from idpass_server.store.postgres.errors import (
    CONFLICT,
    DISK_FULL,
    LOCKED,
    OUTCOME_UNKNOWN,
    NoAnswer,
    NotConfirmed,
    refused,
    said,
)
from idpass_server.store.postgres.link import PATIENCE_S, Connection, Link
from idpass_server.store.postgres.session import DURABLE, POOLED

CONFLICT_ATTEMPTS: Final = 10
SETTLE_S: Final = 20.0
"""Time to learn what became of a COMMIT, from when its batch began, seconds."""
LOCK_WAIT_S: Final = 0.1
"""Time that a batch waits for its accounts before it goes on with those that are free, seconds."""
TABLE_WAIT_S: Final = 2
"""Time that it then waits for a locked table, seconds."""
LOAD_S: Final = 4.0
"""Time for the first round trip, after which nothing was changed and callers still hear of it,
seconds."""
CHECK_S: Final = 2.0
"""Time for a check to be committed, seconds."""
_BUSY: Final = StoreUnavailable(
    "the account is locked by another change in the database; nothing was changed"
)


class _Asked(NamedTuple):
    """A batch to commit. Args: now_us, due_us: as Batch.run."""

    commands: Sequence[Command]
    now_us: int
    due_us: int


class _Unsettled(NamedTuple):
    """A batch whose COMMIT may have taken place."""

    committed: Committed
    written: Event
    """Its first event: in the database if it did."""


class _OutcomeUnknown(Exception):
    def __init__(self, unsettled: _Unsettled, cause: psycopg.Error) -> None:
        super().__init__()
        self.unsettled = unsettled
        self.cause = cause


class Writer:
    """Commits batches, one after the other. Args: link: its own."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._busy: set[str] = set()
        self._disk_full = False

    def commit(
        self, commands: Sequence[Command], now_us: int, due_us: int | None = None
    ) -> Committed:
        """As Store.commit."""
        give_up_s = time.monotonic() + SETTLE_S
        skip_busy = bool(self._busy) and not self._busy.isdisjoint(_accounts(commands))
        asked = _Asked(commands, now_us, now_us if due_us is None else due_us)
        for attempt in itertools.count(1):
            try:
                committed = self._attempt(asked, skip_busy=skip_busy)
                break
            except _OutcomeUnknown as unknown:
                committed = self._settle(asked, unknown, give_up_s)
                break
            except psycopg.Error as error:
                if not self._worth_another(error, attempt, skip_busy=skip_busy):
                    self._disk_full = self._disk_full or error.sqlstate == DISK_FULL
                    raise refused(error, self._link.url) from said(error, self._link.url)
                skip_busy = skip_busy or error.sqlstate == LOCKED
            _pause(attempt)
        if self._busy or committed.busy:
            self._busy -= _accounts(commands)
            self._busy |= set(committed.busy)
        return committed

    def _settle(self, asked: _Asked, unknown: _OutcomeUnknown, give_up_s: float) -> Committed:
        """Finds out what became of a COMMIT, and commits what was not."""
        for attempt in itertools.count(1):
            cause: Exception = unknown.cause
            try:
                return self._attempt(asked, unknown.unsettled)
            except _OutcomeUnknown as again:
                unknown = again
            except (psycopg.Error, StoreUnavailable) as error:
                cause = error
            if time.monotonic() >= give_up_s:
                raise StoreUnavailable(
                    "the connection to the database was lost; whether the change was stored is "
                    "not known",
                    outcome_unknown=True,
                ) from said(cause, self._link.url)
            _pause(attempt)
        raise AssertionError("counted to infinity")

    def check(self) -> None:
        """As Store.check: a transaction that changes nothing but writes to the log, so that its
        COMMIT waits for what any other would wait for. Once a change has met a full disk, whether
        there is room again is tried as well.
        """
        self._link.run(self._try_check)

    def _try_check(self, connection: Connection) -> None:
        self._link.warnings.clear()
        if self._disk_full:
            for statement in sql.TAKE_ROOM:
                connection.execute(statement)
            self._disk_full = False
        with connection.hurried(CHECK_S):
            _prove(connection, connection.execute(sql.PROVE).fetchone())
        if self._link.warnings:
            raise NotConfirmed("; ".join(self._link.warnings))

    def _worth_another(self, error: psycopg.Error, attempt: int, *, skip_busy: bool) -> bool:
        """Whether to try again after an error that left nothing behind."""
        if error.sqlstate in CONFLICT:
            return attempt < CONFLICT_ATTEMPTS
        if error.sqlstate == LOCKED:
            return not skip_busy
        return self._link.was_lost and not isinstance(error, NoAnswer) and attempt == 1

    def _attempt(
        self, asked: _Asked, unsettled: _Unsettled | None = None, *, skip_busy: bool = False
    ) -> Committed:
        connection = self._link.connection()
        committing = unsettled
        try:
            connection.patience_s = LOAD_S
            with connection.pipeline():
                connection.execute("BEGIN")
                if unsettled is not None:
                    busy = unsettled.committed.busy
                else:
                    busy = _lock_free(connection, asked.commands) if skip_busy else frozenset()
                free = [each for each in asked.commands if each.account not in busy]
                batch = _load(connection, free, asked.due_us)
                if unsettled is not None and _is_there(connection, unsettled.written):
                    committed = unsettled.committed
                else:
                    outcomes = iter(batch.run(free, asked.now_us, asked.due_us))
                    committed = Committed(
                        [
                            _BUSY if each.account in busy else next(outcomes)
                            for each in asked.commands
                        ],
                        {a.name: a.last_sequence for a in batch.changed_accounts()},
                        busy,
                    )
                    committing = _Unsettled(committed, batch.events[0]) if batch.events else None
                    _save(connection, batch)
                self._link.warnings.clear()
                connection.patience_s = PATIENCE_S
                connection.execute("COMMIT")
            if self._link.warnings:
                raise NotConfirmed("; ".join(self._link.warnings))
        except BaseException as error:
            self._link.reset(error)
            if committing is not None and isinstance(error, psycopg.Error):
                said_nothing = self._link.was_lost or error.sqlstate in OUTCOME_UNKNOWN
                if said_nothing or isinstance(error, NotConfirmed):
                    raise _OutcomeUnknown(committing, error) from error
            raise
        return committed


def _accounts(commands: Sequence[Command]) -> set[str]:
    return {command.account for command in commands}


def _pause(attempt: int) -> None:
    if attempt > 1:
        time.sleep(random.uniform(0.5, 1) * min(0.005 * 2**attempt, 1.0))  # noqa: S311


def _load(connection: Connection, commands: Sequence[Command], due_us: int) -> Batch:
    needs = Needs.of(commands)
    locked = connection.execute(sql.LOCK, (needs.accounts,))
    found = _query(connection, sql.LOAD_PASSES, sql.PASS_KEY, needs.passes)
    used = _query(connection, sql.LOAD_RECEIPTS, sql.RECEIPT_KEY, needs.receipts)
    accounts = []
    for session, synchronous_commit, *account in locked:
        _prove(connection, (session, synchronous_commit))
        accounts.append(Account._make(account))
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


def _prove(connection: Connection, told: tuple[int, str] | None) -> None:
    """
    Args:
        told: from within a transaction: its session, and its synchronous_commit.

    Raises:
        StoreUnavailable: its OK would not mean that it is on disk.
    """
    if told is None:
        raise StoreUnavailable("the table sweep_lease is empty; run: idpass-server audit")
    session, synchronous_commit = told
    if session != connection.session or synchronous_commit not in DURABLE:
        connection.close()
        raise StoreUnavailable(f"{POOLED}; nothing was changed")


def _lock_free(connection: Connection, commands: Sequence[Command]) -> frozenset[str]:
    """Locks those of the accounts that nobody else holds. Returns the others."""
    # What still waits is for a table: a migration has it for a moment.
    connection.execute(f"SET LOCAL lock_timeout = '{TABLE_WAIT_S}s'")
    names = _accounts(commands)
    free = connection.execute(sql.LOCK_FREE, (sorted(names),))
    return frozenset(names - {account for _, _, account, *_ in free})


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
