"""The store for one machine: a SQLite file, served by one process.

sqlite-utils keeps the schema; the hot path is explicit SQL on a connection of the same library.
One connection writes, on the thread that calls `commit`; each reading thread has its own.

Durability: WAL with `synchronous=FULL`, one fdatasync per commit; what the WAL holds at the start
is synced before it is served (see `wal`). An error before COMMIT, or a full disk at any point,
changes nothing (StoreUnavailable). An I/O error at COMMIT leaves its outcome unknown, and a damaged
file cannot be trusted: both are StoreBroken. So is a path that no longer leads to the open file,
because its answers would be about data that nobody will find again.
"""

import json
import os
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from idpass_server.rules.batch import Batch, Needs, Replays, short_of_slots
from idpass_server.rules.commands import Command
from idpass_server.rules.positions import Gap
from idpass_server.rules.records import Account, Event, Money, Pass
from idpass_server.rules.refusals import StoreUnavailable
from idpass_server.store import (
    LIST_SCAN_ROWS,
    PROGRAM,
    Committed,
    ListQuery,
    Page,
    Software,
    StoreBroken,
    Tell,
    accounts,
    admin_log,
    either,
    history,
    purging,
    retention,
    rows,
)
from idpass_server.store.admin_log import State
from idpass_server.store.history import NewHistory
from idpass_server.store.observing import NOBODY, Disk, StoreObserver
from idpass_server.store.retention import Found, Wanted
from idpass_server.store.sqlite import sql
from idpass_server.store.sqlite.checkpoints import Checkpoints
from idpass_server.store.sqlite.file import (
    BUSY_TIMEOUT_S,
    connect,
    own_errors,
    sqlite3,
    wait_for_locks,
)
from idpass_server.store.sqlite.news import Listener
from idpass_server.store.sqlite.opening import opened
from idpass_server.store.sqlite.schema import SCHEMA
from idpass_server.store.sqlite.wal import mark
from idpass_server.store.webhooks import Dialect, Execute, WebhookTables

CHECK_TIMEOUT_S: Final = 0.2
"""Timeout of a check for another process's lock, seconds."""

T = TypeVar("T")


