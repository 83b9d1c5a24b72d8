"""Checkpoints: folding the WAL into the database file, beside the commits.

SQLite would do it within a COMMIT, which then takes some hundred milliseconds. Here a thread does
it on a connection of its own while commits go on. What they append meanwhile is left: were it not
folded too, with nothing appended after it, the WAL would never begin anew. So the thread goes on
until little is left, and the writer does that little between two commits.

SQLite's own way is the backstop, for a thread that falls behind and for programs that make one
change.
"""

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any, Final

import structlog

from idpass_server.rules.refusals import StoreUnavailable
from idpass_server.store import CannotOpen, StoreBroken
from idpass_server.store.observing import NOBODY, StoreObserver
from idpass_server.store.sqlite.file import BUSY_TIMEOUT_S, sqlite3, wait_for_locks
from idpass_server.store.sqlite.wal import mark

CHECK_INTERVAL_S: Final = 0.25
"""Interval between two looks at the WAL, seconds."""
CHECKPOINT_PAGES: Final = 16_000
"""Size of the WAL that starts a checkpoint, pages (64 MB). The larger it is, the more commits share
the writing of a page to the file."""
BACKSTOP_PAGES: Final = 4 * CHECKPOINT_PAGES
"""Size of the WAL at which a COMMIT includes a checkpoint, and readers are waited for, pages."""
MAX_WAL_PAGES: Final = 16 * CHECKPOINT_PAGES
"""Size of a WAL that cannot be folded into the file at which changes are refused, pages (1 GB): the
disk fills up, and reads and the next start slow down."""
LITTLE_PAGES: Final = 500
"""What the thread leaves to the writer, pages."""
MAX_ROUNDS: Final = 8
"""Rounds after which the thread leaves what there is to the writer."""
READERS_TIMEOUT_S: Final = 0.2
"""Longest wait for readers that keep a large WAL from beginning anew, seconds."""

log = structlog.get_logger()


class Checkpoints:
    """Keeps the WAL small. Its methods are for the thread that commits.

    Args:
        connection: the one that writes.
        connect: opens another one to the same file.
        observer: is told of checkpoints, on either thread.

    Attributes:
        failed: number of checkpoints that failed.
    """

    def __init__(
        self, connection: Any, connect: Callable[[], Any], observer: StoreObserver = NOBODY
    ) -> None:
        self._connection = connection
        self._connect = connect
        self._observer = observer
        self._thread: threading.Thread | None = None
        self._own: Any = None  # the thread's connection
        self._cause: str | None = None
        self._refusal: str | None = None
        self._next_look_s = 0.0  # on time.monotonic()
        self.failed = 0
        connection.execute(f"PRAGMA wal_autocheckpoint = {BACKSTOP_PAGES}")

    def check(self) -> None:
        """Begins or ends a checkpoint of a WAL that has grown; most calls find nothing to do.

        Raises:
            StoreUnavailable: it cannot be done, and the WAL has passed MAX_WAL_PAGES.
            sqlite3.Error: the file cannot be read or written.
        """
        if self._thread is not None and not self._thread.is_alive():
            self._thread = None
            self._end()
        if self._thread is None and time.monotonic() >= self._next_look_s:
            mark(self._connection)
            if self._wal_pages() > CHECKPOINT_PAGES:
                self._begin()
            self._next_look_s = time.monotonic() + CHECK_INTERVAL_S
        if self._refusal is not None:
            raise StoreUnavailable(self._refusal)

    def close(self) -> None:
        """Waits for the thread, and closes its connection."""
        if self._thread is not None:
            self._thread.join()
        if self._own is not None:
            self._own.close()

    def _wal_pages(self) -> int:
        _, pages, _ = self._connection.execute("PRAGMA wal_checkpoint(NOOP)").fetchone()
        return int(pages)

    def _begin(self) -> None:
        thread = threading.Thread(target=self._fold, name="checkpoint", daemon=True)
        with contextlib.suppress(RuntimeError):  # no more threads: the backstop does it
            thread.start()
            self._thread = thread

    def _fold(self) -> None:
        """Folds what the WAL has into the file, until little has come meanwhile."""
        self._cause = None
        try:
            if self._own is None:
                self._own = self._connect()
            before = 0
            for _ in range(MAX_ROUNDS):
                pages, done = self._checkpoint(self._own, "PASSIVE")
                if done < pages or pages - before < LITTLE_PAGES:
                    return
                before = done
        except (sqlite3.Error, CannotOpen, StoreBroken) as error:
            self._cause = str(error)

    def _end(self) -> None:
        """Folds what is left, so that the next commit begins the WAL anew."""
        cause, pages = self._cause, self._wal_pages()
        if cause is None:
            mode = "PASSIVE" if pages < BACKSTOP_PAGES else "RESTART"
            try:
                pages, done = self._checkpoint(self._connection, mode)
                cause = None if done == pages else "a reader needs what it holds"
            except sqlite3.OperationalError as error:
                cause = str(error)
        self._refusal = None
        if cause is not None:
            self.failed += 1
            log.error("checkpoint_failed", cause=cause, wal_pages=pages, failed=self.failed)
            if pages > MAX_WAL_PAGES:
                self._refusal = (
                    f"the WAL cannot be folded into the database: {cause}; nothing was changed"
                )

    def _checkpoint(self, connection: Any, mode: str) -> tuple[int, int]:
        """Makes a checkpoint. Returns the pages in the WAL, and those of them in the file."""
        begun_s = time.perf_counter()
        wait_for_locks(connection, READERS_TIMEOUT_S)
        try:
            _, pages, done = connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
        finally:
            wait_for_locks(connection, BUSY_TIMEOUT_S)
        self._observer.checkpointed(time.perf_counter() - begun_s)
        return pages, done
