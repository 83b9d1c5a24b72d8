"""The store for one machine: a SQLite file, served by one process.

sqlite-utils keeps the schema; the hot path is explicit SQL on the same library's connection.
One connection writes, on whichever thread calls `commit`; every reading thread has its own.

Durability: WAL with `synchronous=FULL`, one fdatasync for a commit. An error before COMMIT, and
a full disk at any point, leave nothing behind (StoreUnavailable). An I/O error at COMMIT leaves
its outcome open, and a malformed file cannot be trusted: both are StoreBroken.
"""

import json
import os
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from idpass_server.batch import Batch, Needs, short_of_slots
from idpass_server.records import Account, Command, Event, Money, Pass
from idpass_server.refusals import StoreUnavailable
from idpass_server.store import (
    LIST_SCAN_ROWS,
    CannotOpen,
    Committed,
    ListQuery,
    Page,
    StoreBroken,
    Tell,
)
from idpass_server.store.sqlite_file import cannot_open, connect, lock, migrate, sqlite3

CHECKPOINT_PAGES: Final = 16_000
"""A WAL of 64 MB: the larger, the more commits share the writing of a page back to the file."""

# Each time a statement yields a row or ends, the interpreter's lock is let go and must be won
# back from the event loop. So the hot path runs one statement for each table and not one for each
# row: rows come and go as JSON arrays, in the order of the columns. jsonb_each hands each array
# on as it was parsed; json_each would have it parsed again for every column.


def _row(table: str, record: type[Account | Pass | Event]) -> str:
    return f"json_array({', '.join(f'{table}.{column}' for column in record._fields)})"


def _columns(count: int) -> str:
    return ", ".join(f"value ->> {index}" for index in range(count))


_LOAD: Final = f"""
    SELECT (
        SELECT json_group_array({_row("accounts", Account)}) FROM json_each(:accounts) AS key
        CROSS JOIN accounts ON accounts.name = key.value
    ), (
        SELECT json_group_array({_row("passes", Pass)}) FROM jsonb_each(:passes) AS key
        CROSS JOIN passes
        ON passes.account = key.value ->> 0 AND passes.id = key.value ->> 1
    ), (
        SELECT json_group_array({_row("events", Event)}) FROM jsonb_each(:receipts) AS key
        CROSS JOIN events
        ON events.account = key.value ->> 0 AND events.request_id = key.value ->> 1
    )"""
_INSERT_PASSES: Final = (
    f"INSERT INTO passes SELECT {_columns(len(Pass._fields))} FROM jsonb_each(?)"
)
_INSERT_EVENTS: Final = (
    f"INSERT INTO events SELECT {_columns(len(Event._fields))} FROM jsonb_each(?)"
)
_INSERT_TIMERS: Final = f"INSERT INTO timers SELECT {_columns(3)} FROM jsonb_each(?)"
_DELETE_TIMERS: Final = f"""
    DELETE FROM timers WHERE (account, expire_time_us, id_pass_id) IN (
        SELECT {_columns(3)} FROM jsonb_each(?))"""
_UPDATE_PASSES: Final = """
    UPDATE passes SET status = value ->> 2, fee_refunded = value ->> 3,
        superseded_by = value ->> 4, update_time_us = value ->> 5, consent_time_us = value ->> 6,
        end_time_us = value ->> 7, cancel_reason = value ->> 8, cancel_note = value ->> 9,
        caller = value ->> 10, event_sequence = value ->> 11
    FROM jsonb_each(?) WHERE passes.account = value ->> 0 AND passes.id = value ->> 1"""
_UPDATE_ACCOUNTS: Final = """
    UPDATE accounts SET slots_in_use = value ->> 1, charged_micros = value ->> 2,
        refunded_micros = value ->> 3, last_sequence = value ->> 4
    FROM jsonb_each(?) WHERE name = value ->> 0"""

_SELECT_ACCOUNT: Final = "SELECT * FROM accounts WHERE name = ?"
_SELECT_PASS: Final = "SELECT * FROM passes WHERE account = ? AND id = ?"
_SELECT_EVENT: Final = "SELECT * FROM events WHERE account = ? AND sequence = ?"
# An account's times follow its sequence.
_NEWEST_EVENT_TIME: Final = """
    SELECT max(event_time_us) FROM accounts
    CROSS JOIN events ON events.account = accounts.name
        AND events.sequence = accounts.last_sequence"""
_DUE: Final = """
    SELECT passes.* FROM accounts
    CROSS JOIN timers ON timers.account = accounts.name AND timers.expire_time_us <= :due_us
    CROSS JOIN passes ON passes.account = timers.account AND passes.id = timers.id_pass_id
    WHERE (:account IS NULL OR accounts.name = :account)
        AND (NOT :in_flight OR passes.end_time_us IS NULL)
    LIMIT :limit"""


