"""Databases by URL: which store a URL means, and what operators do with either kind."""

import importlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from idpass_server import extras
from idpass_server.failures import BadSetting
from idpass_server.store import PROGRAM, CannotOpen, Store
from idpass_server.store.audit import Audit, audit
from idpass_server.store.history import NewHistory
from idpass_server.store.observing import NOBODY, StoreObserver
from idpass_server.store.schema import Plan
from idpass_server.store.sqlite import backup, restoring
from idpass_server.store.sqlite.backup import Backup
from idpass_server.store.sqlite.migrating import planned
from idpass_server.store.sqlite.opening import Damaged, reading
from idpass_server.store.sqlite.restoring import Former, Restored
from idpass_server.store.sqlite.store import SqliteStore
from idpass_server.urls import sqlite_path

WAL_TOLD_BYTES: Final = 64 * 2**20
"""Growth of the WAL during an audit from which the audit warns of it, bytes."""


def open_store(
    url: str,
    *,
    exclusive: bool = True,
    create: bool = False,
    observer: StoreObserver = NOBODY,
) -> Store:
    """Opens a database for changes.

    Args:
        url: of the database, as in Settings.
        exclusive: open it to serve it; false for one short change, beside a server or not.
        create: create a SQLite file that does not exist.
        observer: is told what the store does.

    Raises:
        BadSetting: the URL cannot be used.
        CannotOpen: the database cannot be used.
    """
    path = sqlite_path(url)
    if path is not None:
        return SqliteStore(
            path, exclusive=exclusive, migrates=exclusive, create=create, observer=observer
        )
    store: Store = _postgres().PostgresStore(url, observer)
    return store


def make_store(url: str) -> None:
    """Creates the SQLite file, or the tables in a PostgreSQL database, which must exist.

    Args:
        url: of the database.

    Raises:
        BadSetting: the URL cannot be used.
        CannotOpen: the file exists already, or the database cannot be used.
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
    """Brings a database's schema up to date.

    Args:
        url: of the database.

    Returns:
        names of the migrations applied.

    Raises:
        BadSetting: the URL cannot be used.
        CannotOpen: the database cannot be used.
    """
    path = sqlite_path(url)
    if path is None:
        applied: list[str] = _postgres().migrate(url)
        return applied
    store = SqliteStore(path, exclusive=False, create=False)
    store.close()
    return store.migrated


def begin_history(url: str, who: str = PROGRAM) -> NewHistory:
    """Begins a new history of a database that was brought back to an older state.

    Args:
        url: of the database, which no server uses.
        who: the operator, for the admin log.

    Raises:
        BadSetting: the URL cannot be used.
        CannotOpen: the database cannot be used.
    """
    path = sqlite_path(url)
    if path is None:
        begun: NewHistory = _postgres().begin_history(url, who)
        return begun
    with closing(SqliteStore(path, migrates=False, create=False)) as store:
        return store.begin_history(who)


def back_up(
    url: str,
    to: Path,
    *,
    keep: int | None = None,
    replace: bool = False,
    begin: Callable[[str], None] = lambda _: None,
) -> Backup:
    """Backs up a SQLite file, which may be served.

    Args:
        url: of the database.
        to: as for `backup.back_up`, and so are the others.

    Raises:
        BadSetting: the URL or `to` cannot be used.
        CannotOpen: the database cannot be read, or the backup cannot be written or is not sound.
    """
    path = _only_sqlite(url, "backs up")
    try:
        return backup.back_up(path, to, keep=keep, replace=replace, begin=begin)
    except Damaged as damage:
        raise CannotOpen(
            f"{path}: the copy is not sound and was not kept: {damage}; audit the database with: "
            f"idpass-server audit --db '{url}'"
        ) from damage


def restore(
    file: Path,
    url: str,
    who: str,
    *,
    confirm: Callable[[Former], None],
    begin: Callable[[str], None] = lambda _: None,
) -> Restored:
    """Replaces a SQLite file by a backup; arguments as for `restoring.restore`.

    Raises:
        BadSetting: the URL or the file cannot be used.
        CannotOpen: the file or the database cannot be used; nothing was changed.
    """
    path = _only_sqlite(url, "restores")
    try:
        return restoring.restore(file, path, who, confirm=confirm, begin=begin)
    except Damaged as damage:
        raise CannotOpen(f"{file} is not sound, and nothing was changed: {damage}") from damage


def _only_sqlite(url: str, does: str) -> Path:
    path = sqlite_path(url)
    if path is None:
        raise BadSetting(
            f"this command {does} SQLite files; PostgreSQL has tools of its own, such as "
            "pg_basebackup with a WAL archive or pgBackRest: see server/docs/keeping.md"
        )
    return path


def plan_store(url: str) -> Plan:
    """Says what migrate_store would do; changes nothing.

    Args:
        url: of the database.

    Raises:
        BadSetting: the URL cannot be used.
        SchemaTooNew: a newer program has changed the schema beyond what this one can serve.
        CannotOpen: the database cannot be used.
    """
    path = sqlite_path(url)
    if path is not None:
        return planned(path)
    plan: Plan = _postgres().planned(url)
    return plan


def check_store_fits(url: str) -> None:
    """Checks that this program could serve a database, which another may be serving now.

    A SQLite file may lack migrations, since serving it brings it up to date.

    Args:
        url: of the database.

    Raises:
        BadSetting: the URL cannot be used.
        SchemaTooNew: a newer program has changed the schema beyond what this one can serve.
        SchemaOutdated: the PostgreSQL database lacks migrations of this program.
        CannotOpen: the database does not exist or cannot be read.
    """
    if sqlite_path(url) is None:
        open_store(url).close()
    else:
        plan_store(url)


@contextmanager
def reading_store(url: str) -> Iterator[Any]:
    """Opens a read transaction on a database of either kind, which may be in use.

    Args:
        url: of the database.

    Raises:
        BadSetting: the URL cannot be used.
        CannotOpen: the database cannot be used.
    """
    path = sqlite_path(url)
    if path is None:
        with _postgres().reading(url) as connection:
            yield connection
        return
    try:
        with reading(path) as connection:
            yield connection
    except Damaged as damage:
        raise CannotOpen(f"{path}: {damage}; restore it from a backup") from damage


def audit_store(
    url: str, *, quick: bool = False, begin: Callable[[str], None] = lambda _: None
) -> Audit:
    """Checks every invariant of a database, which may be in use.

    Args:
        url: of the database.
        quick: leave out checks that compare rows of different tables.
        begin: called before each step with what it looks for.

    Raises:
        BadSetting: the URL cannot be used.
        CannotOpen: the database cannot be used.
    """
    begin("damage to the file or the connection")
    before = _wal_bytes(url)
    try:
        with _audited(url, quick=quick) as connection:
            found = audit(connection, quick=quick, begin=begin)
    except Damaged as damage:
        return Audit(damage.lines, [], {})
    grown = _wal_bytes(url) - before
    if grown > WAL_TOLD_BYTES:
        found.warnings.append(
            f"the write-ahead log grew by {grown // 2**20} MiB meanwhile, since what is being read "
            "cannot be written over; the server makes use of the room again"
        )
    return found


def _audited(url: str, *, quick: bool) -> AbstractContextManager[Any]:
    path = sqlite_path(url)
    if path is not None:
        return reading(path, check="quick_check" if quick else "integrity_check")
    return reading_store(url)


def _wal_bytes(url: str) -> int:
    """Size of a SQLite file's WAL, bytes; 0 if there is none."""
    path = sqlite_path(url)
    try:
        return 0 if path is None else path.with_name(f"{path.name}-wal").stat().st_size
    except OSError:
        return 0


