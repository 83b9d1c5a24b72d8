"""Connections to a SQLite file, and what its errors mean."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from sqlite_utils.utils import sqlite3 as sqlite3  # type: ignore[attr-defined]  # noqa: PLC0414

from idpass_server.rules.refusals import StoreUnavailable
from idpass_server.store import CannotOpen, StoreBroken
from idpass_server.store.sqlite.schema import APPLICATION_ID

SQLITE_MINIMUM: Final = (3, 51, 3)
"""Oldest SQLite that never loses a commit when a checkpoint races with a writer (WAL-reset bug)."""
BUSY_TIMEOUT_S: Final = 2.0
"""Timeout for another process's lock, seconds. A batch may wait for as long again behind one that
waits; both together are shorter than a client's default deadline, 5 s."""
CACHE_KIB: Final = 16_000
"""Page cache of each connection, KiB."""
DAMAGED: Final = ("SQLITE_NOTADB", "SQLITE_CORRUPT")
"""Names of errors that mean a damaged file."""

# After these errors nothing is lost.
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
# After these the file cannot be trusted.
_BROKEN: Final = ("SQLITE_IOERR", *DAMAGED)


def connect(path: Path, *, read_only: bool = False) -> Any:
    """Opens a connection with this service's settings.

    Args:
        path: of the file.
        read_only: open it for reading only.

    Raises:
        CannotOpen: the file is damaged or not a database of this service, or SQLite is too old.
    """
    if sqlite3.sqlite_version_info < SQLITE_MINIMUM:
        raise CannotOpen(
            f"SQLite {sqlite3.sqlite_version} can lose commits in WAL mode; "
            f"{'.'.join(map(str, SQLITE_MINIMUM))} or newer is needed: "
            "pip install 'pysqlite3>=0.6.1'"
        )
    try:
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rw'}",
            uri=True,
            timeout=BUSY_TIMEOUT_S,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            for pragma in (f"cache_size = -{CACHE_KIB}", "synchronous = FULL"):
                connection.execute(f"PRAGMA {pragma}")
            ours = connection.execute("PRAGMA application_id").fetchone()[0] == APPLICATION_ID
            empty = not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if not ours and not (empty and not read_only):
                raise CannotOpen(f"{path} is a database, but not one of idpass-server")
        except BaseException:
            connection.close()
            raise
    except sqlite3.Error as error:
        raise CannotOpen(cannot_open(path, error)) from error
    return connection


def wait_for_locks(connection: Any, timeout_s: float) -> None:
    """Sets how long a connection waits for another one's lock, seconds."""
    # The driver's own option takes whole seconds.
    connection.execute(f"PRAGMA busy_timeout = {round(timeout_s * 1_000)}")


def cannot_open(path: Path, error: Exception) -> str:
    """Says why a file cannot be opened and what to do, for operators."""
    name = getattr(error, "sqlite_errorname", "")
    if name.startswith(DAMAGED):
        return f"{path} is damaged or no SQLite database ({error}); restore it from a backup"
    if name.startswith("SQLITE_CANTOPEN"):
        return f"{path} cannot be opened; does its folder exist, and may this user write there?"
    if name.startswith("SQLITE_FULL"):
        return f"the disk of {path} is full; free some room and start again"
    if name.startswith("SQLITE_READONLY"):
        return (
            f"{path} cannot be written: it, its folder or its file system is read-only, or this "
            "process may open no more files"
        )
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return f"{path} is locked by another program; end that one and try again"
    return f"{path} cannot be opened: {error}"


@contextmanager
def own_errors(path: Path) -> Iterator[None]:
    """Turns the driver's errors into this service's.

    Raises:
        StoreUnavailable: nothing was changed.
        StoreBroken: the file cannot be trusted.
    """
    try:
        yield
    except sqlite3.Error as error:
        name = getattr(error, "sqlite_errorname", "") or ""
        for prefix, why in _UNAVAILABLE.items():
            if name.startswith(prefix):
                raise StoreUnavailable(f"{why}; nothing was changed") from error
        if name.startswith(_BROKEN):
            raise StoreBroken(f"{path} cannot be read or written: {error}") from error
        raise
