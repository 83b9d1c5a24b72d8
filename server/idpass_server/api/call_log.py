"""The log lines of calls: one each, but for those that are refused as OVERLOADED.

Lines are made many at a time: among the work of calls each took three times as long. The calls
of a caller over its rate, and those for which there is no room, are only counted, and told once a
second: a flood is not to fill the disk as well.
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
"""Longest time from the end of a call to its line, seconds."""

COUNTED_WITHIN_S: Final = 1.0
"""Likewise for calls that are only counted."""

log = structlog.get_logger()


class Record:
    """What is known of one call, and what the log will say of it."""

    __slots__ = (
        *("caller", "code", "ended_s", "method", "over_rate", "overloaded", "reason", "reference"),
        *("room", "started_s"),
    )

    def __init__(self, method: str) -> None:
        self.method = method
        self.reference = new_uuid()
        self.started_s = self.ended_s = time.monotonic()
        self.caller: Caller | None = None
        self.room: Room | None = None
        self.over_rate = False
        self.overloaded = False
        # Until it is known how it ends: one that just stops was given up by its caller.
        self.code = grpc.StatusCode.CANCELLED
        self.reason: str | None = None

    @property
    def caller_name(self) -> str | None:
        return self.caller.name if self.caller else None


class CallLog:
    def __init__(self) -> None:
        self._finished: list[Record] = []
        self._counted: Counter[tuple[str, str | None]] = Counter()

    def add(self, record: Record) -> None:
        """Has something written of a finished call, soon."""
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
        """Writes what is due, now."""
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
