"""Checkpoints: whether the WAL is still folded into the database file.

SQLite does it after a commit, once the WAL has grown, and is silent where it fails.
"""

import time
from typing import Any, Final

import structlog

from idpass_server.rules.refusals import StoreUnavailable
from idpass_server.store.observing import NOBODY, StoreObserver
from idpass_server.store.sqlite.file import sqlite3
from idpass_server.store.sqlite.wal import mark

CHECK_INTERVAL_S: Final = 1.0
"""Interval between two looks at the WAL, seconds."""
CHECKPOINT_PAGES: Final = 16_000
"""Size of the WAL that starts a checkpoint, pages (64 MB). The larger it is, the more commits share
the writing of a page to the file."""
MAX_WAL_PAGES: Final = 16 * CHECKPOINT_PAGES
"""Size of a WAL that cannot be folded into the file at which changes are refused, pages (1 GB): the
disk fills up, and reads and the next start slow down."""

log = structlog.get_logger()


class Checkpoints:
    """Watches the WAL.

    Args:
        connection: the one that writes.
        observer: is told of checkpoints.

    Attributes:
        failed: number of checkpoints that failed.
    """

    def __init__(self, connection: Any, observer: StoreObserver = NOBODY) -> None:
        self._connection = connection
        self._observer = observer
        self._looked = (0, 0)  # pages in the WAL, and those of them that were in the file
        self._longest_s = 0.0
        self._next_check_s = 0.0  # on time.monotonic()
        self.failed = 0
        connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")

    def check(self) -> None:
        """Checkpoints a WAL that has grown too large; most calls find that it is not yet time.

        Raises:
            StoreUnavailable: it cannot be done, and the WAL has passed MAX_WAL_PAGES.
            sqlite3.Error: the file cannot be read or written.
        """
        if time.monotonic() < self._next_check_s:
            return
        mark(self._connection)
        _, pages, done = self._connection.execute("PRAGMA wal_checkpoint(NOOP)").fetchone()
        self._look(pages, done)
        cause = self._checkpoint() if pages > CHECKPOINT_PAGES else None
        if cause is not None:
            self.failed += 1
            log.error("checkpoint_failed", cause=cause, wal_pages=pages, failed=self.failed)
            if pages > MAX_WAL_PAGES:
                raise StoreUnavailable(
                    f"the WAL cannot be folded into the database: {cause}; nothing was changed"
                )
        self._next_check_s = time.monotonic() + CHECK_INTERVAL_S

    def committed(self, seconds: float) -> None:
        """Notes how long a COMMIT took, any checkpoint in it included."""
        self._longest_s = max(self._longest_s, seconds)

    def _look(self, pages: int, done: int) -> None:
        """Finds out whether a COMMIT has made a checkpoint: the longest since the last look did."""
        before_pages, before_done = self._looked
        begun_anew = pages < before_pages and before_done < before_pages
        if done > before_done or begun_anew:
            self._observer.checkpointed(self._longest_s)
        self._looked = (pages, done)
        self._longest_s = 0.0

    def _checkpoint(self) -> str | None:
        """Folds the WAL into the file. Returns why it could not be done, or None."""
        begun_s = time.perf_counter()
        try:
            _, pages, done = self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        except sqlite3.OperationalError as error:
            return str(error)
        if done > self._looked[1]:
            self._observer.checkpointed(time.perf_counter() - begun_s)
        self._looked = (pages, done)
        return None if done == pages else "a reader needs what it holds"
