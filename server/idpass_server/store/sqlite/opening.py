"""Opening a SQLite file: fit to be used, ours, and with the schema of this program."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

from idpass_server.store import CannotOpen
from idpass_server.store.sqlite.file import DAMAGED, cannot_open, connect, sqlite3
from idpass_server.store.sqlite.hold import LOCK_WAIT_S, Hold, Identity, Taken
from idpass_server.store.sqlite.migrating import check_schema, migrate
from idpass_server.store.sqlite.paths import Names, cannot_write, must_exist
from idpass_server.store.sqlite.wal import claim, refuse_foreign, settle


class Opened(NamedTuple):
    """A file that is open for changes.

    Attributes:
        hold: the lock on it; None if another process serves it.
        identity: which files were opened.
        connection: for changes.
        migrated: names of the migrations applied.
    """

    hold: Hold | None
    identity: Identity
    connection: Any
    migrated: list[str]


def opened(path: Path, *, exclusive: bool, migrates: bool, create: bool) -> Opened:
    """Opens a file for changes. On return everything that it holds is on disk.

    Args:
        path: of the file.
        exclusive: keep other processes from changing it.
        migrates: bring its schema up to date instead of only checking it.
        create: create the file if it does not exist.

    Raises:
        CannotOpen: another process serves it, or it is not fit for use.
    """
    names = Names(path)
    if not create:
        must_exist(names)
    hold = _take(names, shared=not exclusive)
    try:
        connection = connect(path)
        try:
            migrated = _prepare(connection, names, alone=hold is not None, migrates=migrates)
            return Opened(hold, Identity(names), connection, migrated)
        except BaseException:
            connection.close()
            raise
    except BaseException as error:
        if hold is not None:
            hold.close()
        if isinstance(error, OSError):
            raise CannotOpen(cannot_write(path, error)) from error
        if isinstance(error, sqlite3.Error):
            raise CannotOpen(cannot_open(path, error)) from error
        raise


def _prepare(connection: Any, names: Names, *, alone: bool, migrates: bool) -> list[str]:
    """Prepares a file for changes. Returns the names of the migrations applied."""
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise CannotOpen(f"{names.given} is where SQLite's WAL does not work; use a local disk")
    if alone:
        _prove_writable(connection)
        settle(connection, names)
    if not migrates:
        check_schema(connection, names.given)
        return []
    if alone:
        claim(connection, names)
    return migrate(connection, names, alone=alone)


def _prove_writable(connection: Any) -> None:
    """Changes something, and takes it back.

    SQLite opens a file that it cannot open for changes for reading alone, and then takes BEGIN
    IMMEDIATE for the beginning of a read.

    Raises:
        sqlite3.Error: nothing can be changed.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        connection.execute(f"PRAGMA user_version = {version}")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _take(names: Names, *, shared: bool) -> Hold | None:
    """Locks a file; returns None if another process serves it and `shared` allows that."""
    try:
        hold = Hold(names, wait_s=0 if shared else LOCK_WAIT_S)
    except Taken:
        if shared:
            return None
        raise
    try:
        refuse_foreign(names, hold.descriptor)
    except BaseException:
        hold.close()
        raise
    return hold


class Damaged(Exception):
    """The file is damaged.

    Args:
        lines: what is wrong, one finding each.
    """

    def __init__(self, lines: list[str]) -> None:
        super().__init__("; ".join(lines))
        self.lines = lines


@contextmanager
def reading(
    path: Path, *, check: Literal["integrity_check", "quick_check"] | None = None
) -> Iterator[Any]:
    """Opens a read transaction on a file.

    Args:
        path: of the file.
        check: SQLite's check for damage that comes first, which reads all of the file; the quick
            one leaves out comparing indexes with tables. None for no check.

    Raises:
        CannotOpen: the file does not exist or cannot be used.
        Damaged: the file is damaged.
    """
    names = Names(path)
    must_exist(names)
    refuse_left_behind(names)
    connection = connect(path, read_only=True)
    try:
        connection.execute("BEGIN")
        check_schema(connection, path)
        if check is not None:
            damage = [row[0] for row in connection.execute(f"PRAGMA {check}(5)")]
            if damage != ["ok"]:
                raise Damaged([f"the file is damaged: {line}" for line in damage])
        yield connection
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorname", "").startswith(DAMAGED):
            raise Damaged([f"the file is damaged: {error}"]) from error
        raise CannotOpen(cannot_open(path, error)) from error
    finally:
        connection.close()


def refuse_left_behind(names: Names) -> None:
    """Refuses a file that nobody serves and whose WAL belongs to another file.

    Raises:
        CannotOpen: it is so.
    """
    if not names.wal.exists() or not names.wal.stat().st_size:
        return
    try:
        hold = Hold(names, wait_s=0)
    except CannotOpen:  # it is served, or this user may only read it
        return
    try:
        refuse_foreign(names, hold.descriptor)
    finally:
        hold.close()
