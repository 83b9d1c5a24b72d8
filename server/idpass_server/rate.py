"""How much of the server one caller may take. Pure: the time is an argument.

A token bucket for each caller. It holds up to `burst` tokens and fills with `per_s` of them a
second; a call takes one, and needs one to be there. What costs more than one call (a batch)
takes the rest as a debt, so that it is possible at all however large it is; the caller then waits
until the bucket is above zero again.

A bucket is one number, the time at which it will be full (this is the "generic cell rate
algorithm" of ATM networks). One that is full says nothing, and is forgotten.
"""

from typing import Final

FORGET_EVERY: Final = 1_000
"""So many buckets may be there before those that are full are looked for."""


class Rate:
    """
    Args:
        per_s: tokens a second for each caller; 0 means that there is no limit.
        burst: tokens in a full bucket, at least 1.
    """

    def __init__(self, per_s: float, burst: int) -> None:
        self._token_s = 1 / per_s if per_s else 0.0
        # A microsecond more, for sums of fractions are not exact.
        self._spare_s = (burst - 1) * self._token_s + 1e-6
        self.per_s = per_s
        self._full_at_s: dict[str, float] = {}
        self._forget_at = FORGET_EVERY

    def wait_s(self, caller: str, now_s: float) -> float:
        """The seconds until there is a token; 0: there is one."""
        return max(0.0, self._full_at_s.get(caller, now_s) - now_s - self._spare_s)

    def take(self, caller: str, now_s: float) -> bool:
        """Takes a token. Returns false where there is none."""
        if not self._token_s:
            return True
        full_at_s = max(self._full_at_s.get(caller, now_s), now_s)
        if full_at_s - now_s > self._spare_s:
            return False
        self._put(caller, full_at_s + self._token_s, now_s)
        return True

    def owe(self, caller: str, tokens: int) -> None:
        """Takes more tokens, there or not, from a caller who has just taken one."""
        if tokens > 0 and caller in self._full_at_s:
            self._full_at_s[caller] += tokens * self._token_s

    def reserve(self, caller: str, now_s: float) -> float:
        """Takes a token, there or not. Returns the seconds until it is there."""
        wait_s = self.wait_s(caller, now_s)
        full_at_s = max(self._full_at_s.get(caller, now_s), now_s)
        self._put(caller, full_at_s + self._token_s, now_s)
        return wait_s

    def _put(self, caller: str, full_at_s: float, now_s: float) -> None:
        if len(self._full_at_s) >= self._forget_at:
            self._full_at_s = {
                caller: at_s for caller, at_s in self._full_at_s.items() if at_s > now_s
            }
            self._forget_at = max(FORGET_EVERY, 2 * len(self._full_at_s))
        self._full_at_s[caller] = full_at_s
