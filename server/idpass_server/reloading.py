"""Files that are read again while calls go on: when they change, and when it is asked for.

They are looked at and not listened to, which also works for files that are replaced (by a rename,
or behind a symbolic link, as with mounted secrets) and on file systems that tell nothing.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

import structlog

INTERVAL_S: Final = 0.5

log = structlog.get_logger()

Load = Callable[[], Awaitable[None]]
Stamp = tuple[tuple[int, int, int] | None, ...]


class Reloading:
    """Call `watch` before the files are read first, so that no change meanwhile is missed."""

    def __init__(self) -> None:
        self._watched: list[_Watched] = []
        self._one_at_a_time = asyncio.Lock()

    def watch(self, paths: Sequence[Path], load: Load) -> None:
        """
        Args:
            paths: of files that are read together.
            load: reads them and puts them in force; where they are no good it leaves in force
                what was, says so in the log, and raises nothing.
        """
        self._watched.append(_Watched(paths, load))

    async def reload(self) -> None:
        """Reads everything again, changed or not."""
        async with self._one_at_a_time:
            for watched in self._watched:
                watched.loaded = watched.seen = watched.stamp()
                await _load(watched)

    async def run(self) -> None:
        """Reads what has changed, for ever."""
        while True:
            await asyncio.sleep(INTERVAL_S)
            async with self._one_at_a_time:
                for watched in self._watched:
                    if watched.has_changed():
                        await _load(watched)


class _Watched:
    def __init__(self, paths: Sequence[Path], load: Load) -> None:
        self._paths = paths
        self.load = load
        self.loaded = self.seen = self.stamp()

    def has_changed(self) -> bool:
        """Whether the files are others than those last loaded, and no longer being written.

        A file that is being written may well be read without fault, with half of it missing.
        """
        before, self.seen = self.seen, self.stamp()
        changed = self.seen == before != self.loaded
        if changed:
            self.loaded = self.seen
        return changed

    def stamp(self) -> Stamp:
        return tuple(map(_stamp, self._paths))


async def _load(watched: _Watched) -> None:
    try:
        await watched.load()
    except Exception:
        # A fault: what was in force still is, and other files are still looked at.
        log.exception("reload_failed")


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino
