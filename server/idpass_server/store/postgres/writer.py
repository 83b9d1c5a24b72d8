"""Commits a batch to PostgreSQL: one transaction in two round trips.

The first locks the accounts and loads what the commands need; the second saves what was decided and
commits. Accounts are locked in the order of their names, so that no two batches deadlock, and
everything else is read after they are locked. `transaction` has the statements; this module decides
what to do when one fails.

A busy account, one that another process keeps locked, does not block the others. A batch queues for
its accounts' locks for LOCK_WAIT_S, longer than other servers hold theirs. After that it takes the
free accounts and leaves the busy ones, in one more round trip; later batches with a busy account do
the same at once, until it is free.

When the connection is lost at COMMIT, its outcome is unknown. The batch then runs again: it waits
for the accounts' locks, which the lost transaction held to its end, and looks for the first event
that it wrote before. If the event is there, the batch was committed as decided then; if not, it is
decided anew. So even a caller without a request_id gets the true answer. Every transaction takes a
lock and so writes to the WAL: with a synchronous standby, COMMIT returns when the standby has
everything that the transaction has seen, replays included.
"""

import itertools
import random
import time
from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

import psycopg

from idpass_server.rules.commands import Command
from idpass_server.rules.records import Event
from idpass_server.rules.refusals import StoreUnavailable
from idpass_server.store import Committed
from idpass_server.store.observing import NOBODY, StoreObserver
from idpass_server.store.postgres import sql, transaction
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

CONFLICT_ATTEMPTS: Final = 10
"""Number of times that a batch is tried when transactions conflict."""
SETTLE_S: Final = 20.0
"""How long to keep checking whether an unacknowledged COMMIT took effect, seconds since its batch
began."""
LOCK_WAIT_S: Final = 0.1
"""How long a batch waits for its accounts' locks before it goes on without busy ones, seconds."""
LOAD_S: Final = 4.0
"""Timeout of the first round trip, seconds; short enough for callers to hear that nothing was
changed."""
CHECK_S: Final = 2.0
"""Timeout of a check's transaction, seconds."""
_BUSY: Final = StoreUnavailable(
    "the account is locked by another change in the database; nothing was changed"
)


class _Asked(NamedTuple):
    """A batch to commit; fields as the arguments of Batch.run."""

    commands: Sequence[Command]
    now_us: int
    due_us: int


class _Unsettled(NamedTuple):
    """A batch whose COMMIT may have taken effect.

    Attributes:
        committed: what to answer if it did.
        written: its first event, which is stored exactly if it did.
    """

    committed: Committed
    written: Event


class _OutcomeUnknown(Exception):
    def __init__(self, unsettled: _Unsettled, cause: psycopg.Error) -> None:
        super().__init__()
        self.unsettled = unsettled
        self.cause = cause


class Writer:
    """Commits batches, one at a time.

    Args:
        link: the connection, used by nobody else.
        observer: is told of commits.
    """

    def __init__(self, link: Link, observer: StoreObserver = NOBODY) -> None:
        self._link = link
        self._observer = observer
        self._busy: set[str] = set()
        self._disk_full = False

    def commit(
        self, commands: Sequence[Command], now_us: int, due_us: int | None = None
    ) -> Committed:
        """Commits a batch; arguments and errors as Store.commit."""
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
        """Finds out whether a COMMIT took effect, and commits the batch if it did not."""
        for attempt in itertools.count(1):
            cause: Exception = unknown.cause
            try:
                committed = self._attempt(asked, unknown.unsettled)
                stored = committed is unknown.unsettled.committed
                self._observer.settled("stored" if stored else "run_again")
                return committed  # noqa: TRY300 beside what it says of the attempt
            except _OutcomeUnknown as again:
                unknown = again
            except (psycopg.Error, StoreUnavailable) as error:
                cause = error
            if time.monotonic() >= give_up_s:
                self._observer.settled("unknown")
                raise StoreUnavailable(
                    "the connection to the database was lost; whether the change was stored is "
                    "not known",
                    outcome_unknown=True,
                ) from said(cause, self._link.url)
            _pause(attempt)
        raise AssertionError("counted to infinity")

    def check(self) -> None:
        """Runs a transaction that changes nothing but writes to the WAL; errors as Store.check.

        Its COMMIT waits for everything that any other would. After a change has met a full disk,
        the check also tries whether there is room again.
        """
        self._link.run(self._try_check)

    def _try_check(self, connection: Connection) -> None:
        self._link.warnings.clear()
        if self._disk_full:
            for statement in sql.TAKE_ROOM:
                connection.execute(statement)
            self._disk_full = False
        with connection.hurried(CHECK_S):
            transaction.prove(connection, connection.execute(sql.PROVE).fetchone())
        if self._link.warnings:
            raise NotConfirmed("; ".join(self._link.warnings))

    def _worth_another(self, error: psycopg.Error, attempt: int, *, skip_busy: bool) -> bool:
        """Whether to try again after an error that changed nothing."""
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
        begun_s = time.perf_counter()
        steps: tuple[float, float, float] | None = None
        try:
            connection.patience_s = LOAD_S
            with connection.pipeline():
                connection.execute("BEGIN")
                busy: Collection[str] = frozenset()
                if unsettled is not None:
                    busy = unsettled.committed.busy
                elif skip_busy:
                    busy = transaction.lock_free(connection, _accounts(asked.commands))
                free = [each for each in asked.commands if each.account not in busy]
                batch = transaction.load(connection, free, asked.due_us)
                loaded_s = time.perf_counter()
                if unsettled is not None and transaction.is_stored(connection, unsettled.written):
                    committed = unsettled.committed
                else:
                    decided = iter(batch.run(free, asked.now_us, asked.due_us))
                    outcomes = [
                        _BUSY if each.account in busy else next(decided) for each in asked.commands
                    ]
                    committed = Committed.of(batch, outcomes, busy)
                    committing = _Unsettled(committed, batch.events[0]) if batch.events else None
                    decided_s = time.perf_counter()
                    transaction.save(connection, batch)
                    saved_s = time.perf_counter()
                    steps = (loaded_s - begun_s, decided_s - loaded_s, saved_s - decided_s)
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
        if steps is not None and committed.events:
            self._observer.committed(*steps, time.perf_counter() - saved_s)
        return committed


def _accounts(commands: Sequence[Command]) -> set[str]:
    return {command.account for command in commands}


def _pause(attempt: int) -> None:
    if attempt > 1:
        time.sleep(random.uniform(0.5, 1) * min(0.005 * 2**attempt, 1.0))  # noqa: S311
