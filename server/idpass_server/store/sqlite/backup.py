"""Backing up a SQLite file, which may be served, by SQLite's own backup API.

All pages are copied in one step, from one snapshot: the API would begin again whenever another
connection writes between two steps, which beside a server is always. VACUUM INTO would do as well;
but it builds every table and index anew, at several times the work on the machine that serves.
Until the copy is made, the server's WAL grows, since the pages of the snapshot cannot be written
over.

This process reads the file through SQLite alone. A descriptor of its own would, when closed, drop
the locks that SQLite holds for this process.

A copy is written under another name, checked, and on disk before it gets its own.
"""

import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from idpass_server.failures import BadSetting
from idpass_server.store import CannotOpen
from idpass_server.store.audit import audit
from idpass_server.store.sqlite.file import DAMAGED, sqlite3
from idpass_server.store.sqlite.opening import Damaged, reading
from idpass_server.store.sqlite.paths import Names, cannot_write, create_private, sync_folder

SHOWN_ACCOUNTS: Final = 20
"""Number of accounts whose newest sequence is told."""
_PARTIAL: Final = ".partial"
_ABANDONED_S: Final = 86_400
"""Age from which a partial copy is taken for abandoned, seconds."""
_CHUNK_BYTES: Final = 1 << 20
_FORMAT: Final = (18, b"\x01\x01")
"""Offset in the header, and bytes, of the file formats for writing and reading: not WAL."""


class Backup(NamedTuple):
    """A backup that was made.

    Attributes:
        path: of the file.
        bytes: its size.
        sha256: of its content; also in a file beside it, as sha256sum writes it.
        history: id of the database's history.
        accounts: number of accounts.
        newest: newest sequence of the first SHOWN_ACCOUNTS accounts, by name.
        seconds: time that it took.
        removed: paths of older backups that were removed.
    """

    path: Path
    bytes: int
    sha256: str
    history: str
    accounts: int
    newest: dict[str, int]
    seconds: float
    removed: list[Path]


def back_up(
    path: Path,
    to: Path,
    *,
    keep: int | None = None,
    replace: bool = False,
    begin: Callable[[str], None] = lambda _: None,
) -> Backup:
    """Makes a backup.

    Args:
        path: of the database.
        to: a new file, or a folder that exists, in which the file is named after the time.
        keep: number of backups in the folder, of this database, after which the oldest are removed.
        replace: whether `to` may be a file that exists.
        begin: called before each step with what it does.

    Raises:
        BadSetting: `to` cannot be used.
        CannotOpen: the database cannot be read, or the backup cannot be written.
        Damaged: the backup is not sound, and was not kept.
    """
    began_s = time.monotonic()
    names = Names(path)
    folder = to if to.is_dir() else None
    target = _target(names, to, replace=replace)
    partial = target.with_name(f".{target.name}{_PARTIAL}")
    try:
        descriptor = create_private(partial)
    except OSError as error:
        raise CannotOpen(cannot_write(target, error)) from error
    try:
        begin("copying")
        with reading(path) as source:
            copy_pages(source, partial)
        begin("checking")
        found = _sound(partial)
        with _written(target):
            os.fsync(descriptor)
            digest, size = _digest(descriptor)
            partial.replace(target)
            _write_digest(target, digest)
            sync_folder(target)
    finally:
        os.close(descriptor)
        partial.unlink(missing_ok=True)
    removed = [] if folder is None or keep is None else _remove_old(names, folder, keep)
    seconds = round(time.monotonic() - began_s, 1)
    return Backup(target, size, digest, *found, seconds, removed)


def _target(names: Names, to: Path, *, replace: bool) -> Path:
    if to.is_dir():
        moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        to /= f"{names.file.stem}-{moment}.db"
    elif not to.parent.is_dir():
        raise BadSetting(f"there is no folder {to.parent.absolute()}; make it, or name another")
    if to.resolve() in {names.file, names.wal, names.shm, names.lock}:
        raise BadSetting(f"{to} belongs to the database itself; a backup goes elsewhere")
    if os.path.lexists(to) and not replace:
        raise BadSetting(f"{to} exists, and nothing was changed; name a new file, or give --yes")
    return to


