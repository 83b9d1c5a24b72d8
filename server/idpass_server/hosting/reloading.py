"""Files that are read again while calls go on: when they change, and when it is asked for.

They are looked at and not listened to, which also works for files that are replaced (by a rename,
or behind a symbolic link, as with mounted secrets) and on file systems that tell nothing.

A file system may hang. Files are therefore looked at and read `apart`, on threads that nothing
waits for: neither calls nor the end of the process.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar

import structlog

INTERVAL_S: Final = 0.5

log = structlog.get_logger()

T = TypeVar("T")
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
                watched.loaded = watched.seen = await apart(watched.stamp)
                await _load(watched)

    async def run(self) -> None:
        """Reads what has changed, for ever."""
        while True:
            await asyncio.sleep(INTERVAL_S)
            async with self._one_at_a_time:
                for watched in self._watched:
                    if await apart(watched.has_changed):
                        await _load(watched)


async def apart(method: Callable[..., T], *args: Any) -> T:
    """Runs what may block on a thread that does not keep the process from ending."""
    loop = asyncio.get_running_loop()
    result: asyncio.Future[T] = loop.create_future()

    def settle(settled: Callable[..., None], value: object) -> None:
        if not result.done():  # nobody waits for it any more
            settled(value)

    def run() -> None:
        settled: Callable[..., None] = result.set_result
        value: object
        try:
            value = method(*args)
        except Exception as error:  # noqa: BLE001 whoever waits gets it
            settled, value = result.set_exception, error
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(settle, settled, value)

    threading.Thread(target=run, name="files", daemon=True).start()
    return await result


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
