"""Databases to measure with: millions of passes in seconds, and clean under `idpass-server audit`.

Rows are written straight into the store's tables. What is written is what the service itself
would have written, so that the server that is measured meets a database like its own.
"""

import hashlib
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, overload

from idpass_server.rules.domain import DAY_US
from idpass_server.store.sqlite import schema
from idpass_server.store.sqlite.file import connect
from idpass_server.store.sqlite.store import SqliteStore

SLOT_LIMIT: Final = 2**31 - 1
CACHE_KIB_WHILE_SEEDING: Final = 400_000
SORTING_THREADS: Final = 2
KEPT: Final = Path(__file__).parents[2] / "build" / "bench" / "seeds"
KEPT_FOR_S: Final = 5 * 86_400
"""Age at which a kept database is made anew, seconds: its passes expire after seven days."""
FIRST_MS: Final = 1_760_000_000_000
"""When the first pass was registered by its id, ms since the epoch."""

# Time-ordered, and otherwise as good as random: a UUIDv7.
_ID: Final = f"""
    printf('%08x-%04x-7%03x-8%03x-%04x%08x', ({FIRST_MS} + n / 8) >> 16,
        ({FIRST_MS} + n / 8) & 65535, n % 8 << 9, n * 48271 % 2147483647 & 4095,
        n * 69621 % 2147483647 & 65535, n * 48271 % 2147483647)"""
# The number of the pass that a row of passes was made from.
_N: Final = "iif(end_time_us IS NULL, event_sequence, event_sequence - :total)"
# Every registration has a request_id of the caller's own. Callers' ids come in no order, and so
# the index of receipts is as large and as scattered as in earnest.
_ROWS: Final = (
    f"""
    WITH RECURSIVE numbers (n) AS (
        SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :total)
    INSERT INTO passes SELECT 'demo', {_ID}, iif(n <= :history, 'cancelled', 'new'), 'AUD',
        4500000, n <= :history, 'application-' || n, NULL, NULL, :now_us, :now_us,
        :expire_time_us + n, NULL, iif(n <= :history, :now_us, NULL),
        iif(n <= :history, 'abandoned', NULL), iif(n <= :history, '', NULL), 'demo',
        iif(n <= :history, :total + n, n)
    FROM numbers
    """,
    "INSERT INTO timers SELECT account, expire_time_us, id FROM passes ORDER BY account, id",
    f"""
    INSERT INTO events SELECT 'demo', {_N}, id, NULL, 'new', :now_us, 'demo',
        lower(hex(randomblob(16))), lower(hex(randomblob(16))), id, 'AUD', 4500000, NULL, '',
        NULL, 0
    FROM passes ORDER BY account, id
    """,
    f"""
    INSERT INTO events SELECT 'demo', :total + {_N}, id, 'new', 'cancelled', :now_us, 'demo',
        lower(hex(randomblob(16))), lower(hex(randomblob(16))), id, 'AUD', NULL, 4500000,
        'abandoned', {_N}, 0
    FROM passes WHERE end_time_us IS NOT NULL ORDER BY account, id
    """,
    """
    UPDATE accounts SET slot_limit = :slot_limit, slots_in_use = :total - :history,
        charged_micros = :total * 4500000, refunded_micros = :history * 4500000,
        last_sequence = :total + :history
    WHERE name = 'demo'
    """,
)


class Ids(Sequence[str]):
    """The ids of passes, computed and not stored. Args: numbers: of the passes."""

    def __init__(self, numbers: range) -> None:
        self._numbers = numbers

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> "Ids": ...
    def __getitem__(self, index: int | slice) -> "str | Ids":
        if isinstance(index, slice):
            return Ids(self._numbers[index])
        n = self._numbers[index]
        ms, one, other = FIRST_MS + n // 8, n * 48271 % 2147483647, n * 69621 % 2147483647
        return (
            f"{ms >> 16:08x}-{ms & 65535:04x}-7{n % 8 << 9:03x}-8{one & 4095:03x}-"
            f"{other & 65535:04x}{one:08x}"
        )


class Seeded(NamedTuple):
    """A database at rest, and the ids of its passes in flight in the order of registration."""

    path: Path
    in_flight: Sequence[str]

    def copy(self, folder: Path, name: str) -> Path:
        """A database that is the same. Returns its file."""
        copy = folder / f"{name}.db"
        for old in folder.glob(f"{copy.name}*"):
            old.unlink()
        shutil.copyfile(self.path, copy)
        return copy


def seed(path: Path, *, in_flight: int, history: int = 0) -> Seeded:
    """Makes a database of passes in NEW, and of passes that were cancelled and refunded."""
    total = history + in_flight
    now_us = time.time_ns() // 1000
    values = {
        "total": total,
        "history": history,
        "now_us": now_us,
        "expire_time_us": now_us + 7 * DAY_US,
        "slot_limit": SLOT_LIMIT,
    }
    SqliteStore(path).close()
    connection = connect(path)
    try:
        # Without a journal every page is written once. Whoever is interrupted begins anew.
        connection.execute("PRAGMA journal_mode = OFF")
        _fill(connection, values)
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        connection.close()
    return Seeded(path, Ids(range(history + 1, total + 1)))


def kept_seed(in_flight: int) -> Seeded:
    """The same, from build/ if it was made there before and in these days."""
    made_from = hashlib.sha256(str(in_flight).encode())
    for file in (__file__, schema.__file__):
        made_from.update(Path(file).read_bytes())
    path = KEPT / f"{made_from.hexdigest()[:16]}.db"
    if not path.exists() or time.time() - path.stat().st_mtime > KEPT_FOR_S:
        shutil.rmtree(KEPT, ignore_errors=True)
        KEPT.mkdir(parents=True)
        unfinished = path.with_name("unfinished.db")
        seed(unfinished, in_flight=in_flight)
        unfinished.rename(path)
    return Seeded(path, Ids(range(1, in_flight + 1)))


def _fill(connection: Any, values: dict[str, int]) -> None:
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute(f"PRAGMA cache_size = -{CACHE_KIB_WHILE_SEEDING}")
    connection.execute(f"PRAGMA threads = {SORTING_THREADS}")
    connection.execute("BEGIN IMMEDIATE")
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
