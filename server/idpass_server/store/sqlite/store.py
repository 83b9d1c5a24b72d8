"""The store for one machine: a SQLite file, served by one process.

sqlite-utils keeps the schema; the hot path is explicit SQL on the same library's connection.
One connection writes, on whichever thread calls `commit`; every reading thread has its own.

Durability: WAL with `synchronous=FULL`, one fdatasync for a commit; what is found at the start is
on disk before it is answered (`sqlite_wal`). An error before COMMIT, and a full disk at any point,
leave nothing behind (StoreUnavailable). An I/O error at COMMIT leaves its outcome open, and a
malformed file cannot be trusted: both are StoreBroken. So is a file that the path no longer leads
to: an answer would be about what nobody finds again.
"""

import json
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import structlog

from idpass_server.rules.batch import Batch, Needs, short_of_slots
from idpass_server.rules.commands import Command
from idpass_server.rules.records import Account, Event, Money, Pass
from idpass_server.rules.refusals import StoreUnavailable
from idpass_server.store import LIST_SCAN_ROWS, Committed, ListQuery, Page, StoreBroken, Tell
from idpass_server.store.sqlite import sql
from idpass_server.store.sqlite.file import BUSY_TIMEOUT_S, connect, opened, sqlite3
from idpass_server.store.sqlite.wal import mark

CHECK_TIMEOUT_S: Final = 0.2
"""Time that a check waits for another process's lock, seconds."""
WAL_CHECK_S: Final = 1.0
CHECKPOINT_PAGES: Final = 16_000
"""A WAL of 64 MB: the larger, the more commits share the writing of a page back to the file."""
MAX_WAL_PAGES: Final = 16 * CHECKPOINT_PAGES
"""A WAL of 1 GB that cannot be folded into the file is a fault that health tells: the disk fills
up, and reads and the next start slow down."""

# Errors by what they mean here. After the former nothing is lost; a file of the latter cannot be
# trusted.
_UNAVAILABLE: Final = {
    "SQLITE_FULL": "the disk is full",
    "SQLITE_BUSY": "the database is busy",
    "SQLITE_LOCKED": "the database is busy",
    "SQLITE_PROTOCOL": "the database is busy",
    "SQLITE_READONLY": "the database cannot be written",
    "SQLITE_CANTOPEN": "the database cannot be opened",
    "SQLITE_PERM": "the database cannot be opened",
    "SQLITE_NOMEM": "the server is out of memory",
}
_BROKEN: Final = ("SQLITE_IOERR", "SQLITE_CORRUPT", "SQLITE_NOTADB")

log = structlog.get_logger()


