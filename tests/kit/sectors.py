"""Files whose changes are not all on disk: which versions of their sectors may be there.

What was written before the beginning of a sync that has ended is safe. Of what is not, each
512-byte sector may hold any of its versions since, independent of all others, and the size may be
any it had: a truncation happens or not, and does not stop half-way. A sync that failed makes
nothing safe, and neither does the next one for the same sectors, unless they are written again.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

SECTOR: Final = 512
POLICIES: Final = ("none", "all", "prefix", "suffix", "sectors", "writes")


@dataclass
class Change:
    """A change to a file that is not safe.

    Attributes:
        position: in the log.
        sectors: what they hold after it.
        size: of the file after it, bytes.
        cut: number of sectors that a truncation leaves; None for what does not make it shorter.
        lost: whether a sync of it failed.
    """

    position: int
    sectors: dict[int, bytes]
    size: int
    cut: int | None = None
    lost: bool = False


@dataclass
class File:
    """A file.

    Attributes:
        seen: content as processes see it.
        safe: sectors that are safe.
        size: that is safe, bytes.
        pending: changes since, in order.
    """

    seen: bytearray = field(default_factory=bytearray)
    safe: dict[int, bytes] = field(default_factory=dict)
    size: int = 0
    pending: list[Change] = field(default_factory=list)

    @classmethod
    def safely(cls, content: bytes) -> "File":
        """A file that is safe."""
        file = cls()
        file.write(0, 0, content)
        file.synced(0)
        return file

    def write(self, position: int, offset: int, data: bytes) -> None:
        first, end = min(offset, len(self.seen)), offset + len(data)
        if len(self.seen) < end:
            self.seen.extend(bytes(end - len(self.seen)))
        self.seen[offset:end] = data
        self._change(position, first, end)

    def truncate(self, position: int, size: int) -> None:
        before = len(self.seen)
        del self.seen[size:]
        self.seen.extend(bytes(size - len(self.seen)))
        self._change(position, min(before, size), size, shorter=size < before)

    def _change(self, position: int, first: int, end: int, *, shorter: bool = False) -> None:
        sectors = {each: self._sector(each) for each in range(first // SECTOR, _sectors(end))}
        cut = _sectors(end) if shorter else None
        self.pending.append(Change(position, sectors, len(self.seen), cut))

    def _sector(self, number: int) -> bytes:
        return bytes(self.seen[number * SECTOR : (number + 1) * SECTOR]).ljust(SECTOR, b"\0")

    def synced(self, begun: int) -> None:
        """A sync has ended that began at a position."""
        rest = []
        for change in self.pending:
            if change.lost or change.position > begun:
                rest.append(change)
                continue
            if change.cut is not None:
                self.safe = _first(self.safe, change.cut)
            self.safe |= change.sectors
            self.size = change.size
            for older in rest:  # was lost, and is written over; its size was not
                older.size = self.size
                for sector in change.sectors:
                    older.sectors.pop(sector, None)
        self.pending = [each for each in rest if each.sectors or not each.lost]

    def sync_failed(self, begun: int) -> None:
        for change in self.pending:
            change.lost |= bool(change.sectors) and change.position <= begun


class Taken(NamedTuple):
    """What of the changes that are not safe is on disk.

    Attributes:
        positions: of changes that are, as a whole.
        torn: the change of which only some sectors are, and those.
        by_sector: whether each sector and size is drawn by itself.
    """

    positions: set[int]
    torn: tuple[int, set[int]]
    by_sector: bool


def take(
    policy: str, changes: Sequence[Change], renamings: Sequence[int], draw: random.Random
) -> Taken:
    """Draws what is on disk.

    Args:
        policy: none or all of what is not safe; a prefix of it, the last write torn; a suffix,
            the first one torn; sectors, sizes and names at random; writes at random.
        changes: that are not safe, in order.
        renamings: positions of changes of names that are not safe.
        draw: for what is random.
    """
    every = sorted([*renamings, *(each.position for each in changes)])
    none: tuple[int, set[int]] = (-1, set())
    if policy == "none" or not every:
        return Taken(set(), none, by_sector=False)
    if policy == "all":
        return Taken(set(every), none, by_sector=False)
    if policy in {"writes", "sectors"}:
        part = draw.choice((0.1, 0.5, 0.5, 0.9))
        some = {each for each in every if draw.random() < part}
        return Taken(some, none, by_sector=policy == "sectors")
    at = draw.randrange(len(every))
    torn = every[at]
    sectors = sorted(next((e.sectors for e in changes if e.position == torn), ()))
    end = draw.randrange(len(sectors) + 1)
    if policy == "prefix":
        return Taken(set(every[:at]), (torn, set(sectors[:end])), by_sector=False)
    return Taken(set(every[at + 1 :]), (torn, set(sectors[end:])), by_sector=False)


def drawn(file: File, taken: Taken, draw: random.Random) -> tuple[int, dict[int, bytes]]:
    """What of a file is on disk: its size, and its sectors; the others are holes.

    Args:
        file: as processes left it.
        taken: what of its changes is on disk.
        draw: for what is random.
    """
    size, sectors = file.size, dict(file.safe)
    torn, torn_sectors = taken.torn
    for change in file.pending:
        if taken.by_sector:
            some = {each for each in change.sectors if draw.random() < 0.5}
            sectors |= {each: change.sectors[each] for each in some}
        elif change.position in taken.positions:
            if change.cut is not None:
                sectors = _first(sectors, change.cut)
            sectors |= change.sectors
            size = change.size
        elif change.position == torn:
            sectors |= {each: change.sectors[each] for each in torn_sectors}
    if taken.by_sector or torn in {change.position for change in file.pending}:
        size = draw.choice([file.size, *(change.size for change in file.pending)])
    return size, sectors


def content(file: File, taken: Taken, draw: random.Random) -> bytes:
    """What a file holds: as `drawn`, with zeros or garbage in the holes."""
    size, sectors = drawn(file, taken, draw)
    hole = draw.choice((bytes(SECTOR), draw.randbytes(SECTOR)))
    parts = [sectors.get(each) or hole for each in range(_sectors(size))]
    return b"".join(parts)[:size]


def _first(sectors: dict[int, bytes], count: int) -> dict[int, bytes]:
    return {at: held for at, held in sectors.items() if at < count}


def _sectors(size: int) -> int:
    """Number of sectors that so many bytes take."""
    return -(-size // SECTOR)
