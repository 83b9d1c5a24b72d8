"""The one clock of a server: wall time, unless it runs back or jumps and nobody vouches for it.

Two things must not follow a wrong clock. The times of events never go below the newest stored
event. And expiring cannot be undone: while the wall clock has jumped and the kernel does not call
it synchronised, time goes on at its former pace and no further pass becomes overdue.

A jump is measured against CLOCK_BOOTTIME, which nobody sets and which counts a suspended
machine's sleep. Adjusting the clock's pace moves both alike, so that only steps make a difference.
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
"""Largest step of the running clock that needs no explanation, microseconds."""
BEHIND_US: Final = 60 * SECOND_US
"""How far a clock may be behind the newest event when a server starts, microseconds."""
AHEAD_US: Final = 24 * 60 * 60 * SECOND_US
"""How far an unsynchronised clock may be ahead of the newest event then, microseconds."""
READ_US: Final = SECOND_US
"""A pair of readings that took longer is read again, microseconds."""

_TIME_ERROR: Final = 5  # adjtimex(2): the clock is not synchronised
_TIMEX_BYTES: Final = 512  # more than a struct timex of any architecture; zeroes ask only

log = structlog.get_logger()


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)


class ClockWrong(OperatorError):
    """The wall clock is not fit to serve a database by; the message says why and what to do."""


class Now(NamedTuple):
    us: int
    """When what is decided now takes place, microseconds since the epoch."""
    due_us: int
    """Passes with an expire_time up to this are overdue, microseconds since the epoch."""


def wall_us() -> int:
    """Wall time in microseconds since the epoch."""
    return time.time_ns() // 1_000


def elapsed_us() -> int:
    """Microseconds since the machine started, its sleep included where the system counts it."""
    return time.clock_gettime_ns(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)) // 1_000


def kernel_synchronised() -> bool | None:
    """Whether the kernel says that its clock is synchronised; None where it cannot be asked."""
    try:
        state: int = _libc().adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state != _TIME_ERROR


class Clock:
    """May be read from any thread.

    Args:
        wall: microseconds since the epoch.
        elapsed: microseconds since some moment, never set and never standing still.
        synchronised: whether the wall clock is vouched for; None means that nobody knows.
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
        """Starts from what is stored.

        Args:
            newest_event_us: when the newest stored event took place; None without events.
            accept: serve by this clock whatever it says.

        Raises:
            ClockWrong: the clock is surely or probably wrong.
        """
        if newest_event_us is None:
            return
        if not accept:
            self._check(newest_event_us)
        self.keep(newest_event_us)

    def keep(self, stored_us: int) -> None:
        """Notes the time of a stored event: `now` will not go below it."""
        with self._lock:
            self._floor_us = max(self._floor_us, stored_us)

    def now(self) -> Now:
        with self._lock:
            wall, elapsed = self._read()
            jump_us = wall - elapsed - self._offset_us
            if abs(jump_us) > JUMP_US and not self._synchronised():
                self._tell_of_jump(jump_us)
                wall = elapsed + self._offset_us
            else:
                self._settle(jump_us)
                self._offset_us = wall - elapsed
                # What was due by a clock that was trusted has expired; it stays due.
                self._due_us = max(self._due_us, wall)
            return Now(max(wall, self._floor_us), self._due_us)

    def problem(self) -> str | None:
        """Why nothing expires now, for operators; None when all is well."""
        self.now()
        if self._jump_us is None:
            return None
        return (
            f"the clock has jumped by {self._jump_us / SECOND_US:+.0f} s and the kernel does not "
            "call it synchronised: nothing expires until it does, or until the clock is set back. "
            "If the clock is right, restart the server"
        )

    def _read(self) -> tuple[int, int]:
        """Both clocks at one moment, however long this process is kept waiting in between."""
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
    """A time for people, in UTC to the second."""
    try:
        return datetime.fromtimestamp(time_us / SECOND_US, UTC).isoformat(timespec="seconds")
    except (OverflowError, ValueError, OSError):
        return f"{time_us} µs"


def _span(us: int) -> str:
    return str(timedelta(seconds=us // SECOND_US))
