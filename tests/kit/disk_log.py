"""The log of every change that processes make to the files of a folder (see logged_disk.c)."""

import os
import struct
from collections.abc import Iterator
from fcntl import LOCK_EX, flock
from pathlib import Path
from typing import Final, NamedTuple

from kit.faults import Faults

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


class DiskLog(Faults):
    """A folder whose changes are logged, and whose files meet faults.

    Args:
        scratch: for what is needed beside it, and the folder itself.

    Attributes:
        folder: that is logged.
    """

    def __init__(self, scratch: Path) -> None:
        scratch = scratch.resolve()
        scratch.mkdir(exist_ok=True)
        self.folder = scratch / "disk"
        self.folder.mkdir()
        super().__init__(scratch, self.folder)
        self._log = scratch / "log"
        self._log.touch()
        self.environment["LOGGED_DISK"] = str(self._log)

    def mark(self, name: str) -> None:
        """Notes in the log that something has happened by now."""
        data = name.encode()
        with self._log.open("ab") as log:
            flock(log, LOCK_EX)
            log.write(_HEAD.pack(len(data), _MARK, os.getpid(), 0, 0) + data)

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
