"""When a batch begins: at once for a lone call; in a crowd, when half of it waits again.

Most of what a commit costs, it costs once, however many calls share it. A crowd of callers comes
back call by call while the previous batch is being answered; a writer that took the first of them
would commit many small batches, and contend with the event loop for the interpreter's lock
meanwhile. So the writer waits until half as many calls as the last two batches had together are
there, and gives up as soon as nothing more comes. A caller who is alone finds batches of one before
its own, and waits for nothing.
"""

import time
from collections.abc import Callable
from typing import Final

PAUSE_S: Final = 0.0005
"""Interval between two looks at what waits, seconds. When nobody came in it, the crowd is there."""
MAX_WAIT_S: Final = 0.004
"""Longest wait for a batch to fill, seconds."""


class Crowd:
    """Counts the calls that wait for the writer.

    Args:
        clock_s: returns monotonic time, seconds.
        sleep: pauses the writer for a number of seconds.
    """

    def __init__(
        self,
        clock_s: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._clock_s = clock_s
        self._sleep = sleep
        # Each is changed by one thread, so that neither needs a lock.
        self._came = 0
        self._taken = 0
        self._batches = (0, 0)

    def came(self) -> None:
        """Counts one more call that waits. For the event loop."""
        self._came += 1

    def taken(self, calls: int) -> None:
        """Counts the calls of a batch that begins. For the writer, as are the others."""
        self._taken += calls
        self._batches = (self._batches[1], calls)

    def put_back(self, calls: int) -> None:
        """Counts calls that wait again."""
        self._taken -= calls

    def wait(self) -> None:
        """Waits for the crowd to come, if there is one."""
        expected = sum(self._batches) // 2
        until_s = self._clock_s() + MAX_WAIT_S
        before = 0
        while before < (waiting := self._came - self._taken) < expected:
            if self._clock_s() > until_s:
                return
            before = waiting
            self._sleep(PAUSE_S)
