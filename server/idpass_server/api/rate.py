"""Limits on what one caller may take of the server. Pure: time is an argument.

Each caller has a token bucket. It holds up to `burst` tokens and gains `per_s` a second; a call is
admitted if there is at least one. A call that costs more than one token (a batch, a large request)
takes the rest as a debt, so that it is possible at any size; the caller's next call waits until the
debt is paid.

A bucket is stored as one number, the time at which it will be full (the generic cell rate algorithm
of ATM networks). A full bucket carries no information and is forgotten.
"""

import math
from typing import Final, NamedTuple

FORGET_EVERY: Final = 1_000
"""Number of buckets from which full ones are dropped."""

SHARE: Final = 8
"""Largest number of places for one caller, as a multiple of the free ones."""

_ROUNDING_S: Final = 1e-6
"""Tolerance for sums of fractions, which are not exact, seconds."""


class Limit(NamedTuple):
    """The rate of a bucket.

    Attributes:
        per_s: tokens gained per second; 0 for no limit.
        burst: tokens in a full bucket, at least 1.
    """

    per_s: float
    burst: int

    @property
    def spare_s(self) -> float:
        """Longest time until a bucket is full at which it still holds a token, seconds."""
        return (self.burst - 1) / self.per_s + _ROUNDING_S


class Left(NamedTuple):
    """What is left in a bucket.

    Attributes:
        tokens: whole tokens.
        next_s: time until there is one more, seconds; 0 if the bucket is full.
    """

    tokens: int
    next_s: float


class Rate:
    """The buckets of all callers.

    Args:
        limit: of callers without their own.
    """

    def __init__(self, limit: Limit) -> None:
        self._limit = limit
        self._full_at_s: dict[str, float] = {}
        self._forget_at = FORGET_EVERY

    def limit(self, per_s: float | None, burst: int | None) -> Limit:
        """The limit of a caller; None for what it does not set itself."""
        if per_s is None and burst is None:
            return self._limit
        return Limit(
            self._limit.per_s if per_s is None else per_s,
            self._limit.burst if burst is None else burst,
        )

    def wait_s(self, caller: str, now_s: float, limit: Limit | None = None) -> float:
        """Time until the caller has a token, seconds; 0 if it has one."""
        limit = limit or self._limit
        if not limit.per_s:
            return 0.0
        return max(0.0, self._full_at_s.get(caller, now_s) - now_s - limit.spare_s)

    def left(self, caller: str, now_s: float, limit: Limit) -> Left:
        """What is left to a caller. Args: limit: not without one."""
        missing_s = max(0.0, self._full_at_s.get(caller, now_s) - now_s)
        if not missing_s:
            return Left(limit.burst, 0.0)
        tokens = limit.burst - missing_s * limit.per_s
        whole = max(0, math.floor(tokens + _ROUNDING_S * limit.per_s))
        return Left(whole, (whole + 1 - tokens) / limit.per_s)

    def take(
        self, caller: str, now_s: float, limit: Limit | None = None, *, tokens: int = 1
    ) -> bool:
        """Takes tokens if there is at least one; returns false if there is none."""
        limit = limit or self._limit
        if not limit.per_s:
            return True
        full_at_s = max(self._full_at_s.get(caller, now_s), now_s)
        if full_at_s - now_s > limit.spare_s:
            return False
        self._put(caller, full_at_s + tokens / limit.per_s, now_s)
        return True

    def owe(self, caller: str, tokens: int, limit: Limit | None = None) -> None:
        """Takes more tokens, as a debt if need be, from a caller that has just taken one."""
        limit = limit or self._limit
        if tokens > 0 and limit.per_s and caller in self._full_at_s:
            self._full_at_s[caller] += tokens / limit.per_s

    def reserve(self, caller: str, now_s: float) -> float:
        """Takes a token, as a debt if need be. Returns the time until it is paid, seconds."""
        wait_s = self.wait_s(caller, now_s)
        full_at_s = max(self._full_at_s.get(caller, now_s), now_s)
        self._put(caller, full_at_s + 1 / self._limit.per_s, now_s)
        return wait_s

    def _put(self, caller: str, full_at_s: float, now_s: float) -> None:
        if len(self._full_at_s) >= self._forget_at:
            self._full_at_s = {
                caller: at_s for caller, at_s in self._full_at_s.items() if at_s > now_s
            }
            self._forget_at = max(FORGET_EVERY, 2 * len(self._full_at_s))
        self._full_at_s[caller] = full_at_s


class Room:
    """A number of places, of which no caller may take all.

    A caller may hold SHARE times as many as are free: nearly all when it is alone, fewer and fewer
    beside others, and the next caller still finds one.

    Args:
        places: number of places.

    Attributes:
        taken: number of places in use.
    """

    def __init__(self, places: int) -> None:
        self._places = places
        self._of: dict[str, int] = {}
        self.taken = 0

    def enter(self, caller: str) -> bool:
        """Takes a place, which `leave` frees; returns false if there is none for this caller."""
        mine = self._of.get(caller, 0)
        if mine >= SHARE * (self._places - self.taken):
            return False
        self._of[caller] = mine + 1
        self.taken += 1
        return True

    def leave(self, caller: str) -> None:
        """Frees a place of the caller."""
        self.taken -= 1
        if self._of[caller] > 1:
            self._of[caller] -= 1
        else:
            del self._of[caller]
