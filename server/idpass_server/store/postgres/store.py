"""The store for many processes on many hosts: a PostgreSQL database.

`writer` commits, on the thread that calls `commit`; each reading thread has its own connection;
`news` passes word of events from process to process.
"""

import math
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from typing import Any, Final, TypeVar

import psycopg

from idpass_server.ids import new_uuid
from idpass_server.rules.commands import Command
from idpass_server.rules.positions import Gap
from idpass_server.rules.records import Account, Event, Money, Pass
from idpass_server.store import (
    DELIVERY_LEASE,
    LEASE_US,
    LIST_SCAN_ROWS,
    PROGRAM,
    CannotOpen,
    Committed,
    ListQuery,
    Page,
    Software,
    Tell,
    accounts,
    admin_log,
    either,
    history,
    purging,
    retention,
)
from idpass_server.store.admin_log import State
from idpass_server.store.history import NewHistory
from idpass_server.store.observing import NOBODY, StoreObserver
from idpass_server.store.postgres import schema as postgres_schema
from idpass_server.store.postgres import sql
from idpass_server.store.postgres.errors import cannot_connect
from idpass_server.store.postgres.hosts import Lookout
from idpass_server.store.postgres.link import Connection, Database, Link
from idpass_server.store.postgres.news import Announcer, Listener
from idpass_server.store.postgres.session import OPERATING
from idpass_server.store.postgres.writer import LOCK_WAIT_S, Writer
from idpass_server.store.retention import Found, Wanted
from idpass_server.store.schema import Plan, plan
from idpass_server.store.webhooks import Dialect, Execute, WebhookTables
from idpass_server.urls import shown_url

SWEEP_LEASE_US: Final = 5_000_000
"""How long a process keeps the sweep after claiming it, microseconds."""
READ_TIMEOUT: Final = "4s"
"""The server's timeout of a reading statement; shorter than a client's default deadline, 5 s."""
READ_PATIENCE_S: Final = 4.5
"""Timeout for the answer to a reading statement, seconds; longer than READ_TIMEOUT."""
CLOCKS_APART_US: Final = 60_000_000
"""Largest clock difference between hosts, microseconds; a lease further ahead is ignored, as its
holder's clock is wrong."""

Parameters = Sequence[object] | Mapping[str, object]
T = TypeVar("T")


