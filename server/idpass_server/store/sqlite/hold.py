"""The file that is served: taken by one process, and still the one that was opened.

What is served is an inode, not a name. It is held by two locks:

* `FILE.lock` beside it, which only this user can open, keeps out a server by the same name.
* A lock on the inode keeps out one that reaches it by another name, such as a bind mount. It is an
  open-file-description lock on a byte that SQLite does not use: SQLite's own locks belong to the
  process, and closing any other descriptor of the file would drop them. For that reason a
  descriptor of the database is opened here once, and closed only after SQLite's connections.

A name that leads elsewhere (deleted, renamed, replaced) is noticed by comparing inodes.

Files that others can write are refused. A group that this process belongs to may write, with a
warning: Kubernetes gives a volume's files to the pod's group that way (fsGroup).
"""

import errno
import fcntl
import os
import stat
import struct
import time
from pathlib import Path
from typing import Final

import structlog

from idpass_server.rules.refusals import StoreUnavailable
from idpass_server.store import CannotOpen

LOCK_WAIT_S: Final = 0.5
"""Time for a command that makes one short change to let go of the file, seconds."""
_LOCK_RETRY_S: Final = 0.02
_ROOM_BYTES: Final = 4_096
_FLOCK: Final = struct.Struct("hhqqi4x")  # struct flock: type, whence, start, length, pid
_INODE_LOCK: Final = (1 << 62, 1)
_SQLITE_SHARED: Final = (0x40000002, 510)  # what SQLite locks to have a file for itself alone

log = structlog.get_logger()
_held: set[tuple[int, int]] = set()


class Names:
    """The names of a database and of the files that SQLite keeps beside it.

    Args:
        path: of the database; may be a symbolic link.
    """

    def __init__(self, path: Path) -> None:
        self.given = path.absolute()
        self.file = path.resolve()
        self.wal = self._beside("-wal")
        self.shm = self._beside("-shm")
        self.lock = self._beside(".lock")

    def _beside(self, suffix: str) -> Path:
        return self.file.with_name(self.file.name + suffix)


class Identity:
    """Which files were opened by the names."""

    def __init__(self, names: Names) -> None:
        paths = map(str, (names.given, names.wal, names.shm))
        self._opened = {path: _inode(os.stat(path)) for path in paths}  # noqa: PTH116 see below

    def changed(self) -> str | None:
        """What is no longer what was opened; None where all is."""
        for path, inode in self._opened.items():
            try:
                now = _inode(os.stat(path))  # noqa: PTH116 for each batch: Path takes three times as long
            except OSError as error:
                return f"{path} is gone ({error.strerror})"
            if now != inode:
                return f"{path} is now another file than the one that was opened"
        return None


class Hold:
    """A database taken by this process, until it ends however it ends.

    Args:
        names: of the files.
        wait_s: time for another process to let go, seconds.

    Attributes:
        descriptor: of the database.

    Raises:
        Taken: another process has it.
        CannotOpen: the files are not fit to be used.
    """

    def __init__(self, names: Names, *, wait_s: float = LOCK_WAIT_S) -> None:
        self._names = names
        if names.file.exists() and _inode(names.file.stat()) in _held:
            raise Taken(f"{names.given} is being served by this process already")
        self._lock = _lock_file(names, wait_s)
        try:
            self.descriptor = _open_database(names)
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
        if not hasattr(fcntl, "F_OFD_SETLK"):  # elsewhere than on Linux
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
            # A server locks to write. A mere reader must not keep one from starting.
            log.warning("reader_holds_lock", path=str(self._names.file))

    def prove_room(self) -> None:
        """Writes a block beside the database, to the disk.

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
        """Keeps SQLite from folding the WAL into the database and from deleting it by its name,
        as it does when the last connection is closed: it needs the file for itself alone.
        """
        if hasattr(fcntl, "F_OFD_SETLK"):
            start, length = _SQLITE_SHARED
            shared = _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, start, length, 0)
            fcntl.fcntl(self.descriptor, fcntl.F_OFD_SETLK, shared)

    def close(self) -> None:
        """Lets go; only after every SQLite connection of this process is closed."""
        _held.discard(self._inode)
        self._close_descriptors()

    def _close_descriptors(self) -> None:
        os.close(self.descriptor)
        os.close(self._lock)


class Taken(CannotOpen):
    """Another process has the file."""


def must_exist(names: Names) -> None:
    """Raises: CannotOpen: there is no database by that name."""
    try:
        size = names.given.stat().st_size
    except FileNotFoundError as error:
        raise CannotOpen(
            f"there is no database {names.given}; is the path right, and its volume mounted? A new "
            f"one is made with: idpass-server init --db sqlite:///{names.given}"
        ) from error
    except OSError as error:
        raise CannotOpen(f"{names.given} cannot be opened: {error.strerror}") from error
    if not size:
        raise CannotOpen(
            f"{names.given} is an empty file and no database; restore it from a backup, or have "
            f"a new one made with: rm {names.given} && "
            f"idpass-server init --db sqlite:///{names.given}"
        )


def cannot_write(path: Path, error: OSError) -> str:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return f"the disk of {path} is full; free some room and start again"
    return f"{path} cannot be made or written: {error.strerror}"


def create_private(path: Path) -> int:
    """Makes a file that only this user can read. Returns its descriptor. Raises: OSError."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(path, flags, 0o600)


def sync_folder(path: Path) -> None:
    """Has the names in a file's folder on disk. Raises: OSError."""
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _inode(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _lock_file(names: Names, wait_s: float) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(names.lock, flags, 0o600)
    except OSError as error:
        link = " (it is a symbolic link)" if names.lock.is_symlink() else ""
        raise CannotOpen(cannot_write(names.lock, error) + link) from error
    try:
        status = os.fstat(descriptor)
        _refuse_unsafe(names.lock, status)
        if status.st_mode & stat.S_IRWXG or status.st_mode & stat.S_IRWXO:
            # Made by an earlier version others could read it, and so lock it.
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
    """Raises: BlockingIOError: another process has the lock, still."""
    until_s = time.monotonic() + wait_s
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until_s:
                raise
        time.sleep(_LOCK_RETRY_S)


def _open_database(names: Names) -> int:
    """Opens the database, made where there is none."""
    try:
        if not names.file.exists():
            descriptor = create_private(names.file)
            sync_folder(names.file)
            log.info("database_made", path=str(names.file))
            return descriptor
        for path in (names.file, names.wal, names.shm):
            if os.path.lexists(path):
                _refuse_unsafe(path, path.lstat())
        return os.open(names.file, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except PermissionError as error:
        raise CannotOpen(
            f"{names.given} cannot be written by this user ({error.strerror}); who may is said "
            f"by: ls -l {names.file}"
        ) from error
    except OSError as error:
        raise CannotOpen(f"{names.given} cannot be opened to write: {error.strerror}") from error


def _refuse_unsafe(path: Path, status: os.stat_result) -> None:
    """Raises: CannotOpen: the file is not this service's alone to change."""
    mode = stat.S_IMODE(status.st_mode)
    if not stat.S_ISREG(status.st_mode):
        raise CannotOpen(f"{path} is no ordinary file; it has to be one")
    if status.st_nlink > 1:
        raise CannotOpen(
            f"{path} has {status.st_nlink} names (hard links), and SQLite would damage it if it "
            f"were opened by two. Find the others with: find -L / -xdev -samefile {path}"
        )
    ours = {os.getegid(), *os.getgroups()}
    if mode & stat.S_IWOTH or (mode & stat.S_IWGRP and status.st_gid not in ours):
        raise CannotOpen(
            f"others can write to {path} (mode {mode:04o}) and could change what is stored; take "
            f"that from them: chmod go-w {path}"
        )
    if mode & (stat.S_IRGRP | stat.S_IWGRP | stat.S_IROTH):
        log.warning("open_to_others", path=str(path), mode=f"{mode:04o}", mend=f"chmod 600 {path}")
