"""The log lines of calls: one for each, except calls refused as OVERLOADED.

Lines are written in groups: written one by one between calls, each took three times as long. Calls
over their caller's rate and calls without room are only counted, and logged as totals once a
second, so that a flood does not fill the disk too.
"""

import asyncio
import time
from collections import Counter
from typing import Final

import grpc
import structlog

from idpass_server.api.identity import Caller
from idpass_server.api.rate import Room
from idpass_server.ids import new_uuid

WITHIN_S: Final = 0.05
"""Longest delay from the end of a call to its line, seconds."""

COUNTED_WITHIN_S: Final = 1.0
"""Longest delay from the end of a call that is only counted to the line of totals, seconds."""

log = structlog.get_logger()


class CallRecord:
    """What the service keeps about one call from its arrival to its log line.

    Args:
        method: name of the rpc.

    Attributes:
        reference: UUID of the call.
        started_s: when it arrived, on time.monotonic().
        ended_s: when it ended, on time.monotonic().
        caller: who makes it; None until that is known.
        room: where it takes a place; None until it has entered.
        over_rate: whether its caller was over its rate.
        overloaded: whether it was refused as OVERLOADED.
        code: how it ended.
        reason: of the error it ended with, or None.
        unauthenticated: which credentials it was refused for, or None.
    """

    __slots__ = (
        *("caller", "code", "ended_s", "method", "over_rate", "overloaded", "reason", "reference"),
        *("room", "started_s", "unauthenticated"),
    )

    def __init__(self, method: str) -> None:
        self.method = method
        self.reference = new_uuid()
        self.started_s = self.ended_s = time.monotonic()
        self.caller: Caller | None = None
        self.room: Room | None = None
        self.over_rate = False
        self.overloaded = False
        # A call that ends without an answer was abandoned by its caller.
        self.code = grpc.StatusCode.CANCELLED
        self.reason: str | None = None
        self.unauthenticated: str | None = None

    @property
    def caller_name(self) -> str | None:
        """Name of the caller, if known."""
        return self.caller.name if self.caller else None


class CallLog:
    """Writes the lines of finished calls."""

    def __init__(self) -> None:
        self._finished: list[CallRecord] = []
        self._counted: Counter[tuple[str, str | None]] = Counter()

    def add(self, record: CallRecord) -> None:
        """Schedules the line, or the count, of a finished call."""
        if record.over_rate or record.overloaded:
            if not self._counted:
                asyncio.get_running_loop().call_later(COUNTED_WITHIN_S, self._write_counted)
            event = "over_rate" if record.over_rate else "overloaded"
            self._counted[event, record.caller_name] += 1
            return
        if not self._finished:
            asyncio.get_running_loop().call_later(WITHIN_S, self._write_finished)
        self._finished.append(record)

    def write(self) -> None:
        """Writes everything that is scheduled, now."""
        self._write_finished()
        self._write_counted()

    def _write_finished(self) -> None:
        epoch_s = time.time() - time.monotonic()
        for record in self._finished:
            log.info(
                "call",
                method=record.method,
                code=record.code.name,
                reason=record.reason,
                reference=record.reference,
                caller=record.caller_name,
                duration_ms=round((record.ended_s - record.started_s) * 1000, 3),
                time_s=epoch_s + record.ended_s,
            )
        self._finished.clear()

    def _write_counted(self) -> None:
        for (event, name), calls in self._counted.items():
            log.warning(event, caller=name, refused=calls)
        self._counted.clear()