class SqliteStore:
    """
    Args:
        path: of the database file, made when it does not exist.
        exclusive: refuse to share the file with another exclusive store. False is for commands
            that make one short change beside a running server.

    Attributes:
        migrated: the migrations that opening the file has applied.

    Raises:
        CannotOpen: another process serves the file, or it is not fit to be served.
    """

    def __init__(self, path: Path, *, exclusive: bool = True) -> None:
        self._path = path
        self._lock = lock(path) if exclusive else None
        try:
            self._writer = connect(path)
            try:
                self._writer.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
                self.migrated = migrate(self._writer)
            except BaseException as error:
                self._writer.close()
                if isinstance(error, sqlite3.Error):
                    raise CannotOpen(cannot_open(path, error)) from error
                raise
        except BaseException:
            self._unlock()
            raise
        self._local = threading.local()
        self._readers: list[Any] = []
        self._readers_lock = threading.Lock()

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)

    def close(self) -> None:
        """Ends all connections; the last one folds the WAL into the file."""
        for reader in self._readers:
            reader.close()
        self._writer.close()
        self._unlock()

    # -- writing

    def commit(
        self, commands: Sequence[Command], now_us: int, due_us: int | None = None
    ) -> Committed:
        with self._errors():
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                batch = self._load(commands, now_us if due_us is None else due_us)
                outcomes = batch.run(commands, now_us, due_us)
                self._save(batch)
            except BaseException:
                self._rollback()
                raise
        self._commit()
        return Committed(outcomes, {a.name: a.last_sequence for a in batch.changed_accounts()})

    def check(self) -> None:
        with self._errors():
            self._writer.execute("BEGIN IMMEDIATE")
            self._writer.execute("ROLLBACK")

    def _commit(self) -> None:
        try:
            self._writer.execute("COMMIT")
        except sqlite3.Error as error:
            self._rollback()
            if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
                raise StoreUnavailable("the disk is full; nothing was changed") from error
            raise StoreBroken(f"COMMIT failed: {error}", outcome_unknown=True) from error

    def _rollback(self) -> None:
        # After an I/O error or a full disk the transaction is gone already.
        if self._writer.in_transaction:
            self._writer.execute("ROLLBACK")

    def _load(self, commands: Sequence[Command], due_us: int) -> Batch:
        needs = Needs.of(commands)
        keys = {name: json.dumps(value) for name, value in needs._asdict().items()}
        rows = [json.loads(array) for array in self._writer.execute(_LOAD, keys).fetchone()]
        accounts = list(map(Account._make, rows[0]))
        passes = list(map(Pass._make, rows[1]))
        receipts = list(map(Event._make, rows[2]))
        preceding: list[Event] = []
        for receipt in receipts:
            passes += map(Pass._make, self._rows(_SELECT_PASS, receipt.account, receipt.id_pass_id))
            before = self._rows(_SELECT_EVENT, receipt.account, receipt.sequence - 1)
            preceding += map(Event._make, before)
        overdue = [
            late
            for account, wanted in short_of_slots(accounts, commands).items()
            for late in _due(self._writer, due_us, wanted, account, in_flight=True)
        ]
        return Batch(accounts, passes, receipts, preceding, overdue)

    def _save(self, batch: Batch) -> None:
        self._write(_INSERT_PASSES, batch.created.values())
        self._write(_INSERT_TIMERS, map(_timer, batch.created.values()))
        self._write(
            _UPDATE_PASSES,
            (
                (
                    p.account,
                    p.id,
                    p.status,
                    p.fee_refunded,
                    p.superseded_by,
                    p.update_time_us,
                    p.consent_time_us,
                    p.end_time_us,
                    p.cancel_reason,
                    p.cancel_note,
                    p.caller,
                    p.event_sequence,
                )
                for p in batch.changed.values()
            ),
        )
        self._write(_INSERT_EVENTS, batch.events)
        self._write(_DELETE_TIMERS, map(_timer, batch.rung))
        self._write(
            _UPDATE_ACCOUNTS,
            (
                (a.name, a.slots_in_use, a.charged_micros, a.refunded_micros, a.last_sequence)
                for a in batch.changed_accounts()
            ),
        )

    def _write(self, sql: str, rows: Iterable[tuple[object, ...]]) -> None:
        if listed := list(rows):
            self._writer.execute(sql, (json.dumps(listed),))

    def _rows(self, sql: str, *parameters: object) -> list[Any]:
        return list(self._writer.execute(sql, parameters))

    # -- other processes: none serve the same file

    def claim_sweep(self, now_us: int) -> bool:  # noqa: ARG002
        return True

    def listen(self, watched: Callable[[], Collection[str]], tell: Tell) -> None:
        pass

    # -- accounts, for the operator

    def create_account(self, account: Account) -> bool:
        with self._errors():
            marks = ", ".join("?" * len(account))
            cursor = self._writer.execute(
                f"INSERT INTO accounts VALUES ({marks}) ON CONFLICT DO NOTHING", account
            )
        return bool(cursor.rowcount)

    def set_account(self, name: str, *, slot_limit: int | None, fee: Money | None) -> bool:
        with self._errors():
            cursor = self._writer.execute(
                """UPDATE accounts SET slot_limit = coalesce(?, slot_limit),
                    currency = coalesce(?, currency), fee_micros = coalesce(?, fee_micros)
                WHERE name = ? AND (last_sequence = 0 OR currency = coalesce(?, currency))""",
                (
                    slot_limit,
                    fee.currency if fee else None,
                    fee.micros if fee else None,
                    name,
                    fee.currency if fee else None,
                ),
            )
        return bool(cursor.rowcount)

    # -- reading

    def get_pass(self, account: str, pass_id: str) -> Pass | None:
        with self._errors():
            row = self._reader.execute(_SELECT_PASS, (account, pass_id)).fetchone()
        return Pass._make(row) if row else None

    def get_account(self, name: str) -> Account | None:
        with self._errors():
            row = self._reader.execute(_SELECT_ACCOUNT, (name,)).fetchone()
        return Account._make(row) if row else None

    def list_passes(self, query: ListQuery) -> Page:
        start = "AND id < :before_id" if query.before_id else ""
        parameters = {
            "account": query.account,
            "before_id": query.before_id,
            "statuses": json.dumps(query.statuses) if query.statuses else None,
            "idle_before_us": query.idle_before_us,
            "limit": query.limit,
            "scan": LIST_SCAN_ROWS,
        }
        candidates = f"FROM passes WHERE account = :account {start} ORDER BY id DESC"
        with self._errors():
            passes = [
                Pass._make(row)
                for row in self._reader.execute(
                    f"""SELECT * FROM (SELECT * {candidates} LIMIT :scan)
                    WHERE (:statuses IS NULL
                            OR status IN (SELECT value FROM json_each(:statuses)))
                        AND (:idle_before_us IS NULL OR update_time_us < :idle_before_us)
                    LIMIT :limit + 1""",
                    parameters,
                )
            ]
            if len(passes) > query.limit:
                del passes[query.limit :]
                return Page(passes, passes[-1].id)
            last_scanned = self._reader.execute(
                f"SELECT id {candidates} LIMIT 1 OFFSET :scan - 1", parameters
            ).fetchone()
        return Page(passes, last_scanned[0] if last_scanned else None)

    def events(
        self, account: str, after_sequence: int, limit: int, pass_id: str | None = None
    ) -> list[Event]:
        if pass_id is not None:
            return self._events_of_pass(account, after_sequence, limit, pass_id)
        with self._errors():
            return [
                Event._make(row)
                for row in self._reader.execute(
                    "SELECT * FROM events WHERE account = ? AND sequence > ? "
                    "ORDER BY sequence LIMIT ?",
                    (account, after_sequence, limit),
                )
            ]

    def _events_of_pass(
        self, account: str, after_sequence: int, limit: int, pass_id: str
    ) -> list[Event]:
        with self._errors():
            return [
                Event._make(row)
                for row in self._reader.execute(
                    """WITH RECURSIVE history (sequence) AS (
                        SELECT event_sequence FROM passes WHERE account = :account AND id = :id
                        UNION ALL
                        SELECT events.previous_sequence FROM history
                        JOIN events ON events.account = :account
                            AND events.sequence = history.sequence
                        WHERE events.previous_sequence > :after_sequence
                    )
                    SELECT events.* FROM history
                    JOIN events ON events.account = :account
                        AND events.sequence = history.sequence
                    WHERE events.sequence > :after_sequence
                    ORDER BY events.sequence LIMIT :limit""",
                    {
                        "account": account,
                        "id": pass_id,
                        "after_sequence": after_sequence,
                        "limit": limit,
                    },
                )
            ]

    def newest_event_time_us(self) -> int | None:
        with self._errors():
            newest: int | None = self._reader.execute(_NEWEST_EVENT_TIME).fetchone()[0]
        return newest

    def due(self, due_us: int, limit: int, account: str | None = None) -> list[Pass]:
        with self._errors():
            return _due(self._reader, due_us, limit, account)

    @property
    def _reader(self) -> Any:
        """This thread's own connection."""
        reader = getattr(self._local, "reader", None)
        if reader is None:
            reader = self._local.reader = connect(self._path)
            reader.execute("PRAGMA query_only = true")
            with self._readers_lock:
                self._readers.append(reader)
        return reader

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Driver errors as this service's own."""
        try:
            yield
        except sqlite3.Error as error:
            name = getattr(error, "sqlite_errorname", "") or ""
            if name.startswith("SQLITE_FULL"):
                raise StoreUnavailable("the disk is full; nothing was changed") from error
            if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
                raise StoreUnavailable("the database is busy; nothing was changed") from error
            if name.startswith(("SQLITE_IOERR", "SQLITE_CORRUPT", "SQLITE_NOTADB")):
                raise StoreBroken(f"{self._path} cannot be read or written: {error}") from error
            raise


def _due(
    connection: Any, due_us: int, limit: int, account: str | None, *, in_flight: bool = False
) -> list[Pass]:
    parameters = {"due_us": due_us, "limit": limit, "account": account, "in_flight": in_flight}
    return [Pass._make(row) for row in connection.execute(_DUE, parameters)]


def _timer(id_pass: Pass) -> tuple[str, int, str]:
    return id_pass.account, id_pass.expire_time_us, id_pass.id
