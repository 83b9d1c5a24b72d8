"""Reads the files that say whom to trust: callers, certificates, keys."""

import os
import stat
from pathlib import Path


class WritableByOthers(Exception):
    """Users other than the owner may write a file; the message says what to do."""


def read(path: Path) -> tuple[bytes, int]:
    """Reads a file, through symbolic links, as mounted secrets need it.

    Returns:
        the content, and the permission bits.

    Raises:
        OSError: it cannot be read.
        WritableByOthers: its group or everyone may write it, and so let themselves in.
    """
    with path.open("rb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        if mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise WritableByOthers(
                f"can be written by other users (mode {mode:04o}); run: chmod go-w {path}"
            )
        return file.read(), mode
