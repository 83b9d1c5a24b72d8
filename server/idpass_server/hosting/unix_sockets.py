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
from typing import Final

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


@contextlib.contextmanager
def listening(path: Path, bind: Callable[[str], object], *, takes_over: bool) -> Iterator[None]:
    """Puts a socket at a path, and removes it at the end unless another has taken its place.

    Args:
        path: absolute.
        bind: binds a socket to the address unix:PATH that it is given, and listens.
        takes_over: replace the socket of the server before this one, at once and with its owner's
            group and mode; otherwise a socket in use is left alone.

    Raises:
        CannotListen: another process listens at the path, or it is no socket, or too long.
    """
    check_length(path, "give a shorter --listen unix:PATH")
    check_length(path.parent / ("x" * (_PRIVATE_BYTES - 1)), "give a shorter folder's name")
    inode = _place(path, bind, takes_over=takes_over)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if _inode(path.lstat()) == inode:
                path.unlink()


def _place(path: Path, bind: Callable[[str], object], *, takes_over: bool) -> tuple[int, int]:
    """Binds a socket and moves it to the path. Returns its inode."""
    try:
        with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=path.parent) as folder:  # mode 0700
            bound = Path(folder, _NAME)
            bind(f"unix:{bound}")
            bound.chmod(MODE)
            if takes_over:
                _resemble(bound, path)
                bound.replace(path)
            else:
                _remove_stale(path)
                path.hardlink_to(bound)  # unlike a rename it replaces nothing
            return _inode(path.lstat())
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