def copy_pages(source: Any, to: Path) -> None:
    """Copies a database to a file that exists and is empty, and needs no WAL to be opened.

    Args:
        source: a connection to the database.
        to: the file.

    Raises:
        CannotOpen: it cannot be written.
        sqlite3.Error: the database cannot be read.
    """
    try:
        target = sqlite3.connect(to, isolation_level=None)
        try:
            target.execute("PRAGMA synchronous = OFF")  # it is synced before it is used
            source.backup(target, pages=-1)
        finally:
            target.close()
        with to.open("r+b") as file:
            file.seek(_FORMAT[0])
            file.write(_FORMAT[1])
    except OSError as error:
        raise CannotOpen(cannot_write(to, error)) from error
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorname", "").startswith(DAMAGED):
            raise
        raise CannotOpen(
            f"no copy can be written to {to.parent} ({error}); is there room for it?"
        ) from error


def _sound(path: Path) -> tuple[str, int, dict[str, int]]:
    """Audits a copy.

    Returns:
        the history's id, the number of accounts, and the newest sequences of the first ones.
    """
    with reading(path, check="integrity_check") as connection:
        problems = audit(connection).problems
        if problems:
            raise Damaged(problems)
        (history,) = connection.execute("SELECT id FROM history").fetchone()
        (accounts,) = connection.execute("SELECT count(*) FROM accounts").fetchone()
        newest = connection.execute(
            "SELECT name, last_sequence FROM accounts ORDER BY name LIMIT ?", (SHOWN_ACCOUNTS,)
        )
        return history, accounts, dict(newest.fetchall())


@contextmanager
def _written(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CannotOpen(cannot_write(path, error)) from error


def _digest(descriptor: int) -> tuple[str, int]:
    """SHA-256 of a file, and its size, bytes."""
    digest, offset = hashlib.sha256(), 0
    while chunk := os.pread(descriptor, _CHUNK_BYTES, offset):
        digest.update(chunk)
        offset += len(chunk)
    return digest.hexdigest(), offset


def digest_beside(path: Path) -> Path:
    """The file that has a backup's SHA-256."""
    return path.with_name(f"{path.name}.sha256")


def _write_digest(path: Path, digest: str) -> None:
    beside = digest_beside(path)
    beside.unlink(missing_ok=True)
    descriptor = create_private(beside)
    try:
        os.write(descriptor, f"{digest}  {path.name}\n".encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def verify_digest(path: Path) -> bool:
    """Compares a backup with the SHA-256 beside it; false if there is none.

    Raises:
        CannotOpen: they differ, or cannot be read.
    """
    beside = digest_beside(path)
    try:
        expected = beside.read_text(encoding="ascii", errors="replace").split()[:1]
    except FileNotFoundError:
        return False
    except OSError as error:
        raise CannotOpen(f"{beside} cannot be read: {error.strerror}") from error
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if expected != [found]:
        raise CannotOpen(
            f"{path} is not as it was when it was backed up: its SHA-256 is {found}, and "
            f"{beside.name} has {' '.join(expected) or 'none'}; use another backup"
        )
    return True


def _remove_old(names: Names, folder: Path, keep: int) -> list[Path]:
    """Removes the oldest backups of a database from a folder, and copies that were abandoned."""
    name = re.escape(names.file.stem) + r"-\d{8}T\d{6}Z\.db"
    with _written(folder):
        made = sorted(each for each in folder.iterdir() if re.fullmatch(name, each.name))
        for each in folder.iterdir():
            if re.fullmatch(rf"\.{name}{re.escape(_PARTIAL)}(-journal)?", each.name):
                _remove_abandoned(each)
        removed = made[:-keep]
        for each in removed:
            each.unlink(missing_ok=True)
            digest_beside(each).unlink(missing_ok=True)
        sync_folder(folder / "any")
    return removed


def _remove_abandoned(partial: Path) -> None:
    with suppress(FileNotFoundError):
        if time.time() - partial.stat().st_mtime > _ABANDONED_S:
            partial.unlink()
