"""How fast requests are refused that the service never hears of, and so does not count."""

import asyncio
from typing import Final

PER_S: Final = 500
"""Refusals a second, of all clients together: a fifth of a core."""
AT_ONCE: Final = 500
"""Refusals at once after a rest."""


class Pace:
    """A turn for each refusal; nobody is turned away, and everybody waits for its own."""

    def __init__(self) -> None:
        self._next_s = 0.0

    def wait_s(self, now_s: float) -> float:
        """Takes a turn. Returns the seconds until it comes."""
        turn_s = max(self._next_s, now_s - AT_ONCE / PER_S)
        self._next_s = turn_s + 1 / PER_S
        return max(0.0, turn_s - now_s)

    async def turn(self) -> None:
        """Waits for a turn."""
        wait_s = self.wait_s(asyncio.get_running_loop().time())
        if wait_s:
            await asyncio.sleep(wait_s)