class SqliteStore:
    """A SQLite file; methods as in `Store`.

    Args:
        path: of the file.
        exclusive: keep other processes from changing the file, to serve or copy it. False is for
            commands that make one short change, beside a server or not.
        migrates: bring the schema up to date instead of only checking it.
        create: create the file if it does not exist.
        observer: is told what the store does.

    Attributes:
        migrated: names of the migrations that opening the file applied.
        webhooks: endpoints of webhooks, and what has become of their events.

    Raises:
        CannotOpen: another process serves the file, or it is not fit for use.
    """

    software = Software(f"SQLite {sqlite3.sqlite_version}", SCHEMA.migrations[-1])

    def __init__(
        self,
        path: Path,
        *,
        exclusive: bool = True,
        migrates: bool = True,
        create: bool = True,
        observer: StoreObserver = NOBODY,
    ) -> None:
        self._path = path
        self._observer = observer
        self._hold, self._identity, self._writer, self.migrated = opened(
            path, exclusive=exclusive, migrates=migrates, create=create
        )
        for statement in sql.SAVE_VIEW:
            self._writer.execute(statement)
        self._checkpoints = Checkpoints(self._writer, self._connect, observer)
        self._local = threading.local()
        self._readers: list[Any] = []
        self._readers_lock = threading.Lock()
        self.webhooks = WebhookTables(
            Dialect(self._read_rows, self._transaction, rows="json_each(:rows)")
        )
        self._listener: Listener | None = None

    def close(self) -> None:
        """Closes all connections.

        SQLite then folds the WAL into the file, unless the names lead to other files by now.
        """
        if self._listener is not None:
            self._listener.close()
        if self._hold is not None and self._identity.changed():
            self._hold.leave_files_alone()
        self._checkpoints.close()
        for reader in self._readers:
            reader.close()
        self._writer.close()
        if self._hold is not None:
            self._hold.close()

    # -- readiness

    @property
    def failed_checkpoints(self) -> int:
        """Number of checkpoints that failed."""
        return self._checkpoints.failed

    def disk(self) -> Disk:
        """What the files take; see Store.disk."""
        room = os.statvfs(self._path)
        wal = self._path.with_name(f"{self._path.name}-wal")
        return Disk(self._path.stat().st_size, wal.stat().st_size, room.f_bavail * room.f_frsize)

    def check(self) -> None:
        """Proves that a change could be stored now; for the thread that commits.

        Raises:
            StoreUnavailable: it could not; the message says why.
            StoreBroken: the file is damaged, or no longer the one that was opened.
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
        with self._errors():
            self._checkpoints.check()

    def _wait_for_locks(self, timeout_s: float) -> None:
        wait_for_locks(self._writer, timeout_s)

    def _same_file(self, *, outcome_unknown: bool = False) -> None:
        changed = self._identity.changed()
        if changed is not None:
            raise StoreBroken(changed, outcome_unknown=outcome_unknown)

    # -- writing

    def commit(
        self, commands: Sequence[Command], now_us: int, due_us: int | None = None
    ) -> Committed:
        with self._errors():
            self._checkpoints.check()
            begun_s = time.perf_counter()
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                batch = self._load(commands, now_us if due_us is None else due_us)
                loaded_s = time.perf_counter()
                outcomes = batch.run(commands, now_us, due_us)
                decided_s = time.perf_counter()
                self._save(batch)
                self._same_file()
            except BaseException:
                self._rollback()
                raise
        saved_s = time.perf_counter()
        self._commit()
        commit_s = time.perf_counter() - saved_s
        self._same_file(outcome_unknown=True)
        if batch.events:
            self._observer.committed(
                loaded_s - begun_s, decided_s - loaded_s, saved_s - decided_s, commit_s
            )
        return Committed.of(batch, outcomes)

    def _transaction(self, work: Callable[[Execute], T]) -> T:
        """Runs a function in a transaction; for the thread that commits."""

        def execute(statement: str, parameters: Mapping[str, object]) -> list[Any]:
            found: list[Any] = self._writer.execute(statement, parameters).fetchall()
            return found

        with self._errors():
            self._checkpoints.check()
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                done = work(execute)
                self._same_file()
            except BaseException:
                self._rollback()
                raise
        self._commit()
        self._same_file(outcome_unknown=True)
        return done

    def _commit(self) -> None:
        try:
            self._writer.execute("COMMIT")
        except sqlite3.Error as error:
            self._rollback()
            if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
                raise StoreUnavailable("the disk is full; nothing was changed") from error
            raise StoreBroken(f"COMMIT failed: {error}", outcome_unknown=True) from error

    def _rollback(self) -> None:
        # After an I/O error or on a full disk SQLite has ended the transaction itself.
        if self._writer.in_transaction:
            self._writer.execute("ROLLBACK")

    def _load(self, commands: Sequence[Command], due_us: int) -> Batch:
        needs = json.dumps(Needs.of(commands))
        found = json.loads(self._writer.execute(sql.LOAD, {"needs": needs}).fetchone()[0])
        locked = list(map(Account._make, found[0]))
        passes = list(map(Pass._make, found[1]))
        receipts = list(map(Event._make, found[2]))
        replays = Replays.of(receipts)
        passes += map(Pass._make, self._rows(sql.SELECT_PASS, replays.passes))
        preceding = list(map(Event._make, self._rows(sql.SELECT_EVENT, replays.preceding)))
        overdue = [
            id_pass
            for account, wanted in short_of_slots(locked, commands).items()
            for id_pass in _due(self._writer, due_us, wanted, account, in_flight=True)
        ]
        return Batch(locked, passes, receipts, preceding, overdue)

    def _save(self, batch: Batch) -> None:
        written = dict(rows.written(batch))
        if not written:
            return
        if batch.erased:
            # Overwrites what is deleted with zeroes, even where that takes a write of its own.
            self._writer.execute("PRAGMA secure_delete = true")
        self._writer.execute(sql.SAVE, (json.dumps(written),))
        if batch.erased:
            for name, statement in sql.ERASE.items():
                self._writer.execute(statement, (json.dumps(written[name]),))
            self._writer.execute("PRAGMA secure_delete = false")

    def _rows(self, statement: str, keys: Sequence[tuple[object, ...]]) -> list[Any]:
        return [row for key in keys for row in self._writer.execute(statement, key)]

    # -- other processes: no other one serves the same file, but operators' commands change it

    def claim_sweep(self, now_us: int) -> bool:  # noqa: ARG002
        return True

    def claim_lease(self, name: str, now_us: int) -> int | None:  # noqa: ARG002
        return 1

    def release_lease(self, name: str) -> None:
        pass

    def listen(self, watched: Callable[[], Collection[str]], tell: Tell) -> None:
        self._listener = Listener(self._path, watched, tell)

    def compact(self) -> None:
        """Gives the room of what was deleted back to the disk.

        Needs as much free room as the database has data, twice over until it is done.
        """
        with self._errors():
            self._writer.execute("VACUUM")
            mark(self._writer)
        self._same_file()

    # -- accounts, for the operator

    def create_account(self, account: Account, *, who: str = PROGRAM) -> bool:
        return self._operate(accounts.create, account, who)

    def set_account(
        self,
        name: str,
        *,
        slot_limit: int | None = None,
        fee: Money | None = None,
        registrations_per_day: int | None = None,
        disabled: bool | None = None,
        who: str = PROGRAM,
    ) -> bool:
        settings = accounts.Settings(slot_limit, fee, registrations_per_day, disabled)
        return self._operate(accounts.change, name, settings, who)

    def begin_history(self, who: str, *, beyond: int = 0) -> NewHistory:
        """Begins a new history; see `history.begin`."""
        return self._operate(history.begin, who, time.time_ns() // 1_000, beyond)

    def delete_account(self, name: str, *, who: str = PROGRAM) -> bool:
        return self._operate(accounts.delete, name, who)

    def record(self, who: str, what: str, account: str | None, facts: State) -> None:
        self._operate(partial(admin_log.record, before=None, after=facts), who, what, account)

    def purge(self, account: str, ids: Sequence[str], ended_before_us: int) -> int:
        return self._operate(purging.purge, account, ids, ended_before_us)

    def _operate(self, work: Callable[..., T], *args: Any) -> T:
        """Does an operator's work in one transaction."""
        with self._errors(), either.transaction(self._writer):
            done = work(self._writer, *args)
        self._same_file(outcome_unknown=True)
        return done

    # -- reading

    def get_pass(self, account: str, pass_id: str) -> Pass | None:
        with self._errors():
            row = self._reader.execute(sql.SELECT_PASS, (account, pass_id)).fetchone()
        return Pass._make(row) if row else None

    def get_passes(self, account: str, pass_ids: Collection[str]) -> list[Pass]:
        with self._errors():
            keys = (account, json.dumps(list(pass_ids)))
            return list(map(Pass._make, self._reader.execute(sql.SELECT_PASSES, keys)))

    def get_account(self, name: str) -> Account | None:
        with self._errors():
            row = self._reader.execute(sql.SELECT_ACCOUNT, (name,)).fetchone()
        return Account._make(row) if row else None

    def fullest_accounts(self, limit: int) -> list[Account]:
        with self._errors():
            return list(map(Account._make, self._reader.execute(sql.FULLEST_ACCOUNTS, (limit,))))

    def list_passes(self, query: ListQuery) -> Page:
        parameters = query._asdict() | {"scan": LIST_SCAN_ROWS}
        parameters["statuses"] = json.dumps(query.statuses) if query.statuses else None
        with self._errors():
            found = self._reader.execute(sql.for_query(sql.LIST, query), parameters)
            passes = list(map(Pass._make, found))
            if len(passes) > query.limit:
                del passes[query.limit :]
                return Page(passes, passes[-1].id)
            statement = sql.for_query(sql.LAST_SCANNED, query)
            last_scanned = self._reader.execute(statement, parameters).fetchone()
        return Page(passes, last_scanned[0] if last_scanned else None)

    def events(
        self, account: str, after_sequence: int, limit: int, pass_id: str | None = None
    ) -> list[Event]:
        with self._errors():
            if pass_id is None:
                found = self._reader.execute(sql.SELECT_EVENTS, (account, after_sequence, limit))
            else:
                values = {"account": account, "after_sequence": after_sequence, "limit": limit}
                found = self._reader.execute(sql.PASS_EVENTS, values | {"id": pass_id})
            return list(map(Event._make, found))

    def history(self) -> str:
        with self._errors():
            found: str = self._reader.execute(sql.HISTORY).fetchone()[0]
        return found

    def gaps(self, account: str) -> list[Gap]:
        with self._errors():
            return list(map(Gap._make, self._reader.execute(sql.GAPS, (account,))))

    def newest_event_time_us(self) -> int | None:
        with self._errors():
            newest: int | None = self._reader.execute(sql.NEWEST_EVENT_TIME).fetchone()[0]
        return newest

    def due(self, due_us: int, limit: int, account: str | None = None) -> list[Pass]:
        with self._errors():
            return _due(self._reader, due_us, limit, account)

    def _read_rows(self, statement: str, parameters: Mapping[str, object]) -> list[Any]:
        with self._errors():
            found: list[Any] = self._reader.execute(statement, parameters).fetchall()
        return found

    def find_passes(self, wanted: Wanted, after_id: str | None, limit: int) -> Found:
        with self._errors():
            return retention.find(self._reader, wanted, after_id, limit)

    def account_names(self) -> list[str]:
        with self._errors():
            return retention.account_names(self._reader)

    @property
    def _reader(self) -> Any:
        """This thread's own connection."""
        reader = getattr(self._local, "reader", None)
        if reader is None:
            reader = self._connect()
            with self._readers_lock:
                self._readers.append(reader)
            reader.execute("PRAGMA query_only = true")
            self._local.reader = reader
        return reader

    def _connect(self) -> Any:
        """Opens another connection to the file.

        Raises:
            CannotOpen: it cannot be opened.
            StoreBroken: its path leads to another one.
        """
        connection = connect(self._path)
        try:
            self._same_file()
        except StoreBroken:
            connection.close()
            raise
        return connection

    def _errors(self) -> AbstractContextManager[None]:
        return own_errors(self._path)


def _due(
    connection: Any, due_us: int, limit: int, account: str | None, *, in_flight: bool = False
) -> list[Pass]:
    parameters = {"due_us": due_us, "limit": limit, "account": account, "in_flight": in_flight}
    return [Pass._make(row) for row in connection.execute(sql.DUE, parameters)]