def copy_store(
    source: str, target: str, begin: Callable[[int], Callable[[int], None]]
) -> dict[str, tuple[int, str]]:
    """Copies everything from a SQLite file to an empty PostgreSQL database.

    Args:
        source: URL of the SQLite file.
        target: URL of the PostgreSQL database.
        begin: called with the number of steps; returns what to call with steps that are done.

    Returns:
        number of rows and their checksum, by table.

    Raises:
        BadSetting: a URL is of the wrong kind.
        CannotOpen: see `copying.copy`.
    """
    path = sqlite_path(source)
    if path is None or sqlite_path(target) is not None:
        raise BadSetting("copy goes --from sqlite:///FILE --to postgresql://host/database")
    _postgres()
    from idpass_server.store import copying  # noqa: PLC0415 it needs the extra

    copied = copying.copy(path, target, begin)
    return {table.name: each for table, each in zip(copying.TABLES, copied, strict=True)}


def compact_store(url: str) -> tuple[int, int]:
    """Gives the room of what was deleted from a SQLite file back to the disk.

    Args:
        url: of the database, which no server uses.

    Returns:
        size of the file before and after, bytes.

    Raises:
        BadSetting: the URL is not that of a SQLite file.
        CannotOpen: the file is being served, or cannot be used.
        StoreUnavailable: the disk has not enough room.
    """
    path = sqlite_path(url)
    if path is None:
        raise BadSetting(
            "compact is for SQLite files; PostgreSQL reuses room by itself (autovacuum), and gives "
            "it back with VACUUM FULL, which locks a table"
        )
    with closing(SqliteStore(path, migrates=False, create=False)) as store:
        before = path.stat().st_size
        store.compact()
    return before, path.stat().st_size


def _postgres() -> ModuleType:
    try:
        return importlib.import_module("idpass_server.store.postgres.store")
    except ImportError as error:
        raise CannotOpen(extras.missing("PostgreSQL", error, "postgresql")) from error
