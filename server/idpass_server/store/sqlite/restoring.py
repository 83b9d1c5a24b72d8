"""Restoring a SQLite file from a backup, which begins a new history.

Whatever instant the process or the machine dies at, the name leads to the former database, whole,
or to the restored one with its new history. In this order:

1. The backup is copied beside the database, under another name. There it gets this program's
   schema and its new history, is audited, and synced.
2. The former database's WAL is folded into its file and removed, by SQLite. From then on the file
   is all of it, and no WAL is left that could be taken for the restored one's.
3. Renaming replaces one file by the other.

A former database that is damaged has nothing to be folded; its WAL is deleted before the renaming.
All that time its lock is held.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

from idpass_server.failures import BadSetting
from idpass_server.store import CannotOpen
from idpass_server.store.audit import Audit, audit
from idpass_server.store.history import NewHistory
from idpass_server.store.sqlite.backup import copy_pages, verify_digest
from idpass_server.store.sqlite.file import cannot_open, connect, sqlite3
from idpass_server.store.sqlite.hold import Hold, name_held
from idpass_server.store.sqlite.opening import Damaged, refuse_left_behind
from idpass_server.store.sqlite.paths import (
    Names,
    cannot_write,
    create_private,
    must_exist,
    sync_folder,
)
from idpass_server.store.sqlite.store import SqliteStore
from idpass_server.store.sqlite.wal import refuse_foreign

_RESTORING: Final = ".restoring"


class Former(NamedTuple):
    """The database that a restore replaces.

    Attributes:
        path: of its file.
        unreadable: why it cannot be read; None if it can.
        newest: the newest sequence of any account; 0 if that is not known.
    """

    path: Path
    unreadable: str | None
    newest: int


class Restored(NamedTuple):
    """A database that was restored.

    Attributes:
        path: of its file.
        history: that it begins.
        verified: whether the backup was compared with a SHA-256 beside it.
        counts: number of accounts, passes and events.
    """

    path: Path
    history: NewHistory
    verified: bool
    counts: dict[str, int]


def restore(
    backup: Path,
    path: Path,
    who: str,
    *,
    confirm: Callable[[Former], None],
    begin: Callable[[str], None] = lambda _: None,
) -> Restored:
    """Replaces a database by a backup, or makes one from it.

    Args:
        backup: the file, as `back_up` or Litestream made it.
        path: of the database.
        who: the operator, for the admin log.
        confirm: called before a database is replaced; raises to leave it alone.
        begin: called before each step with what it does.

    Raises:
        BadSetting: the backup is the database itself.
        CannotOpen: the backup or the database cannot be used; nothing was changed.
        Damaged: the backup is not sound; nothing was changed.
    """
    names, source = Names(path), Names(backup)
    must_exist(source)
    if source.file == names.file:
        raise BadSetting(f"{backup} is the database itself; name a backup of it")
    refuse_left_behind(source)
    begin("reading the backup")
    verified = verify_digest(source.file)
    with _held(names) as hold:
        former = None
        if hold is not None:
            former = _former(names, hold)
            confirm(former)
        with _prepared(names) as prepared:
            begin("copying")
            _copy(source.file, prepared)
            begin("beginning a new history")
            with closing(SqliteStore(prepared, create=False)) as store:
                history = store.begin_history(who, beyond=former.newest if former else 0)
            begin("checking")
            found = _audited(prepared)
            begin("replacing")
            _give(names, prepared)
            _replace(names, prepared, former)
    return Restored(names.file, history, verified, found.counts)


@contextmanager
def _held(names: Names) -> Iterator[Hold | None]:
    """Keeps servers from the name. Yields the lock on a database, None if there is none."""
    if not names.file.exists() or not names.file.stat().st_size:
        with name_held(names):
            yield None
        return
    with closing(Hold(names, wait_s=0)) as hold:
        yield hold


def _former(names: Names, hold: Hold) -> Former:
    """Reads what is about to be replaced, as far as it can be read.

    Raises:
        CannotOpen: it is a database, but none of this service.
    """
    try:
        refuse_foreign(names, hold.descriptor)
    except CannotOpen as error:
        return Former(names.file, str(error), 0)
    try:
        with closing(connect(names.file)) as connection:
            (newest,) = connection.execute("SELECT max(last_sequence) FROM accounts").fetchone()
    except CannotOpen as error:
        if error.__cause__ is None:
            raise
        return Former(names.file, str(error), 0)
    except sqlite3.Error as error:
        return Former(names.file, cannot_open(names.file, error), 0)
    return Former(names.file, None, newest or 0)


@contextmanager
def _prepared(names: Names) -> Iterator[Path]:
    """A new file beside the database, which is gone in the end with all that belongs to it."""
    path = names.file.with_name(names.file.name + _RESTORING)
    _remove(path)
    try:
        os.close(create_private(path))
        yield path
    except OSError as error:
        raise CannotOpen(cannot_write(path, error)) from error
    finally:
        _remove(path)


def _remove(path: Path) -> None:
    """Removes a prepared file, the lock, WAL and journal beside it, and migrations' backups."""
    with suppress(OSError):
        for each in path.parent.iterdir():
            if each.name.startswith(path.name):
                each.unlink(missing_ok=True)


def _copy(backup: Path, to: Path) -> None:
    try:
        with closing(connect(backup, read_only=True)) as source:
            copy_pages(source, to)
    except sqlite3.Error as error:
        raise CannotOpen(cannot_open(backup, error)) from error


def _audited(path: Path) -> Audit:
    """Audits the prepared file. It was closed, so that nothing is in a WAL.

    Raises:
        Damaged: it is not sound.
    """
    with closing(connect(path)) as connection:
        connection.execute("BEGIN")
        damage = [row[0] for row in connection.execute("PRAGMA integrity_check(5)")]
        if damage != ["ok"]:
            raise Damaged(damage)
        found = audit(connection)
        connection.execute("ROLLBACK")
    if found.problems:
        raise Damaged(found.problems)
    return found


def _give(names: Names, prepared: Path) -> None:
    """Gives the prepared file to whom the database belongs, or else the folder.

    Raises:
        CannotOpen: it cannot be given to another user.
    """
    owner = (names.file if names.file.exists() else names.file.parent).stat()
    if owner.st_uid == os.geteuid():
        return
    try:
        for path in (prepared, names.lock):
            os.chown(path, owner.st_uid, owner.st_gid)
    except OSError as error:
        raise CannotOpen(
            f"{names.file} belongs to user {owner.st_uid}; restore it as that user, or as root"
        ) from error


def _replace(names: Names, prepared: Path, former: Former | None) -> None:
    """Puts the prepared file in the former one's place."""
    _sync(prepared)
    if former is not None and former.unreadable is None:
        _fold(names)
    else:
        for path in (names.wal, names.shm):
            path.unlink(missing_ok=True)
        sync_folder(names.file)
    prepared.replace(names.file)
    sync_folder(names.file)


def _fold(names: Names) -> None:
    """Folds the WAL into the file, and removes it, as closing the last connection does."""
    try:
        with closing(connect(names.file)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.Error as error:
        raise CannotOpen(cannot_open(names.file, error)) from error
    if names.wal.exists():
        raise CannotOpen(
            f"another program has {names.given} open, such as a reader or Litestream; end it first"
        )
    _sync(names.file)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
