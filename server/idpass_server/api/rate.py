"""How much of the server one caller may take. Pure: the time is an argument.

A token bucket for each caller. It holds up to `burst` tokens and fills with `per_s` of them a
second; a call takes one, and needs one to be there. What costs more than one call (a batch, a large
request) takes the rest as a debt, so that it is possible at all however large it is; the caller
then waits until the bucket is above zero again.

A bucket is one number, the time at which it will be full (this is the "generic cell rate
algorithm" of ATM networks). One that is full says nothing, and is forgotten.
"""

from typing import Final, NamedTuple

FORGET_EVERY: Final = 1_000
"""Buckets at which those that are full are looked for."""

SHARE: Final = 8
"""Places that one caller may have, in multiples of those that are left free."""

_ROUNDING_S: Final = 1e-6
"""Added to what a bucket holds, since sums of fractions are not exact."""


class Limit(NamedTuple):
    """
    Args:
        per_s: tokens a second; 0 means that there is no limit.
        burst: tokens in a full bucket, at least 1.
    """

    per_s: float
    burst: int

    @property
    def spare_s(self) -> float:
        """How far in the future a bucket may be full while it still holds a token."""
        return (self.burst - 1) / self.per_s + _ROUNDING_S


class Rate:
    """
    Args:
        limit: for each caller who has none of its own.
    """

    def __init__(self, limit: Limit) -> None:
        self._limit = limit
        self._full_at_s: dict[str, float] = {}
        self._forget_at = FORGET_EVERY

    def limit(self, per_s: float | None, burst: int | None) -> Limit:
        """The limit of a caller with its own rate, its own burst, both or (None) neither."""
        if per_s is None and burst is None:
            return self._limit
        return Limit(
            self._limit.per_s if per_s is None else per_s,
            self._limit.burst if burst is None else burst,
        )

    def wait_s(self, caller: str, now_s: float, limit: Limit | None = None) -> float:
        """The seconds until there is a token; 0: there is one."""
        limit = limit or self._limit
        if not limit.per_s:
            return 0.0
        return max(0.0, self._full_at_s.get(caller, now_s) - now_s - limit.spare_s)

    def take(
        self, caller: str, now_s: float, limit: Limit | None = None, *, tokens: int = 1
    ) -> bool:
        """Takes tokens, if one at least is there. Returns false where there is none."""
        limit = limit or self._limit
        if not limit.per_s:
            return True
        full_at_s = max(self._full_at_s.get(caller, now_s), now_s)
        if full_at_s - now_s > limit.spare_s:
            return False
        self._put(caller, full_at_s + tokens / limit.per_s, now_s)
        return True

    def owe(self, caller: str, tokens: int, limit: Limit | None = None) -> None:
        """Takes more tokens, there or not, from a caller who has just taken one."""
        limit = limit or self._limit
        if tokens > 0 and limit.per_s and caller in self._full_at_s:
            self._full_at_s[caller] += tokens / limit.per_s

    def reserve(self, caller: str, now_s: float) -> float:
        """Takes a token, there or not. Returns the seconds until it is there."""
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
    """Places of which no caller takes all.

    A caller may have `SHARE` times as many as are left free then: alone nearly all, beside others
    fewer and fewer, and the next caller still finds one.

    Args:
        places: how many there are.
    """

    def __init__(self, places: int) -> None:
        self._places = places
        self._of: dict[str, int] = {}
        self.taken = 0

    def enter(self, caller: str) -> bool:
        """Takes a place; `leave` gives it back. Returns false where there is none."""
        mine = self._of.get(caller, 0)
        if mine >= SHARE * (self._places - self.taken):
            return False
        self._of[caller] = mine + 1
        self.taken += 1
        return True

    def leave(self, caller: str) -> None:
        self.taken -= 1
        if self._of[caller] > 1:
            self._of[caller] -= 1
        else:
            del self._of[caller]
