"""Databases to measure with: a million passes in seconds, and clean under `idpass-server audit`.

Rows are written straight into the store's tables. What is written is what the service itself
would have written, so that the server that is measured meets a database like its own.
"""

import shutil
import time
from pathlib import Path
from typing import Any, Final, NamedTuple

import uuid_utils

from idpass_server.rules.domain import DAY_US
from idpass_server.store.sqlite.file import connect
from idpass_server.store.sqlite.store import SqliteStore

SLOT_LIMIT: Final = 2**31 - 1
CACHE_KIB_WHILE_SEEDING: Final = 400_000

# Every registration has a request_id of the caller's own. Callers' ids come in no order, and so
# the index of receipts is as large and as scattered as in earnest.
_ROWS: Final = (
    """
    INSERT INTO passes SELECT 'demo', id, iif(n <= :history, 'cancelled', 'new'), 'AUD', 4500000,
        n <= :history, 'application-' || n, NULL, NULL, :now_us, :now_us, :expire_time_us + n,
        NULL, iif(n <= :history, :now_us, NULL), iif(n <= :history, 'abandoned', NULL),
        iif(n <= :history, '', NULL), 'demo',
        iif(n <= :history, :total + n, n)
    FROM ids ORDER BY n
    """,
    "INSERT INTO timers SELECT 'demo', :expire_time_us + n, id FROM ids ORDER BY n",
    """
    INSERT INTO events SELECT 'demo', n, id, NULL, 'new', :now_us, 'demo',
        lower(hex(randomblob(16))), lower(hex(randomblob(16))), id, 'AUD', 4500000, NULL, '',
        NULL, 0
    FROM ids ORDER BY n
    """,
    """
    INSERT INTO events SELECT 'demo', :total + n, id, 'new', 'cancelled', :now_us, 'demo',
        lower(hex(randomblob(16))), lower(hex(randomblob(16))), id, 'AUD', NULL, 4500000,
        'abandoned', n, 0
    FROM ids WHERE n <= :history ORDER BY n
    """,
    """
    UPDATE accounts SET slot_limit = :slot_limit, slots_in_use = :total - :history,
        charged_micros = :total * 4500000, refunded_micros = :history * 4500000,
        last_sequence = :total + :history
    WHERE name = 'demo'
    """,
)


class Seeded(NamedTuple):
    """A database at rest, and the ids of its passes in flight in the order of registration."""

    path: Path
    in_flight: list[str]

    def copy(self, folder: Path, name: str) -> Path:
        """A database that is the same. Returns its file."""
        copy = folder / f"{name}.db"
        for old in folder.glob(f"{copy.name}*"):
            old.unlink()
        shutil.copyfile(self.path, copy)
        return copy


def seed(path: Path, *, in_flight: int, history: int = 0) -> Seeded:
    """Makes a database of passes in NEW, and of passes that were cancelled and refunded."""
    ids = [str(uuid_utils.uuid7()) for _ in range(in_flight + history)]
    now_us = time.time_ns() // 1000
    values = {
        "total": len(ids),
        "history": history,
        "now_us": now_us,
        "expire_time_us": now_us + 7 * DAY_US,
        "slot_limit": SLOT_LIMIT,
    }
    SqliteStore(path).close()
    connection = connect(path)
    try:
        _fill(connection, ids, values)
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        connection.close()
    return Seeded(path, ids[history:])


def _fill(connection: Any, ids: list[str], values: dict[str, int]) -> None:
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute(f"PRAGMA cache_size = -{CACHE_KIB_WHILE_SEEDING}")
    connection.execute("CREATE TEMP TABLE ids (n INTEGER PRIMARY KEY, id TEXT)")
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany("INSERT INTO ids (id) VALUES (?)", ([id_] for id_ in ids))
    # An index is made faster from all rows at once than row by row.
    indexes = connection.execute(
        "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
    ).fetchall()
    for name, _sql in indexes:
        connection.execute(f"DROP INDEX {name}")
    for rows in _ROWS:
        connection.execute(rows, values)
    for _name, sql in indexes:
        connection.execute(sql)
    connection.execute("COMMIT")
