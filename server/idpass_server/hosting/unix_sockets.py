"""Unix sockets to listen on, at a path that gRPC itself would not take with care.

gRPC deletes whatever socket is at the path before it binds, in use or not, and deletes the path
when it closes, whoever has it by then. So it binds in a private folder, and the socket is moved
from there to its path, which gRPC never learns: nobody can connect before the socket has its mode.
"""

import contextlib
import os
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Self

from idpass_server.hosting.listening import CannotListen

MODE: Final = 0o600
"""Mode of a socket: only its owner, and root, can connect."""
MAX_PATH_BYTES: Final = 107
"""Longest path of a Unix socket on Linux, bytes."""
_PREFIX: Final = "."
_NAME: Final = "s"
_PRIVATE_BYTES: Final = len("/" + _PREFIX + "12345678" + "/" + _NAME)
"""What the private folder adds to the path of the folder beside which it is made, bytes."""


def check_length(path: Path, hint: str) -> None:
    """Checks that a path is short enough for a socket.

    Args:
        path: of the socket.
        hint: what to do about one that is too long.

    Raises:
        CannotListen: it is too long.
    """
    length = len(os.fsencode(path))
    if length > MAX_PATH_BYTES:
        raise CannotListen(
            f"{path} is too long for a Unix socket ({length} bytes; {MAX_PATH_BYTES} is the "
            f"limit); {hint}"
        )


class UnixSocket:
    """A socket that listens, at first where nobody finds it.

    Args:
        path: where it is to be found, absolute.
        bind: binds a socket to the address unix:PATH that it is given, and listens.

    Raises:
        CannotListen: it cannot be made, or the path is too long.
    """

    def __init__(self, path: Path, bind: Callable[[str], object]) -> None:
        check_length(path, "give a shorter --listen unix:PATH")
        check_length(path.parent / ("x" * (_PRIVATE_BYTES - 1)), "give a shorter folder's name")
        self._path = path
        self._inode: tuple[int, int] | None = None
        with _told(path):
            self._folder = tempfile.TemporaryDirectory(prefix=_PREFIX, dir=path.parent)
        self._bound = Path(self._folder.name, _NAME)
        bind(f"unix:{self._bound}")
        self._bound.chmod(MODE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Removes the socket from its path, unless another has taken its place."""
        self._folder.cleanup()
        with contextlib.suppress(OSError):
            if self._inode is not None and _inode(self._path.lstat()) == self._inode:
                self._path.unlink()

    def publish(self, *, takes_over: bool) -> None:
        """Moves it to its path.

        Args:
            takes_over: replace the socket of the server before this one, at once and with its
                group and mode; otherwise a socket in use is left alone.

        Raises:
            CannotListen: another process listens there, or what is there is no socket.
        """
        inode = _inode(self._bound.stat())
        with _told(self._path):
            if takes_over:
                _resemble(self._bound, self._path)
                self._bound.replace(self._path)
            else:
                _remove_stale(self._path)
                self._path.hardlink_to(self._bound)  # unlike a rename it replaces nothing
        self._inode = inode
        self._folder.cleanup()


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    """Turns the system's errors into CannotListen."""
    try:
        yield
    except FileExistsError as error:
        raise _taken(path) from error
    except OSError as error:
        raise CannotListen(
            f"{path} cannot be listened on ({error.strerror}); does its folder exist, and may "
            "this user write there?"
        ) from error


def _resemble(bound: Path, path: Path) -> None:
    """Gives a socket the group and mode of the one at the path, if there is one."""
    with contextlib.suppress(FileNotFoundError):
        before = path.lstat()
        if before.st_gid != bound.stat().st_gid:
            os.chown(bound, -1, before.st_gid)
        bound.chmod(stat.S_IMODE(before.st_mode))


def _remove_stale(path: Path) -> None:
    """Removes a socket that nobody listens on.

    Raises:
        CannotListen: somebody does, or it is no socket.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise CannotListen(
            f"{path} is there and is not a socket; give another --listen unix:PATH, or move it away"
        )
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except OSError as error:
            raise _taken(path) from error
    raise _taken(path)


def _taken(path: Path) -> CannotListen:
    return CannotListen(
        f"unix:{path} cannot be listened on: another process does. Give another --listen unix:PATH"
    )


def _inode(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
