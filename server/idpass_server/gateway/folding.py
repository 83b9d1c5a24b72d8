"""Log lines that strangers can cause: a few a second of each kind, and the number of the others."""

import asyncio
from collections import Counter
from typing import Any, Final

import structlog

FOLD_S: Final = 1.0
"""Time over which lines of a kind are counted, seconds."""
LINES: Final = 20
"""Lines of a kind that are written in that time."""

log = structlog.get_logger()


class Folded:
    """A log whose lines nobody can have written faster than somebody could read them."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def info(self, event: str, **values: Any) -> None:
        if self._take(event):
            log.info(event, **values)

    def warning(self, event: str, **values: Any) -> None:
        if self._take(event):
            log.warning(event, **values)

    def _take(self, event: str) -> bool:
        self._counts[event] += 1
        if self._counts[event] == 1:
            asyncio.get_running_loop().call_later(FOLD_S, self._tell, event)
        return self._counts[event] <= LINES

    def _tell(self, event: str) -> None:
        more = self._counts.pop(event) - LINES
        if more > 0:
            log.info("folded", of=event, more=more)
