"""What a disk may hold after the power failed, by a log of what was written and synced.

Files are as `sectors` has it. Of a folder the names are safe that it had when a sync of it began
that has ended; each change since may have happened or not.
"""

import bisect
import hashlib
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple

from kit.disk_log import Record
from kit.sectors import POLICIES, File, content, take

CHANGES: Final = frozenset("owturef")
"""Kinds of records after which a disk may hold something else."""
_TRIES: Final = 6
"""How often as many disks are tried to be made as are wanted; most are found to be known."""


class Renaming(NamedTuple):
    """A change of names that is not safe: what each leads to, None for nothing."""

    position: int
    names: dict[str, int | None]


class Cut(NamedTuple):
    """A disk after the power failed.

    Attributes:
        position: in the log.
        policy: how it was drawn.
        files: contents by name.
        known: digest of the contents.
    """

    position: int
    policy: str
    files: dict[str, bytes]
    known: bytes


class Disk:
    """A folder and its files, as a log is played.

    Args:
        folder: its path.
        before: files that were there and safe, by name.
        lies_from: position from which syncs make nothing safe; None for never.
    """

    def __init__(
        self,
        folder: Path,
        *,
        before: Mapping[str, bytes] = MappingProxyType({}),
        lies_from: int | None = None,
    ) -> None:
        self._folder = str(folder)
        self._lies_from = lies_from
        self._files = [File.safely(content) for content in before.values()]
        self._by_inode: dict[int, int] = {}
        self._folder_inode = 0
        self._seen = {name: number for number, name in enumerate(before)}
        self._safe = dict(self._seen)
        self._renamings: list[Renaming] = []
        self._begun: dict[tuple[int, int], int] = {}

    def play(self, position: int, record: Record) -> None:
        """Does what a record says."""
        match record.kind:
            case "d":
                self._folder_inode = record.file
            case "o":
                self._open(position, self._name(record.data), record.file)
            case "w":
                self._file(record.file).write(position, record.offset, record.data)
            case "t":
                self._file(record.file).truncate(position, record.offset)
            case "u":
                self._rename(position, {self._name(record.data): None})
            case "r":
                before, after = map(self._name, record.data.split(b"\0"))
                self._rename(position, {before: None, after: self._seen[before]})
            case "b":
                self._begun[record.process, record.offset] = position
            case "e":
                self._synced(record.file, self._begun[record.process, record.offset])
            case "f":
                self._sync_failed(record.file, self._begun[record.process, record.offset])

    def _name(self, path: bytes) -> str:
        return path.decode().removeprefix(f"{self._folder}/")

    def _file(self, inode: int) -> File:
        return self._files[self._by_inode[inode]]

    def _open(self, position: int, name: str, inode: int) -> None:
        if name in self._seen:
            self._by_inode[inode] = self._seen[name]
            return
        self._by_inode[inode] = len(self._files)
        self._files.append(File())
        self._rename(position, {name: self._by_inode[inode]})

    def _rename(self, position: int, names: dict[str, int | None]) -> None:
        _apply(self._seen, names)
        self._renamings.append(Renaming(position, names))

    def _synced(self, inode: int, begun: int) -> None:
        if self._lies_from is not None and begun >= self._lies_from:
            return
        if inode != self._folder_inode:
            self._file(inode).synced(begun)
            return
        rest = [each for each in self._renamings if each.position > begun]
        for each in self._renamings[: len(self._renamings) - len(rest)]:
            _apply(self._safe, each.names)
        self._renamings = rest

    def _sync_failed(self, inode: int, begun: int) -> None:
        # What a folder's failed sync leaves is pending as before: names are the journal's.
        if inode != self._folder_inode:
            self._file(inode).sync_failed(begun)

    def cut(self, position: int, policy: str, draw: random.Random) -> Cut:
        """A disk as it may be now.

        Args:
            position: in the log.
            policy: as for `take`.
            draw: for what is random.
        """
        changes = [(file, each) for file in self._files for each in file.pending]
        changes.sort(key=lambda pair: pair[1].position)
        renamings = [each.position for each in self._renamings]
        taken = take(policy, [each for _, each in changes], renamings, draw)
        names = dict(self._safe)
        for renaming in self._renamings:
            if renaming.position in taken.positions:
                _apply(names, renaming.names)
        files: dict[str, bytes] = {}
        for name, number in sorted(names.items()):
            files[name] = content(self._files[number], taken, draw)
        digest = hashlib.blake2b(digest_size=16)
        for name, held in files.items():
            digest.update(b"%s %d " % (name.encode(), len(held)))
            digest.update(held)
        return Cut(position, policy, files, digest.digest())


def _apply(names: dict[str, int], changes: dict[str, int | None]) -> None:
    for name, number in changes.items():
        if number is None:
            names.pop(name, None)
        else:
            names[name] = number


class Played(NamedTuple):
    """A log to cut the power in.

    Attributes:
        disk: makes the disk before the first record.
        records: of the log.
        phases: what was going on, for each record.
        answered: positions of answers, in order.
    """

    disk: Callable[[], Disk]
    records: Sequence[Record]
    phases: Sequence[str]
    answered: Sequence[int]


def cuts(log: Played, wanted: int, seed: int) -> Iterator[Cut]:
    """Disks that differ, the power cut after every change.

    More precisely, it is cut before the next one: by then most has been answered. A disk is made
    again where more has been answered than when it was made before. Half of the disks are for all
    changes alike, half for all phases.

    Args:
        log: to be played.
        wanted: number of disks that differ; there may be fewer.
        seed: for what is random.
    """
    made: set[tuple[bytes, int]] = set()
    known: set[bytes] = set()
    changes = [at for at, each in enumerate(log.records) if each.kind in CHANGES]
    ends = dict(zip(changes, [*(at - 1 for at in changes[1:]), len(log.records) - 1], strict=True))
    of_phase = Counter(log.phases[at] for at in changes)
    for number in range(_TRIES):
        draw = random.Random(f"{seed} {number}")
        disk = log.disk()
        half = (wanted - len(known)) / 2
        for at, record in enumerate(log.records):
            disk.play(at, record)
            if at not in ends:
                continue
            answers = bisect.bisect_right(log.answered, ends[at])
            share = half / len(changes) + half / len(of_phase) / of_phase[log.phases[at]]
            chosen = draw.choices(POLICIES, k=int(share + draw.random()))
            if record.kind == "e" and number == 0:
                chosen.append("none")
            for policy in chosen:
                cut = disk.cut(ends[at], policy, draw)
                if (cut.known, answers) not in made:
                    made.add((cut.known, answers))
                    known.add(cut.known)
                    yield cut
            if number and len(known) >= wanted:
                return
