"""Opening a SQLite file: fit to be used, ours, and with the schema of this program."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import structlog
from sqlite_utils.utils import sqlite3 as sqlite3  # type: ignore[attr-defined]  # noqa: PLC0414

from idpass_server.store import CannotOpen, schema
from idpass_server.store.sqlite import schema as sqlite_schema
from idpass_server.store.sqlite.hold import (
    LOCK_WAIT_S,
    Hold,
    Identity,
    Names,
    Taken,
    cannot_write,
    create_private,
    must_exist,
    sync_folder,
)
from idpass_server.store.sqlite.schema import APPLICATION_ID
from idpass_server.store.sqlite.wal import claim, mark, refuse_foreign, settle

# Older versions can lose commits when a checkpoint races with a writer (the WAL-reset fault,
# fixed in 3.51.3).
SQLITE_MINIMUM: Final = (3, 51, 3)
BUSY_TIMEOUT_S: Final = 2.0
"""Time to wait for another process's lock, seconds. A batch may wait as long again behind one that
waits, and both together are shorter than a client's time for a call (5 s)."""
CACHE_KIB: Final = 16_000
_DAMAGED: Final = ("SQLITE_NOTADB", "SQLITE_CORRUPT")

log = structlog.get_logger()


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


def cannot_open(path: Path, error: Exception) -> str:
    name = getattr(error, "sqlite_errorname", "")
    if name.startswith(_DAMAGED):
        return f"{path} is damaged or no SQLite database ({error}); restore it from a backup"
    if name.startswith("SQLITE_CANTOPEN"):
        return f"{path} cannot be opened; does its folder exist, and may this user write there?"
    if name.startswith("SQLITE_FULL"):
        return f"the disk of {path} is full; free some room and start again"
    if name.startswith("SQLITE_READONLY"):
        return f"{path} cannot be written: it, its folder or its file system is read-only"
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return f"{path} is locked by another program; end that one and try again"
    return f"{path} cannot be opened: {error}"


class Opened(NamedTuple):
    """A file open to be changed.

    Args:
        hold: None where another process serves it.
        identity: of the files.
        connection: to it.
        migrated: names of the migrations that were applied.
    """

    hold: Hold | None
    identity: Identity
    connection: Any
    migrated: list[str]


def opened(path: Path, *, exclusive: bool, migrates: bool, create: bool) -> Opened:
    """Opens a file to be changed; everything that it holds is on disk then.

    Args:
        exclusive: keep others from changing it.
        migrates: bring its schema up to date, and not only check it.
        create: make it where there is none.

    Raises:
        CannotOpen: another process serves it, or it is not fit to be used.
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
    """Brings a file into the state in which it is served. Returns the migrations applied."""
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise CannotOpen(f"{names.given} is where SQLite's WAL does not work; use a local disk")
    if alone:
        settle(connection, names)
    if not migrates:
        check_schema(connection, names.given)
        return []
    if alone:
        claim(connection, names)
    return migrate(connection, names, alone=alone)


def _take(names: Names, *, shared: bool) -> Hold | None:
    """Takes a file; None where another process serves it and that is no hindrance."""
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
    names = Names(path)
    must_exist(names)
    _refuse_left_behind(names)
    connection = connect(path, read_only=True)
    try:
        connection.execute("BEGIN")
        check_schema(connection, path)
        pragma = "quick_check" if quick else "integrity_check"
        damage = [row[0] for row in connection.execute(f"PRAGMA {pragma}(5)")]
        if damage != ["ok"]:
            raise Damaged([f"the file is damaged: {line}" for line in damage])
        yield connection
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorname", "").startswith(_DAMAGED):
            raise Damaged([f"the file is damaged: {error}"]) from error
        raise CannotOpen(cannot_open(path, error)) from error
    finally:
        connection.close()


def _refuse_left_behind(names: Names) -> None:
    """Raises: CannotOpen: nobody serves the file, and its WAL is another's."""
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


def check_schema(connection: Any, path: Path) -> None:
    """Raises: SchemaOutdated, SchemaTooNew: see `schema.check`."""
    schema.check(sqlite_schema.SCHEMA, sqlite_schema.found(connection), f"sqlite:///{path}")


def migrate(connection: Any, names: Names, *, alone: bool) -> list[str]:
    """Brings the schema up to date, after a backup beside the file where it has data already.

    Args:
        alone: no other process serves the file.

    Returns:
        the names of the migrations that were applied.

    Raises:
        SchemaTooNew: a newer program has changed it beyond what this one can serve.
        Taken: a server is running that could not go on afterwards.
        CannotOpen: there is no room for the backup.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        found = sqlite_schema.found(connection)
        plan = schema.plan(sqlite_schema.SCHEMA, found)
        if plan.ends_older and not alone:
            raise Taken(
                f"{names.given} is being served by another process, which could not go on after "
                f"{', '.join(plan.migrations)}; stop it first"
            )
        if plan.migrations and found.applied:
            back_up(names, f"before-{plan.migrations[0]}")
        sqlite_schema.apply(connection, plan)
        mark(connection)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return plan.migrations


def planned(path: Path) -> schema.Plan:
    """What bringing a file's schema up to date would do; changes nothing.

    Raises:
        SchemaTooNew: see `schema.plan`.
        CannotOpen: there is no such database, or it cannot be read.
    """
    must_exist(Names(path))
    connection = connect(path, read_only=True)
    try:
        return schema.plan(sqlite_schema.SCHEMA, sqlite_schema.found(connection))
    except sqlite3.Error as error:
        raise CannotOpen(cannot_open(path, error)) from error
    finally:
        connection.close()


def back_up(names: Names, word: str) -> Path:
    """Copies what is committed into a new file beside the database, to the disk.

    Args:
        word: what its name says of it, beside the time.

    Returns:
        its path.

    Raises:
        CannotOpen: it cannot be written.
    """
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    path = names.file.with_name(f"{names.file.name}.{word}-{moment}")
    try:
        descriptor = create_private(path)
        try:
            reader = connect(names.file, read_only=True)
            try:
                reader.execute("VACUUM INTO ?", (str(path),))
            finally:
                reader.close()
            os.fsync(descriptor)
            sync_folder(path)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
    except (OSError, sqlite3.Error) as error:
        raise CannotOpen(
            f"no backup can be written to {path}, and without one the schema is not changed: "
            f"{error}"
        ) from error
    log.info("backup_made", path=str(path))
    return path
