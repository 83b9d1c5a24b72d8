"""A caller's rate as the fields RateLimit-Policy and RateLimit, which the gateway passes on.

As https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers has them since its 8th
version. The draft knows quotas within windows of time. The window of a bucket is the time in which
it fills, and the quota what it gains meanwhile, so that the two say how many calls a caller can
make in the long run. What is left is what the caller may do at once.
"""

import math
from typing import Final

from idpass_server.api.rate import Left, Limit

ASKING_KEY: Final = "idpass-tell-rate"
"""Key of a call's metadata that asks for the fields, with any value."""

_POLICY: Final = '"rate"'
_MAX_INTEGER: Final = 999_999_999_999_999
"""Largest integer of a structured field (RFC 9651)."""


def fields(limit: Limit, left: Left) -> tuple[tuple[str, str], ...]:
    """The two fields, as metadata. Args: limit: of the caller, not without one."""
    window_s = max(1, math.ceil(limit.burst / limit.per_s))
    quota = min(max(limit.burst, math.floor(limit.per_s * window_s)), _MAX_INTEGER)
    now = f"{_POLICY};r={min(left.tokens, quota)}"
    if left.next_s:
        now += f";t={math.ceil(left.next_s)}"
    return (("ratelimit-policy", f"{_POLICY};q={quota};w={window_s}"), ("ratelimit", now))
