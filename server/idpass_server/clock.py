"""The one clock of a server."""

import time
from collections.abc import Callable


class Clock:
    """Wall time in microseconds since the epoch that never runs backwards while it runs.

    Args:
        wall_time_us: where time comes from; tests give their own.
    """

    def __init__(self, wall_time_us: Callable[[], int] = lambda: time.time_ns() // 1000) -> None:
        self._wall_time_us = wall_time_us
        self._latest_us = 0

    def now_us(self) -> int:
        self._latest_us = max(self._latest_us, self._wall_time_us())
        return self._latest_us