class PostgresStore:
    """A PostgreSQL database; methods as in `Store`.

    Args:
        url: postgresql://… as libpq takes it; of several hosts, the one that accepts changes is
            used.
        observer: is told what the store does.

    Raises:
        CannotOpen: the database cannot be reached, or this program may not serve its schema.
    """

    failed_checkpoints = 0

    def __init__(self, url: str, observer: StoreObserver = NOBODY) -> None:
        self._database = Database(url, observer=observer)
        self._link = self._database.link(lock_timeout=f"{LOCK_WAIT_S}s")
        self._writer = Writer(self._link, observer)
        self._local = threading.local()
        self._readers: list[Link] = []
        self._readers_lock = threading.Lock()
        self._announcer: Announcer | None = None
        self._listener: Listener | None = None
        self._lookout: Lookout | None = None
        self._holder = new_uuid()
        self._lease_until_us = 0
        self._fence = {"name": DELIVERY_LEASE, "holder": self._holder}
        self.webhooks = WebhookTables(
            Dialect(
                self._read_rows,
                self._transaction,
                rows="json_array_elements(CAST(:rows AS json)) AS each (value)",
                claim=sql.LEASE_ALONE,
                fence=sql.LEASE_FENCE,
            )
        )
        try:
            connection = self._link.connection()
            postgres_schema.check(connection, shown_url(url))
            version = connection.info.parameter_status("server_version")
        except BaseException as error:
            self._link.close()
            if isinstance(error, psycopg.Error):
                raise CannotOpen(cannot_connect(url, error)) from error
            raise
        newest = postgres_schema.schema().migrations[-1]
        self.software = Software(f"PostgreSQL {version}", newest)

    def close(self) -> None:
        for thread in (self._announcer, self._listener, self._lookout):
            if thread is not None:
                thread.close()
        for reader in self._readers:
            reader.close()
        self._link.close()

    # -- writing

    def commit(
        self, commands: Sequence[Command], now_us: int, due_us: int | None = None
    ) -> Committed:
        committed = self._writer.commit(commands, now_us, due_us)
        if self._announcer is not None and committed.last_sequences:
            self._announcer.announce(committed.last_sequences)
        return committed

    def check(self) -> None:
        self._writer.check()

    def disk(self) -> None:
        return None

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

    def delete_account(self, name: str, *, who: str = PROGRAM) -> bool:
        return self._operate(accounts.delete, name, who)

    def record(self, who: str, what: str, account: str | None, facts: State) -> None:
        self._operate(partial(admin_log.record, before=None, after=facts), who, what, account)

    def purge(self, account: str, ids: Sequence[str], ended_before_us: int) -> int:
        return self._operate(purging.purge, account, ids, ended_before_us)

    def _operate(self, work: Callable[..., T], *args: Any) -> T:
        """Does an operator's work in one transaction."""

        def run(connection: Connection) -> T:
            with either.transaction(connection):
                return work(connection, *args)

        return self._reader.run(run)

    # -- reading

    def get_pass(self, account: str, pass_id: str) -> Pass | None:
        row = self._one(sql.SELECT_PASS, (account, pass_id))
        return Pass._make(row) if row else None

    def get_passes(self, account: str, pass_ids: Collection[str]) -> list[Pass]:
        rows = self._all(sql.SELECT_PASSES, (account, list(pass_ids)))
        return list(map(Pass._make, rows))

    def get_account(self, name: str) -> Account | None:
        row = self._one(sql.SELECT_ACCOUNT, (name,))
        return Account._make(row) if row else None

    def fullest_accounts(self, limit: int) -> list[Account]:
        return list(map(Account._make, self._all(sql.FULLEST_ACCOUNTS, (limit,))))

    def list_passes(self, query: ListQuery) -> Page:
        parameters = query._asdict() | {"scan": LIST_SCAN_ROWS}
        parameters["statuses"] = list(query.statuses) or None
        passes = [Pass._make(row) for row in self._all(sql.for_query(sql.LIST, query), parameters)]
        if len(passes) > query.limit:
            del passes[query.limit :]
            return Page(passes, passes[-1].id)
        last_scanned = self._one(sql.for_query(sql.LAST_SCANNED, query), parameters)
        return Page(passes, last_scanned[0] if last_scanned else None)

    def events(
        self, account: str, after_sequence: int, limit: int, pass_id: str | None = None
    ) -> list[Event]:
        if pass_id is None:
            rows = self._all(sql.SELECT_EVENTS, (account, after_sequence, limit))
        else:
            values = {"account": account, "after_sequence": after_sequence, "limit": limit}
            rows = self._all(sql.PASS_EVENTS, values | {"id": pass_id})
        return list(map(Event._make, rows))

    def history(self) -> str:
        found: str = self._one(sql.HISTORY, ())[0]
        return found

    def gaps(self, account: str) -> list[Gap]:
        return list(map(Gap._make, self._all(sql.GAPS, (account,))))

    def newest_event_time_us(self) -> int | None:
        newest: int | None = self._one(sql.NEWEST_EVENT_TIME, ())[0]
        return newest

    def due(self, due_us: int, limit: int, account: str | None = None) -> list[Pass]:
        values = {"due_us": due_us, "limit": limit, "account": account}
        rows = self._all(sql.DUE if account is None else sql.DUE_OF_ACCOUNT, values)
        return list(map(Pass._make, rows))

    def find_passes(self, wanted: Wanted, after_id: str | None, limit: int) -> Found:
        return self._reader.run(lambda it: retention.find(it, wanted, after_id, limit))

    def account_names(self) -> list[str]:
        return self._reader.run(retention.account_names)

    def claim_sweep(self, now_us: int) -> bool:
        if now_us < self._lease_until_us - SWEEP_LEASE_US // 2:
            return True
        until_us = now_us + SWEEP_LEASE_US
        values = {
            "holder": self._holder,
            "until_us": until_us,
            "now_us": now_us,
            "too_far_us": until_us + CLOCKS_APART_US,
        }
        claimed = self._reader.run(lambda it: bool(it.execute(sql.LEASE, values).rowcount))
        self._lease_until_us = until_us if claimed else 0
        return claimed

    def claim_lease(self, name: str, now_us: int) -> int | None:
        values = {
            "name": name,
            "holder": self._holder,
            "now_us": now_us,
            "until_us": now_us + LEASE_US,
            "too_far_us": now_us + LEASE_US + CLOCKS_APART_US,
        }
        row = self._one(sql.CLAIM_LEASE, values)
        return row[0] if row else None

    def release_lease(self, name: str) -> None:
        values = {"name": name, "holder": self._holder}
        self._reader.run(lambda it: it.execute(sql.RELEASE_LEASE, values))

    def listen(self, watched: Callable[[], Collection[str]], tell: Tell) -> None:
        self._announcer = Announcer(self._database.link())
        self._lookout = Lookout(self._database)
        self._listener = Listener(self._database.link(), watched, tell)

    def _read_rows(self, statement: str, parameters: Mapping[str, object]) -> list[Any]:
        return self._reader.run(lambda it: either.run(it, statement, **parameters).fetchall())

    def _transaction(self, work: Callable[[Execute], T]) -> T:
        """Runs a function in a transaction, on this thread's own connection."""

        def run(connection: Connection) -> T:
            def execute(statement: str, parameters: Mapping[str, object]) -> list[Any]:
                cursor = either.run(connection, statement, **{**self._fence, **parameters})
                return cursor.fetchall() if cursor.description else []

            with either.transaction(connection):
                return work(execute)

        return self._reader.run(run)

    def _one(self, statement: str, parameters: Parameters) -> Any:
        return self._reader.run(lambda it: it.execute(statement, parameters).fetchone())

    def _all(self, statement: str, parameters: Parameters) -> list[Any]:
        return self._reader.run(lambda it: it.execute(statement, parameters).fetchall())

    @property
    def _reader(self) -> Link:
        """This thread's own connection."""
        reader: Link | None = getattr(self._local, "reader", None)
        if reader is None:
            reader = self._local.reader = self._database.link(
                READ_PATIENCE_S, statement_timeout=READ_TIMEOUT
            )
            with self._readers_lock:
                self._readers.append(reader)
        return reader


