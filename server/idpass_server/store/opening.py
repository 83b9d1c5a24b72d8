"""Which store a database URL means."""

import importlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import ModuleType
from typing import Any, Final

from idpass_server.failures import BadSetting
from idpass_server.store import CannotOpen, Store
from idpass_server.store.audit import Audit, audit
from idpass_server.store.schema import Plan
from idpass_server.store.sqlite import file as sqlite_file
from idpass_server.store.sqlite.store import SqliteStore
from idpass_server.urls import sqlite_path

WAL_TOLD_BYTES: Final = 64 * 2**20
"""Growth of the write-ahead log during an audit that operators are told of, bytes."""


def open_store(url: str, *, exclusive: bool = True, create: bool = False) -> Store:
    """
    Args:
        url: of the database, as in Settings.
        exclusive: to serve it; false is for one short change beside a running server.
        create: make a SQLite file where there is none.

    Raises:
        BadSetting: the URL is none.
        CannotOpen: the database cannot be used.
    """
    path = sqlite_path(url)
    if path is not None:
        return SqliteStore(path, exclusive=exclusive, migrates=exclusive, create=create)
    store: Store = _postgres().PostgresStore(url)
    return store


def make_store(url: str) -> None:
    """Makes a new database; PostgreSQL's own has to be there, empty.

    Raises:
        CannotOpen: there is one already, or it cannot be made; otherwise as open_store.
    """
    path = sqlite_path(url)
    if path is None:
        migrate_store(url)
        return
    if path.exists():
        raise CannotOpen(
            f"{path.absolute()} exists; bring it up to date with: "
            f"idpass-server migrate --db '{url}'"
        )
    SqliteStore(path).close()


def migrate_store(url: str) -> list[str]:
    """Brings a database's schema up to date. Returns the names of the migrations applied.

    Raises: as open_store.
    """
    path = sqlite_path(url)
    if path is None:
        applied: list[str] = _postgres().migrate(url)
        return applied
    store = SqliteStore(path, exclusive=False, create=False)
    store.close()
    return store.migrated


def plan_store(url: str) -> Plan:
    """What migrate_store would do; changes nothing.

    Raises:
        SchemaTooNew: a newer program has changed the schema beyond what this one can serve.
        CannotOpen: as open_store.
    """
    path = sqlite_path(url)
    if path is not None:
        return sqlite_file.planned(path)
    plan: Plan = _postgres().planned(url)
    return plan


def reading_store(url: str, *, quick: bool = False) -> AbstractContextManager[Any]:
    """A connection in a read transaction, whatever the database.

    Args:
        url: of the database.
        quick: of a SQLite file, do not compare the indexes with the tables.

    Raises:
        Damaged: a SQLite file is; otherwise as open_store.
    """
    path = sqlite_path(url)
    if path is not None:
        return sqlite_file.reading(path, quick=quick)
    connected: AbstractContextManager[Any] = _postgres().reading(url)
    return connected


def audit_store(
    url: str, *, quick: bool = False, begin: Callable[[str], None] = lambda _: None
) -> Audit:
    """Checks every invariant of a database, which may be in use.

    Args:
        url: of the database.
        quick: leave out what compares rows with each other.
        begin: told what each step looks for.

    Raises: as open_store.
    """
    begin("damage to the file or the connection")
    before = _wal_bytes(url)
    try:
        with reading_store(url, quick=quick) as connection:
            found = audit(connection, quick=quick, begin=begin)
    except sqlite_file.Damaged as damage:
        return Audit(damage.lines, [], {})
    grown = _wal_bytes(url) - before
    if grown > WAL_TOLD_BYTES:
        found.warnings.append(
            f"the write-ahead log grew by {grown // 2**20} MiB meanwhile, since what is being read "
            "cannot be written over; the server makes use of the room again"
        )
    return found


def _wal_bytes(url: str) -> int:
    """The size of a SQLite file's write-ahead log; 0 where there is none."""
    path = sqlite_path(url)
    try:
        return 0 if path is None else path.with_name(f"{path.name}-wal").stat().st_size
    except OSError:
        return 0


def copy_store(
    source: str, target: str, begin: Callable[[int], Callable[[int], None]]
) -> dict[str, tuple[int, str]]:
    """Moves everything from a SQLite file to a PostgreSQL database; see `copying.copy`.

    Returns:
        the number of rows and their checksum, by table.

    Raises:
        BadSetting: a URL is not of that kind.
        CannotOpen: see `copying.copy`.
    """
    path = sqlite_path(source)
    if path is None or sqlite_path(target) is not None:
        raise BadSetting("copy goes --from sqlite:///FILE --to postgresql://host/database")
    _postgres()
    from idpass_server.store import copying  # noqa: PLC0415 it needs the extra

    copied = copying.copy(path, target, begin)
    return {table.name: each for table, each in zip(copying.TABLES, copied, strict=True)}


def _postgres() -> ModuleType:
    try:
        return importlib.import_module("idpass_server.store.postgres.store")
    except ImportError as error:
        raise CannotOpen(
            f"PostgreSQL needs {error.name}, which is missing: "
            "pip install 'idpass-server[postgresql]'"
        ) from error
