"""Limits log lines that strangers can cause: LINES a second of each kind, the rest are counted."""

import asyncio
from collections import Counter
from typing import Any, Final

import structlog

FOLD_S: Final = 1.0
"""Interval over which lines of a kind are counted, seconds."""
LINES: Final = 20
"""Lines of a kind written within that interval."""

log = structlog.get_logger()


class Folded:
    """A logger that strangers cannot flood. Use it on the event loop."""

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
