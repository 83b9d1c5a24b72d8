"""The log of every change that processes make to the files of a folder (see logged_disk.c)."""

import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from fcntl import LOCK_EX, flock
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from kit.paths import KIT

_HEAD: Final = struct.Struct("<IcIQQ")
_MARK: Final = b"m"


class Record(NamedTuple):
    """One record.

    Attributes:
        kind: o(pened), d (a folder opened), w(ritten), t(runcated), b and e (a sync begins, ends),
            f (it failed), u(nlinked), r(enamed), s(ent), m (a mark of the test's).
        process: its number.
        file: inode, or a socket's descriptor.
        offset: in the file; its new size; or a sync's number.
        data: what is written or sent, a path or two, or a mark's name.
    """

    kind: str
    process: int
    file: int
    offset: int
    data: bytes


class DiskLog:
    """A folder whose changes are logged.

    Args:
        scratch: for what is needed beside it, and the folder itself.

    Attributes:
        folder: that is logged.
        environment: of the processes that log.
    """

    def __init__(self, scratch: Path) -> None:
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            pytest.skip("a C compiler is needed to log what is written to a disk")
        scratch = scratch.resolve()
        scratch.mkdir(exist_ok=True)
        self.folder = scratch / "disk"
        self.folder.mkdir()
        library = scratch / "logged_disk.so"
        source = KIT / "logged_disk.c"
        subprocess.run(
            [compiler, "-O1", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True
        )
        self._log, self._fault = scratch / "log", scratch / "fault"
        self._log.touch()
        self._fired = scratch / "fault.fired"
        self.environment = {
            "LD_PRELOAD": str(library),
            "LOGGED_DISK": str(self._log),
            "LOGGED_FOLDER": str(self.folder),
            "DISK_FAULT": str(self._fault),
        }

    def mark(self, name: str) -> None:
        """Notes in the log that something has happened by now."""
        data = name.encode()
        with self._log.open("ab") as log:
            flock(log, LOCK_EX)
            log.write(_HEAD.pack(len(data), _MARK, os.getpid(), 0, 0) + data)

    def set_fault(self, action: str, call: str, number: int) -> None:
        """Has the next process, or one in which nothing was set yet, meet a fault.

        Args:
            action: an errno, "kill", or "short".
            call: as in logged_disk.c.
            number: of the call of that kind, from now on.
        """
        self._fired.unlink(missing_ok=True)
        partial = self._fault.with_suffix(".partial")
        partial.write_text(f"{action} {call} {number}")
        partial.replace(self._fault)

    def fired(self) -> bool:
        """Whether the fault that was set has happened."""
        return self._fired.exists()

    def clear_fault(self) -> bool:
        """Ends what `set_fault` began. Returns whether it happened."""
        self._fault.unlink(missing_ok=True)
        return self.fired()

    def forget(self) -> None:
        """Empties the log, while nobody writes to it."""
        self._log.write_bytes(b"")

    def read(self) -> list[Record]:
        """All records so far."""
        return list(_records(self._log.read_bytes()))


def _records(log: bytes) -> Iterator[Record]:
    at = 0
    while at + _HEAD.size <= len(log):
        size, kind, process, file, offset = _HEAD.unpack_from(log, at)
        at += _HEAD.size
        yield Record(kind.decode(), process, file, offset, log[at : at + size])
        at += size
