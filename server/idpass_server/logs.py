"""Structured log lines on standard error: JSON for programs, coloured text for a terminal.

Configured once, before the server exists. A line never holds a credential, a note's text or an
applicant's reference: calls are logged by method, code, reference, caller and duration.
"""

import asyncio
import atexit
import json
import logging
import sys
from datetime import UTC, datetime
from typing import TextIO, cast

import structlog
from structlog.typing import EventDict


class _EachTurn:
    """A stream whose lines are written out together, once in each turn of the event loop.

    A write lets go of the interpreter's lock, which must then be won back from the writer's
    thread: one for every line cost a quarter of the server's throughput.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._due = False
        self.write = stream.write

    def flush(self) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._stream.flush()
            return
        if not self._due:
            self._due = True
            loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._due = False
        self._stream.flush()


_encode = json.JSONEncoder(default=repr).encode


def _stamp(_logger: object, level: str, event: EventDict) -> EventDict:
    """Adds the level, and the time where the caller has not said when it was."""
    event["level"] = level
    time_s = event.pop("time_s", None)
    moment = datetime.now(UTC) if time_s is None else datetime.fromtimestamp(time_s, UTC)
    event["timestamp"] = moment.isoformat().replace("+00:00", "Z")
    return event


def _json(_logger: object, _level: str, event: EventDict) -> str:
    return _encode(event)


def configure(level: str = "info") -> None:
    """Args: level: the least severe level that is written."""
    # A writer of its own, since sys.stderr writes at the end of every line.
    stream = open(  # noqa: SIM115 open as long as the process lives
        sys.stderr.fileno(), "w", encoding="utf-8", closefd=False, buffering=1 << 16
    )
    atexit.register(stream.flush)
    people = sys.stderr.isatty()
    structlog.configure(
        processors=[
            _stamp,
            *([] if people else [structlog.processors.format_exc_info]),
            structlog.dev.ConsoleRenderer() if people else _json,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=structlog.WriteLoggerFactory(file=cast("TextIO", _EachTurn(stream))),
        cache_logger_on_first_use=True,
    )
