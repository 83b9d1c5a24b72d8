"""Rereads files while calls go on: when they change, and on request.

Files are polled: that also works when they are replaced (by a rename, or behind a symbolic link, as
with mounted secrets) and on file systems without notifications.

A file system may hang. Files are therefore polled and read `apart`, on threads that neither calls
nor the end of the process wait for.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar

import structlog

INTERVAL_S: Final = 0.5
"""Polling interval, seconds."""

log = structlog.get_logger()

T = TypeVar("T")
Load = Callable[[], Awaitable[None]]
Stamp = tuple[tuple[int, int, int] | None, ...]


class Reloading:
    """Watches files. Call `watch` before reading them first, so that no change is missed.

    Attributes:
        rejected: whether what was read last could not be used, by what it is; for metrics.
    """

    def __init__(self) -> None:
        self.rejected: dict[str, bool] = {}
        self._watched: list[_Watched] = []
        self._one_at_a_time = asyncio.Lock()

    def watch(self, paths: Sequence[Path], load: Load) -> None:
        """Watches files from now on.

        Args:
            paths: of files that are read together.
            load: reads them and puts them in force; if they cannot be used, it logs that, leaves
                in force what was, and raises nothing.
        """
        self._watched.append(_Watched(paths, load))

    async def reload(self) -> None:
        """Rereads everything, changed or not."""
        async with self._one_at_a_time:
            for watched in self._watched:
                watched.loaded = watched.seen = await apart(watched.stamp)
                await _load(watched)

    async def run(self) -> None:
        """Rereads what has changed, until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL_S)
            async with self._one_at_a_time:
                for watched in self._watched:
                    if await apart(watched.has_changed):
                        await _load(watched)


async def apart(method: Callable[..., T], *args: Any) -> T:
    """Runs what may block on a daemon thread, which does not keep the process alive."""
    loop = asyncio.get_running_loop()
    result: asyncio.Future[T] = loop.create_future()

    def settle(settled: Callable[..., None], value: object) -> None:
        if not result.done():  # it is when nobody waits any more
            settled(value)

    def run() -> None:
        settled: Callable[..., None] = result.set_result
        value: object
        try:
            value = method(*args)
        except Exception as error:  # noqa: BLE001 raised where it is awaited
            settled, value = result.set_exception, error
        with suppress(RuntimeError):  # the loop may have ended
            loop.call_soon_threadsafe(settle, settled, value)

    threading.Thread(target=run, name="files", daemon=True).start()
    return await result


class _Watched:
    def __init__(self, paths: Sequence[Path], load: Load) -> None:
        self._paths = paths
        self.load = load
        self.loaded = self.seen = self.stamp()

    def has_changed(self) -> bool:
        """Whether the files differ from those last loaded and have stopped changing.

        A file that is still being written may parse without error, with half of it missing.
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
        # A bug: what was in force still is, and other files are still watched.
        log.exception("reload_failed")


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino
