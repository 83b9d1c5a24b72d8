"""Paces what takes the event loop from others: the gateway's own refusals, which the service's rate
limits do not count, and work on large messages.
"""

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

Result = TypeVar("Result")

PER_S: Final = 500
"""Rate of refusals of all clients together, per second; they cost a fifth of a core."""
AT_ONCE: Final = 500
"""Burst: refusals at once after a pause."""


class Pace:
    """Hands out turns for refusals; each waits for its own, none is dropped."""

    def __init__(self) -> None:
        self._next_s = 0.0

    def wait_s(self, now_s: float) -> float:
        """Takes a turn. Returns the time until it comes, seconds. Args: now_s: monotonic."""
        turn_s = max(self._next_s, now_s - AT_ONCE / PER_S)
        self._next_s = turn_s + 1 / PER_S
        return max(0.0, turn_s - now_s)

    async def turn(self) -> None:
        """Waits for a turn."""
        wait_s = self.wait_s(asyncio.get_running_loop().time())
        if wait_s:
            await asyncio.sleep(wait_s)


class Turns:
    """Turns for work that holds the event loop: one at a time, each followed by a pause as long as
    the work took, so that other calls have the loop for half of the time at least.
    """

    def __init__(self) -> None:
        self._free = asyncio.Lock()

    async def do(self, work: Callable[[], Result]) -> Result:
        """Waits for a turn and returns what `work` does. The pause delays only the next turn."""
        await self._free.acquire()
        loop = asyncio.get_running_loop()
        start_s = loop.time()
        try:
            return work()
        finally:
            loop.call_later(loop.time() - start_s, self._free.release)