def migrate(url: str) -> list[str]:
    """Brings a database's schema up to date; see `schema.migrate`.

    Args:
        url: of the database.

    Raises:
        CannotOpen: it cannot be reached, its schema is too new, or it has the wrong encoding.
    """
    with _operating(Database(url)) as connection:
        return postgres_schema.migrate(connection)


def planned(url: str) -> Plan:
    """Says what `migrate` would do; changes nothing.

    Args:
        url: of the database.

    Raises:
        SchemaTooNew: a newer program has changed the schema beyond what this one can serve.
        CannotOpen: the database cannot be reached.
    """
    with _operating(Database(url, read_only=True)) as connection:
        return plan(postgres_schema.schema(), postgres_schema.found(connection))


def begin_history(url: str, who: str) -> NewHistory:
    """Begins a new history; see `history.begin`.

    Args:
        url: of the database.
        who: the operator, for the admin log.

    Raises:
        CannotOpen: it cannot be reached, or has another schema.
    """
    with connected(url) as connection, connection.transaction():
        # No batch holds an account's row while it waits for the table.
        connection.execute("LOCK TABLE accounts IN EXCLUSIVE MODE")
        return history.begin(connection, who, time.time_ns() // 1_000)


@contextmanager
def connected(url: str, *, read_only: bool = False) -> Iterator[Connection]:
    """Opens a connection for operators' work, with the database's own choice of plans.

    Args:
        url: of the database.
        read_only: accept a server that does not accept changes.

    Raises:
        CannotOpen: the database cannot be reached or is lost, or has another schema.
    """
    with _operating(Database(url, read_only=read_only)) as connection:
        postgres_schema.check(connection, shown_url(url))
        yield connection


@contextmanager
def _operating(database: Database) -> Iterator[Connection]:
    try:
        with closing(database.connect(OPERATING, math.inf)) as connection:
            yield connection
    except psycopg.Error as error:
        raise CannotOpen(cannot_connect(database.url, error)) from error


@contextmanager
def reading(url: str) -> Iterator[Connection]:
    """Opens a read transaction that sees one snapshot of the database.

    Args:
        url: of the database.

    Raises:
        CannotOpen: the database cannot be reached or is lost, or has another schema.
    """
    with connected(url, read_only=True) as connection:
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        yield connection
