"""The server's one clock: wall time, with guards against a clock that steps back or jumps.

It gives two times. `now` is when a change takes place; it never goes below the newest stored event.
`due` decides what is overdue, and expiring cannot be undone: while the wall clock has jumped and
the kernel does not report it as synchronised, no further pass becomes due, and `now` continues at
the former rate.

Jumps are measured against CLOCK_BOOTTIME, which nobody can set and which includes the time that the
machine was suspended. Slewing changes the rate of both alike, so only steps show.
"""

import ctypes
import functools
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

import structlog

from idpass_server.failures import OperatorError

SECOND_US: Final = 1_000_000
JUMP_US: Final = 60 * SECOND_US
"""Largest step of the wall clock that is accepted unconditionally, microseconds."""
BEHIND_US: Final = 60 * SECOND_US
"""How far the clock may be behind the newest event when a server starts, microseconds."""
AHEAD_US: Final = 24 * 60 * 60 * SECOND_US
"""How far an unsynchronised clock may be ahead of the newest event at start, microseconds."""
READ_US: Final = SECOND_US
"""Longest time between a pair of readings before they are repeated, microseconds."""

_TIME_ERROR: Final = 5  # adjtimex(2): the clock is not synchronised
_TIMEX_BYTES: Final = 512  # larger than any architecture's struct timex; zeroes only query

log = structlog.get_logger()


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)


class ClockWrong(OperatorError):
    """The wall clock is not fit to serve a database by; the message says why and what to do."""


class Now(NamedTuple):
    """The time, microseconds since the epoch.

    Attributes:
        us: when a change that is decided now takes place.
        due_us: passes in flight with an expire_time up to this are overdue.
    """

    us: int
    due_us: int


def wall_us() -> int:
    """Wall time in microseconds since the epoch."""
    return time.time_ns() // 1_000


def elapsed_us() -> int:
    """Microseconds since the machine started, suspended time included where the system has it."""
    return time.clock_gettime_ns(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)) // 1_000


def kernel_synchronised() -> bool | None:
    """Whether the kernel reports its clock as synchronised; None where it cannot be asked."""
    try:
        state: int = _libc().adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state != _TIME_ERROR


class Clock:
    """The clock; safe to read on any thread.

    Args:
        wall: returns wall time, microseconds since the epoch.
        elapsed: returns microseconds since a fixed moment; cannot be set and never stops.
        synchronised: returns whether the wall clock is synchronised; None if that is not known.
    """

    def __init__(
        self,
        wall: Callable[[], int] = wall_us,
        elapsed: Callable[[], int] = elapsed_us,
        synchronised: Callable[[], bool | None] = kernel_synchronised,
    ) -> None:
        self._wall = wall
        self._elapsed = elapsed
        self._synchronised = synchronised
        self._lock = threading.Lock()
        self._floor_us = 0
        self._jump_us: int | None = None
        self._due_us, read_at_us = self._read()
        self._offset_us = self._due_us - read_at_us

    def begin(self, newest_event_us: int | None, *, accept: bool = False) -> None:
        """Compares the clock with the newest stored event, which becomes the floor of `now`.

        Args:
            newest_event_us: time of the newest event, microseconds since the epoch; None for none.
            accept: skip the comparison.

        Raises:
            ClockWrong: the clock is certainly or probably wrong.
        """
        if newest_event_us is None:
            return
        if not accept:
            self._check(newest_event_us)
        self.keep(newest_event_us)

    def keep(self, stored_us: int) -> None:
        """Raises the floor of `now` to the time of a stored event."""
        with self._lock:
            self._floor_us = max(self._floor_us, stored_us)

    def now(self) -> Now:
        """Reads the clock."""
        with self._lock:
            wall, elapsed = self._read()
            jump_us = wall - elapsed - self._offset_us
            if abs(jump_us) > JUMP_US and not self._synchronised():
                self._tell_of_jump(jump_us)
                wall = elapsed + self._offset_us
            else:
                self._settle(jump_us)
                self._offset_us = wall - elapsed
                # What was due by a trusted clock may have expired, so it stays due.
                self._due_us = max(self._due_us, wall)
            return Now(max(wall, self._floor_us), self._due_us)

    def problem(self) -> str | None:
        """Why nothing expires now, for operators; None if the clock is trusted."""
        self.now()
        if self._jump_us is None:
            return None
        return (
            f"the clock has jumped by {self._jump_us / SECOND_US:+.0f} s and the kernel does not "
            "call it synchronised: nothing expires until it does, or until the clock is set back. "
            "If the clock is right, restart the server"
        )

    def _read(self) -> tuple[int, int]:
        """Reads both clocks at the same moment, however long the process is descheduled."""
        while True:
            before = self._elapsed()
            wall = self._wall()
            after = self._elapsed()
            if after - before <= READ_US:
                return wall, after

    def _tell_of_jump(self, jump_us: int) -> None:
        if self._jump_us is None:
            log.error("clock_jumped", seconds=round(jump_us / SECOND_US), expiring="stopped")
        self._jump_us = jump_us

    def _settle(self, jump_us: int) -> None:
        if abs(jump_us) > JUMP_US:
            log.warning("clock_stepped", seconds=round(jump_us / SECOND_US), synchronised=True)
        if self._jump_us is not None:
            self._jump_us = None
            log.info("clock_settled", expiring="again")

    def _check(self, newest_event_us: int) -> None:
        ahead_us = self._wall() - newest_event_us
        told = f"the clock says {shown(self._wall())}, the newest event is of "
        told += shown(newest_event_us)
        if ahead_us < -BEHIND_US:
            raise ClockWrong(
                f"{told}: the clock is {_span(-ahead_us)} behind. Set it, or if it is right and "
                "the events were stored by a wrong one, start with --accept-clock"
            )
        if ahead_us > AHEAD_US and self._synchronised() is False:
            raise ClockWrong(
                f"{told}: {_span(ahead_us)} later, and the kernel says that the clock is not "
                "synchronised. By a clock that is ahead passes would expire for good. Wait until "
                "it is synchronised (timedatectl, chronyc tracking), or if it is right start "
                "with --accept-clock"
            )


def shown(time_us: int) -> str:
    """Formats a time in microseconds since the epoch for people, in UTC to the second."""
    try:
        return datetime.fromtimestamp(time_us / SECOND_US, UTC).isoformat(timespec="seconds")
    except (OverflowError, ValueError, OSError):
        return f"{time_us} µs"


def _span(us: int) -> str:
    return str(timedelta(seconds=us // SECOND_US))
