"""How a process that serves ends: when asked, when a part of it does, or by force."""

import asyncio
import contextlib
import os
import threading
from collections.abc import Coroutine, Iterator, Sequence
from typing import Any, Final, TypeVar

import structlog
import uvloop

from idpass_server import logs

EXIT_STORE_BROKEN: Final = 74
"""Exit code when the store broke or the stop was blocked: EX_IOERR of sysexits.h."""
EXIT_S: Final = logs.FLUSH_S + 2.0
"""Time for the interpreter to end, the last log lines included, seconds."""

T = TypeVar("T")
log = structlog.get_logger()


def run(serving: Coroutine[Any, Any, T]) -> T:
    """Runs a server as the last thing that this process does.

    Threads that wait for an unresponsive disk or database do not keep the process alive.
    """

    async def to_the_end() -> T:
        try:
            return await serving
        finally:
            _leave_after(EXIT_S)

    return uvloop.run(to_the_end())


async def first(asked: Sequence[asyncio.Event], *parts: "asyncio.Task[Any] | None") -> None:
    """Waits until one thing is asked for or a part has ended; logs what a part failed with."""
    waiting = [asyncio.create_task(each.wait()) for each in asked]
    running = [part for part in parts if part is not None]
    await asyncio.wait([*waiting, *running], return_when=asyncio.FIRST_COMPLETED)
    for each in waiting:
        each.cancel()
    for part in running:
        if part.done() and (error := part.exception()) is not None:
            log.critical("part_failed", exc_info=error)


@contextlib.contextmanager
def last_resort(seconds: float) -> Iterator[None]:
    """Ends the process if stopping takes longer: something waits for what never comes."""
    timer = _leave_after(seconds)
    try:
        yield
    finally:
        timer.cancel()


def _leave_after(seconds: float) -> threading.Timer:
    def leave() -> None:
        try:
            log.critical("stop_blocked", seconds=seconds)
        finally:  # even if the log cannot be written
            os._exit(EXIT_STORE_BROKEN)

    timer = threading.Timer(seconds, leave)
    timer.daemon = True
    timer.start()
    return timer
