"""The files of a database by name: finding, creating and syncing them, and who may write them.

Files that others can write are refused. A group of this process may write, with a warning:
Kubernetes gives a volume's files to the pod's group that way (fsGroup).
"""

import errno
import os
import stat
from pathlib import Path

import structlog

from idpass_server.store import CannotOpen

log = structlog.get_logger()


class Names:
    """The paths of a database and of the files beside it.

    Args:
        path: of the database; may be a symbolic link.

    Attributes:
        given: `path`, made absolute.
        file: the database, links resolved.
        wal: the write-ahead log.
        shm: SQLite's shared memory.
        lock: held by the process that serves the database.
    """

    def __init__(self, path: Path) -> None:
        self.given = path.absolute()
        self.file = path.resolve()
        self.wal = self._beside("-wal")
        self.shm = self._beside("-shm")
        self.lock = self._beside(".lock")

    def _beside(self, suffix: str) -> Path:
        return self.file.with_name(self.file.name + suffix)


def must_exist(names: Names) -> None:
    """Checks that a database exists.

    Raises:
        CannotOpen: it does not, or the file is empty.
    """
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
    """Says why a file cannot be written, for operators."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return f"the disk of {path} is full; free some room and start again"
    return f"{path} cannot be made or written: {error.strerror}"


def create_private(path: Path) -> int:
    """Creates a file that only this user can open.

    Returns:
        its descriptor.

    Raises:
        OSError: it exists, or cannot be created.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(path, flags, 0o600)


def sync_folder(path: Path) -> None:
    """Syncs the folder of a file, so that its name is on disk.

    Raises:
        OSError: it cannot be synced.
    """
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_database(names: Names) -> int:
    """Opens the database, and creates it if it does not exist. Returns its descriptor."""
    try:
        if not names.file.exists():
            descriptor = create_private(names.file)
            sync_folder(names.file)
            log.info("database_made", path=str(names.file))
            return descriptor
        for path in (names.file, names.wal, names.shm):
            if os.path.lexists(path):
                refuse_unsafe(path, path.lstat())
        return os.open(names.file, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except PermissionError as error:
        raise CannotOpen(
            f"{names.given} cannot be written by this user ({error.strerror}); see who may "
            f"with: ls -l {names.file}"
        ) from error
    except OSError as error:
        raise CannotOpen(f"{names.given} cannot be opened to write: {error.strerror}") from error


def refuse_unsafe(path: Path, status: os.stat_result) -> None:
    """Refuses a file that others can change.

    Raises:
        CannotOpen: they can.
    """
    mode = stat.S_IMODE(status.st_mode)
    if not stat.S_ISREG(status.st_mode):
        raise CannotOpen(f"{path} is not a regular file; it must be one")
    if status.st_nlink > 1:
        raise CannotOpen(
            f"{path} has {status.st_nlink} names (hard links), and SQLite would damage it if it "
            f"were opened by two. Find the others with: find -L / -xdev -samefile {path}"
        )
    ours = {os.getegid(), *os.getgroups()}
    if mode & stat.S_IWOTH or (mode & stat.S_IWGRP and status.st_gid not in ours):
        raise CannotOpen(
            f"others can write to {path} (mode {mode:04o}) and could change what is stored; revoke "
            f"that with: chmod go-w {path}"
        )
    if mode & (stat.S_IRGRP | stat.S_IWGRP | stat.S_IROTH):
        log.warning("open_to_others", path=str(path), mode=f"{mode:04o}", mend=f"chmod 600 {path}")
