"""Copying a SQLite file to PostgreSQL: everything, verified, or nothing.

The copy is one transaction: whatever ends it early leaves the target empty. Every row is read back
and compared before the commit. Both databases are locked meanwhile, so that no change is missed.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final, NamedTuple

from idpass_server.rules.positions import Gap
from idpass_server.rules.records import Account, Event, Pass
from idpass_server.rules.webhooks import Webhook
from idpass_server.store import CannotOpen, webhook_sql
from idpass_server.store.admin_log import Entry
from idpass_server.store.postgres.link import Connection
from idpass_server.store.postgres.store import connected
from idpass_server.store.purging import TOTALS
from idpass_server.store.rows import TIMER
from idpass_server.store.sqlite.file import connect
from idpass_server.store.sqlite.store import SqliteStore

MOVED_ROWS: Final = 1_000
"""Number of rows between two reports of progress."""


class _Table(NamedTuple):
    name: str
    columns: tuple[str, ...]
    key: str

    def select(self) -> str:
        return f"SELECT {', '.join(self.columns)} FROM {self.name} ORDER BY {self.key}"


TABLES: Final = (
    _Table("accounts", Account._fields, "name"),
    _Table("passes", Pass._fields, "account, id"),
    _Table("timers", TIMER, ", ".join(TIMER)),
    _Table("events", Event._fields, "account, sequence"),
    # The copy goes on with the same history.
    _Table("history", ("id", "begin_time_us", "base_sequence"), "id"),
    _Table("history_gaps", ("account", *Gap._fields), "account, after_sequence"),
    _Table("purged_totals", TOTALS, "account"),
    _Table("admin_log", Entry._fields, "id"),
    _Table("webhooks", Webhook._fields, "account, id"),
    _Table("webhook_deliveries", webhook_sql.DELIVERY, ", ".join(webhook_sql.DELIVERY[:3])),
    _Table("webhook_attempts", webhook_sql.ATTEMPT, ", ".join(webhook_sql.ATTEMPT[:4])),
)


class Copied(NamedTuple):
    """One copied table.

    Attributes:
        rows: number of rows.
        checksum: BLAKE2b of the rows as text, in the order of their key.
    """

    rows: int
    checksum: str


def copy(source: Path, target: str, begin: Callable[[int], Callable[[int], None]]) -> list[Copied]:
    """Copies all tables.

    Args:
        source: the SQLite file, with an up-to-date schema.
        target: URL of an empty PostgreSQL database with an up-to-date schema.
        begin: called with the number of steps; returns what to call with steps that are done.

    Returns:
        what was copied, for each of TABLES.

    Raises:
        CannotOpen: a database cannot be used, the source is being served, the target holds data,
            or the rows read back differ from those written.
    """
    with (
        closing(SqliteStore(source, migrates=False, create=False)),
        closing(connect(source, read_only=True)) as reading,
    ):
        counts = [f"(SELECT count(*) FROM {table.name})" for table in TABLES]
        (rows,) = reading.execute(f"SELECT {' + '.join(counts)}").fetchone()
        moved = begin(2 * rows)
        with connected(target) as connection:
            with connection.transaction():
                _take(connection)
                written = [_write(reading, connection, table, moved) for table in TABLES]
                for table, expected in zip(TABLES, written, strict=True):
                    _verify(connection, table, expected, moved)
            # Without it the planner would take the tables for empty.
            connection.execute("ANALYZE")
    return written


def _take(connection: Connection) -> None:
    """Locks the target, which must be as `migrate` made it."""
    for table in TABLES:
        connection.execute(f"LOCK TABLE {table.name} IN ACCESS EXCLUSIVE MODE")
    used = connection.execute(
        "SELECT EXISTS (SELECT 1 FROM passes) OR EXISTS (SELECT 1 FROM events) "
        "OR EXISTS (SELECT 1 FROM accounts WHERE name <> 'demo') "
        "OR EXISTS (SELECT 1 FROM admin_log)"
    ).fetchone()
    if used != (False,):
        raise CannotOpen(
            "the target holds accounts or passes already; copy to a new database, made with: "
            "createdb NAME && idpass-server migrate --db postgresql://…/NAME"
        )
    connection.execute("DELETE FROM accounts")
    connection.execute("DELETE FROM history")


def _write(
    reading: Any, connection: Connection, table: _Table, moved: Callable[[int], None]
) -> Copied:
    statement = f"COPY {table.name} ({', '.join(table.columns)}) FROM STDIN"
    with connection.cursor() as cursor, cursor.copy(statement) as target:

        def each() -> Iterator[Any]:
            for row in reading.execute(table.select()):
                target.write_row(row)
                yield row

        return _checksum(each(), moved)


def _verify(
    connection: Connection, table: _Table, written: Copied, moved: Callable[[int], None]
) -> None:
    with connection.cursor(name=f"verify_{table.name}") as cursor:
        cursor.itersize = MOVED_ROWS
        found = _checksum(cursor.execute(table.select()), moved)
    if found != written:
        raise CannotOpen(
            f"{table.name}: {written.rows} rows were written and {found.rows} read back, or not "
            "as they were; nothing was copied"
        )


def _checksum(rows: Iterable[Any], moved: Callable[[int], None]) -> Copied:
    digest = hashlib.blake2b(digest_size=16)
    count = 0
    for row in rows:
        digest.update(repr(tuple(row)).encode())
        count += 1
        if count % MOVED_ROWS == 0:
            moved(MOVED_ROWS)
    moved(count % MOVED_ROWS)
    return Copied(count, digest.hexdigest())
