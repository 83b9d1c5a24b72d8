"""How far a test goes that could go on for ever: farther in `make prove` than in `make test`."""

import os
import random
from typing import Final

MINUTES: Final = float(os.environ.get("PROVE_MINUTES", "0"))
"""What counts grow with; 0 outside of `make prove`. An attack alone takes about so many minutes,
all of them at least a quarter of an hour."""


def times(every_day: int, a_minute: float) -> int:
    """How often something is done.

    Args:
        every_day: outside of `make prove`, and at least.
        a_minute: for each minute of PROVE_MINUTES.
    """
    return max(every_day, int(a_minute * MINUTES))


def seed_for(every_day: int) -> int:
    """What a test's chance begins with.

    PROVE_SEED decides it where it is set, to run again what a run has printed; without it every
    long run has another.

    Args:
        every_day: for short runs.
    """
    if given := os.environ.get("PROVE_SEED"):
        return int(given)
    return random.getrandbits(32) if MINUTES > 3 else every_day
