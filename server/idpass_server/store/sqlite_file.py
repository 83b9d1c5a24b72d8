"""Opening a SQLite file: fit to be used, ours, up to date, and served by one process only."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from sqlite_utils import Database
from sqlite_utils.utils import sqlite3 as sqlite3  # type: ignore[attr-defined]  # noqa: PLC0414

from idpass_server.store import CannotOpen
from idpass_server.store.sqlite_schema import APPLICATION_ID, migrations

# Older versions can lose commits when a checkpoint races with a writer (the WAL-reset fault,
# fixed in 3.51.3).
SQLITE_MINIMUM: Final = (3, 51, 3)
BUSY_TIMEOUT_S: Final = 5.0
CACHE_KIB: Final = 16_000


def connect(path: Path, *, read_only: bool = False) -> Any:
    """A connection as this service uses them.

    Raises:
        CannotOpen: the file is no database of this service, or is damaged.
    """
    if sqlite3.sqlite_version_info < SQLITE_MINIMUM:
        raise CannotOpen(
            f"SQLite {sqlite3.sqlite_version} can lose commits in WAL mode; "
            f"{'.'.join(map(str, SQLITE_MINIMUM))} or newer is needed: "
            "pip install 'pysqlite3>=0.6.1'"
        )
    try:
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rwc'}",
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


def cannot_open(path: Path, error: Exception) -> str:
    name = getattr(error, "sqlite_errorname", "")
    if name.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")):
        return f"{path} is damaged or no SQLite database ({error}); restore it from a backup"
    if name.startswith("SQLITE_CANTOPEN"):
        return f"{path} cannot be opened; does its folder exist, and may this user write there?"
    if name.startswith("SQLITE_FULL"):
        return f"the disk of {path} is full; free some room and start again"
    return f"{path} cannot be opened: {error}"


class Damaged(Exception):
    """The file is damaged. Args: lines: in what way."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("; ".join(lines))
        self.lines = lines


@contextmanager
def reading(path: Path, *, quick: bool = False) -> Iterator[Any]:
    """A connection in a read transaction on a file that is whole.

    Args:
        path: of the file.
        quick: do not compare the indexes with the tables.

    Raises:
        CannotOpen, Damaged: see there.
    """
    connection = connect(path, read_only=True)
    try:
        connection.execute("BEGIN")
        pragma = "quick_check" if quick else "integrity_check"
        damage = [row[0] for row in connection.execute(f"PRAGMA {pragma}(5)")]
        if damage != ["ok"]:
            raise Damaged([f"the file is damaged: {line}" for line in damage])
        yield connection
    except sqlite3.DatabaseError as error:
        raise Damaged([f"the file is damaged: {error}"]) from error
    finally:
        connection.close()


def migrate(connection: Any) -> list[str]:
    """Brings the schema up to date, once however many processes start at the same time.

    Returns:
        the names of the migrations that were applied.

    Raises:
        CannotOpen: the schema is newer than this program.
    """
    connection.execute("PRAGMA journal_mode = WAL")
    db = Database(connection, execute_plugins=False)
    connection.execute("BEGIN IMMEDIATE")
    try:
        known = [migration.name for migration in migrations._migrations]  # noqa: SLF001 no accessor
        before = {applied.name for applied in migrations.applied(db)}
        unknown = before - set(known)
        if unknown:
            raise CannotOpen(
                "the database was written by a newer idpass-server (it has "
                f"{', '.join(sorted(unknown))}); run that version"
            )
        migrations.apply(db)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return [name for name in known if name not in before]


def lock(path: Path) -> int:
    """Takes the file for this process, until it ends however it ends.

    Returns:
        the descriptor that holds the lock.

    Raises:
        CannotOpen: another process has it.
    """
    # A file beside the database: closing a descriptor of the database itself would drop the
    # locks SQLite holds on it.
    file = path.resolve()
    beside = file.with_name(file.name + ".lock")
    try:
        descriptor = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise CannotOpen(f"{beside} cannot be made: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
    except BlockingIOError as error:
        holder = os.read(descriptor, 32).decode(errors="replace").strip()
        os.close(descriptor)
        raise CannotOpen(
            f"{path} is being served by another process (pid {holder or 'unknown'}); one process "
            "serves a SQLite file. Stop that one, or give this one another --db"
        ) from error
    except OSError as error:
        os.close(descriptor)
        raise CannotOpen(f"{beside} cannot be locked: {error.strerror}") from error
    return descriptor
