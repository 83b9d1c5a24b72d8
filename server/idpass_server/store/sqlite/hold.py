"""The file that is served: locked by one process, and still the one that was opened.

What is served is an inode, not a name. Two locks hold it:

* `FILE.lock` beside it, which only this user can open, keeps out another server that uses the name.
* A lock on the inode keeps out one that uses another name, such as a bind mount. It is an open file
  description lock on a byte that SQLite does not use. SQLite's own locks belong to the process,
  which loses them when it closes any other descriptor of the file; so the database is opened here
  once, and closed only after SQLite's connections.

A name that now leads elsewhere (deleted, renamed, replaced) is noticed by comparing inodes.
"""

import fcntl
import os
import stat
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import structlog

from idpass_server.rules.refusals import StoreUnavailable
from idpass_server.store import CannotOpen
from idpass_server.store.sqlite.paths import (
    Names,
    cannot_write,
    open_database,
    refuse_unsafe,
)

LOCK_WAIT_S: Final = 0.5
"""How long to wait for a command that makes one short change to the file, seconds."""
_LOCK_RETRY_S: Final = 0.02
_ROOM_BYTES: Final = 4_096
_FLOCK: Final = struct.Struct("hhqqi4x")  # struct flock: type, whence, start, length, pid
_INODE_LOCK: Final = (1 << 62, 1)
_SQLITE_SHARED: Final = (0x40000002, 510)  # the bytes that SQLite locks for exclusive access

log = structlog.get_logger()
_held: set[tuple[int, int]] = set()


class Identity:
    """Which inodes the names led to when the database was opened."""

    def __init__(self, names: Names) -> None:
        paths = map(str, (names.given, names.wal, names.shm))
        self._opened = {path: _inode(os.stat(path)) for path in paths}  # noqa: PTH116 see below

    def changed(self) -> str | None:
        """Says which name leads elsewhere by now, for operators; None if none does."""
        for path, inode in self._opened.items():
            try:
                now = _inode(os.stat(path))  # noqa: PTH116 once per batch; Path takes three times as long
            except OSError as error:
                return f"{path} is gone ({error.strerror})"
            if now != inode:
                return f"{path} is now another file than the one that was opened"
        return None


class Hold:
    """The lock on a database, which ends with the process, however it ends.

    Args:
        names: of the files.
        wait_s: how long to wait for another process, seconds.

    Attributes:
        descriptor: of the database.

    Raises:
        Taken: another process holds it.
        CannotOpen: the files are not fit for use.
    """

    def __init__(self, names: Names, *, wait_s: float = LOCK_WAIT_S) -> None:
        self._names = names
        if names.file.exists() and _inode(names.file.stat()) in _held:
            raise Taken(f"{names.given} is being served by this process already")
        self._lock = _lock_file(names, wait_s)
        try:
            self.descriptor = open_database(names)
        except BaseException:
            os.close(self._lock)
            raise
        self._inode = _inode(os.fstat(self.descriptor))
        try:
            self._take_inode()
            os.ftruncate(self._lock, 0)
            self._pid_bytes = os.pwrite(self._lock, str(os.getpid()).encode(), 0)
        except OSError as error:
            self._close_descriptors()
            raise CannotOpen(cannot_write(names.lock, error)) from error
        except BaseException:
            self._close_descriptors()
            raise
        _held.add(self._inode)

    def _take_inode(self) -> None:
        if not hasattr(fcntl, "F_OFD_SETLK"):  # only Linux has it
            return
        start, length = _INODE_LOCK
        wanted = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, start, length, 0)
        try:
            fcntl.fcntl(self.descriptor, fcntl.F_OFD_SETLK, wanted)
        except OSError as error:
            if not isinstance(error, (BlockingIOError, PermissionError)):
                raise
            found = fcntl.fcntl(self.descriptor, fcntl.F_OFD_GETLK, wanted)
            if _FLOCK.unpack(found)[0] != fcntl.F_RDLCK:
                raise Taken(
                    f"{self._names.given} is being served by another process under another name; "
                    "one process serves a SQLite file. Stop that one, or give this one another --db"
                ) from error
            # A server takes a write lock. A reader's lock must not keep one from starting.
            log.warning("reader_holds_lock", path=str(self._names.file))

    def prove_room(self) -> None:
        """Proves that the disk has room: writes a block beside the database, and syncs it.

        Raises:
            StoreUnavailable: it cannot be written.
        """
        try:
            try:
                os.pwrite(self._lock, os.urandom(_ROOM_BYTES), self._pid_bytes)
                os.fdatasync(self._lock)
            finally:
                os.ftruncate(self._lock, self._pid_bytes)
        except OSError as error:
            raise StoreUnavailable(
                f"the disk cannot be written ({error.strerror}); nothing was changed"
            ) from error

    def leave_files_alone(self) -> None:
        """Keeps SQLite from folding the WAL into the database and deleting it by its name.

        It does so when the last connection closes, and needs exclusive access for that.
        """
        if hasattr(fcntl, "F_OFD_SETLK"):
            start, length = _SQLITE_SHARED
            shared = _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, start, length, 0)
            fcntl.fcntl(self.descriptor, fcntl.F_OFD_SETLK, shared)

    def close(self) -> None:
        """Releases the locks; only after all SQLite connections of this process are closed."""
        _held.discard(self._inode)
        self._close_descriptors()

    def _close_descriptors(self) -> None:
        os.close(self.descriptor)
        os.close(self._lock)


class Taken(CannotOpen):
    """Another process holds the file."""


def _inode(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


@contextmanager
def name_held(names: Names) -> Iterator[None]:
    """Keeps servers from a name that has no database yet.

    Raises:
        Taken: another process holds it.
        CannotOpen: its lock cannot be made.
    """
    descriptor = _lock_file(names, 0)
    try:
        yield
    finally:
        os.close(descriptor)


def _lock_file(names: Names, wait_s: float) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(names.lock, flags, 0o600)
    except OSError as error:
        link = " (it is a symbolic link)" if names.lock.is_symlink() else ""
        raise CannotOpen(cannot_write(names.lock, error) + link) from error
    try:
        status = os.fstat(descriptor)
        refuse_unsafe(names.lock, status)
        if status.st_mode & stat.S_IRWXG or status.st_mode & stat.S_IRWXO:
            # Files of earlier versions could be opened, and so locked, by others.
            os.fchmod(descriptor, 0o600)
        _flock(descriptor, wait_s)
    except BlockingIOError as error:
        holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
        os.close(descriptor)
        raise Taken(
            f"{names.given} is being served by another process (pid {holder or 'unknown'}); one "
            "process serves a SQLite file. Stop that one, or give this one another --db"
        ) from error
    except OSError as error:
        os.close(descriptor)
        raise CannotOpen(f"{names.lock} cannot be locked: {error.strerror}") from error
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _flock(descriptor: int, wait_s: float) -> None:
    """Locks a file.

    Raises:
        BlockingIOError: another process still holds it after `wait_s`.
    """
    until_s = time.monotonic() + wait_s
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until_s:
                raise
        time.sleep(_LOCK_RETRY_S)
