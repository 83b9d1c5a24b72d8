"""Paces refusals by the gateway itself, which the service's rate limits do not count."""

import asyncio
from typing import Final

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