class SqliteStore:
    """
    Args:
        path: of the database file.
        exclusive: keep others from changing the file, to serve it or to copy it. False is for
            commands that make one short change, beside a server or not.
        migrates: bring the schema up to date, and not only check it.
        create: make the file where there is none.

    Attributes:
        migrated: the migrations that opening the file has applied.
        failed_checkpoints: how many checks have found that the WAL cannot be folded into the file.

    Raises:
        CannotOpen: another process serves the file, or it is not fit to be served.
    """

    def __init__(
        self,
        path: Path,
        *,
        exclusive: bool = True,
        migrates: bool = True,
        create: bool = True,
    ) -> None:
        self._path = path
        self._hold, self._identity, self._writer, self.migrated = opened(
            path, exclusive=exclusive, migrates=migrates, create=create
        )
        self._writer.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        self.failed_checkpoints = 0
        self._next_wal_check_s = 0.0  # on time.monotonic()
        self._local = threading.local()
        self._readers: list[Any] = []
        self._readers_lock = threading.Lock()

    def close(self) -> None:
        """Ends all connections. The last one folds the WAL into the file, unless the names lead
        to other files by now.
        """
        if self._hold is not None and self._identity.changed():
            self._hold.leave_files_alone()
        for reader in self._readers:
            reader.close()
        self._writer.close()
        if self._hold is not None:
            self._hold.close()

    # -- whether all is well

    def check(self) -> None:
        """Proves that a change could be stored now; called on the thread that calls `commit`.

        Raises:
            StoreUnavailable: not now; the message says why.
            StoreBroken: the file is no longer the one that was opened, or is damaged.
        """
        self._same_file()
        with self._errors():
            self._wait_for_locks(CHECK_TIMEOUT_S)
            try:
                self._writer.execute("BEGIN IMMEDIATE")
                self._writer.execute("ROLLBACK")
            finally:
                self._wait_for_locks(BUSY_TIMEOUT_S)
        if self._hold is not None:
            self._hold.prove_room()
        self._check_wal()

    def _wait_for_locks(self, timeout_s: float) -> None:
        # The driver's own method takes whole seconds.
        self._writer.execute(f"PRAGMA busy_timeout = {round(timeout_s * 1_000)}")

    def _check_wal(self) -> None:
        """Commits fold a WAL that has grown into the file. Where that fails they do not say so.

        Raises:
            StoreUnavailable: the WAL has passed its bound.
        """
        if time.monotonic() < self._next_wal_check_s:
            return
        with self._errors():
            mark(self._writer)
            _, pages, _ = self._writer.execute("PRAGMA wal_checkpoint(NOOP)").fetchone()
            cause = self._checkpoint() if pages > CHECKPOINT_PAGES else None
        if cause is not None:
            self.failed_checkpoints += 1
            failed = self.failed_checkpoints
            log.error("checkpoint_failed", cause=cause, wal_pages=pages, failed=failed)
            if pages > MAX_WAL_PAGES:
                raise StoreUnavailable(
                    f"the WAL cannot be folded into the database: {cause}; nothing was changed"
                )
        self._next_wal_check_s = time.monotonic() + WAL_CHECK_S

    def _checkpoint(self) -> str | None:
        """Folds the WAL into the file. Returns why it could not be, or None."""
        try:
            _, pages, done = self._writer.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        except sqlite3.OperationalError as error:
            return str(error)
        return None if done == pages else "a reader needs what it holds"

    def _same_file(self, *, outcome_unknown: bool = False) -> None:
        changed = self._identity.changed()
        if changed is not None:
            raise StoreBroken(changed, outcome_unknown=outcome_unknown)

    # -- writing

    def commit(
        self, commands: Sequence[Command], now_us: int, due_us: int | None = None
    ) -> Committed:
        self._check_wal()
        with self._errors():
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                batch = self._load(commands, now_us if due_us is None else due_us)
                outcomes = batch.run(commands, now_us, due_us)
                self._save(batch)
                self._same_file()
            except BaseException:
                self._rollback()
                raise
        self._commit()
        self._same_file(outcome_unknown=True)
        return Committed(outcomes, {a.name: a.last_sequence for a in batch.changed_accounts()})

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
        rows = [json.loads(array) for array in self._writer.execute(sql.LOAD, keys).fetchone()]
        accounts = list(map(Account._make, rows[0]))
        passes = list(map(Pass._make, rows[1]))
        receipts = list(map(Event._make, rows[2]))
        preceding: list[Event] = []
        for receipt in receipts:
            passes += map(
                Pass._make, self._rows(sql.SELECT_PASS, receipt.account, receipt.id_pass_id)
            )
            before = self._rows(sql.SELECT_EVENT, receipt.account, receipt.sequence - 1)
            preceding += map(Event._make, before)
        overdue = [
            late
            for account, wanted in short_of_slots(accounts, commands).items()
            for late in _due(self._writer, due_us, wanted, account, in_flight=True)
        ]
        return Batch(accounts, passes, receipts, preceding, overdue)

    def _save(self, batch: Batch) -> None:
        self._write(sql.INSERT_PASSES, batch.created.values())
        self._write(sql.INSERT_TIMERS, map(_timer, batch.created.values()))
        self._write(
            sql.UPDATE_PASSES,
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
        self._write(sql.INSERT_EVENTS, batch.events)
        self._write(sql.DELETE_TIMERS, map(_timer, batch.rung))
        self._write(
            sql.UPDATE_ACCOUNTS,
            (
                (
                    a.name,
                    a.slots_in_use,
                    a.charged_micros,
                    a.refunded_micros,
                    a.last_sequence,
                    a.registration_day,
                    a.registrations_of_day,
                )
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
        return self._changed(sql.INSERT_ACCOUNT, account)

    def set_account(
        self,
        name: str,
        *,
        slot_limit: int | None,
        fee: Money | None,
        registrations_per_day: int | None = None,
    ) -> bool:
        currency, fee_micros = fee or (None, None)
        values = {
            "name": name,
            "slot_limit": slot_limit,
            "currency": currency,
            "fee_micros": fee_micros,
            "registrations_per_day": registrations_per_day,
        }
        return self._changed(sql.SET_ACCOUNT, values)

    def _changed(self, statement: str, parameters: Any) -> bool:
        with self._errors():
            changed = bool(self._writer.execute(statement, parameters).rowcount)
        self._same_file(outcome_unknown=True)
        return changed

    # -- reading

    def get_pass(self, account: str, pass_id: str) -> Pass | None:
        with self._errors():
            row = self._reader.execute(sql.SELECT_PASS, (account, pass_id)).fetchone()
        return Pass._make(row) if row else None

    def get_account(self, name: str) -> Account | None:
        with self._errors():
            row = self._reader.execute(sql.SELECT_ACCOUNT, (name,)).fetchone()
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
        with self._errors():
            rows = self._reader.execute(sql.LIST.format(start=start), parameters)
            passes = list(map(Pass._make, rows))
            if len(passes) > query.limit:
                del passes[query.limit :]
                return Page(passes, passes[-1].id)
            statement = sql.LAST_SCANNED.format(start=start)
            last_scanned = self._reader.execute(statement, parameters).fetchone()
        return Page(passes, last_scanned[0] if last_scanned else None)

    def events(
        self, account: str, after_sequence: int, limit: int, pass_id: str | None = None
    ) -> list[Event]:
        with self._errors():
            if pass_id is None:
                rows = self._reader.execute(sql.SELECT_EVENTS, (account, after_sequence, limit))
            else:
                values = {"account": account, "after_sequence": after_sequence, "limit": limit}
                rows = self._reader.execute(sql.HISTORY, values | {"id": pass_id})
            return list(map(Event._make, rows))

    def newest_event_time_us(self) -> int | None:
        with self._errors():
            newest: int | None = self._reader.execute(sql.NEWEST_EVENT_TIME).fetchone()[0]
        return newest

    def due(self, due_us: int, limit: int, account: str | None = None) -> list[Pass]:
        with self._errors():
            return _due(self._reader, due_us, limit, account)

    @property
    def _reader(self) -> Any:
        """This thread's own connection."""
        reader = getattr(self._local, "reader", None)
        if reader is None:
            reader = connect(self._path)
            with self._readers_lock:
                self._readers.append(reader)
            self._same_file()
            reader.execute("PRAGMA query_only = true")
            self._local.reader = reader
        return reader

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Driver errors as this service's own."""
        try:
            yield
        except sqlite3.Error as error:
            name = getattr(error, "sqlite_errorname", "") or ""
            for prefix, why in _UNAVAILABLE.items():
                if name.startswith(prefix):
                    raise StoreUnavailable(f"{why}; nothing was changed") from error
            if name.startswith(_BROKEN):
                raise StoreBroken(f"{self._path} cannot be read or written: {error}") from error
            raise


def _due(
    connection: Any, due_us: int, limit: int, account: str | None, *, in_flight: bool = False
) -> list[Pass]:
    parameters = {"due_us": due_us, "limit": limit, "account": account, "in_flight": in_flight}
    return [Pass._make(row) for row in connection.execute(sql.DUE, parameters)]


def _timer(id_pass: Pass) -> tuple[str, int, str]:
    return id_pass.account, id_pass.expire_time_us, id_pass.id
