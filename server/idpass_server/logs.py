"""Structured log lines on standard error: JSON for programs, coloured text for a terminal.

Configured once, before the server exists. A line never holds a credential, a note's text or an
applicant's reference: calls are logged by method, code, reference, caller and duration.
"""

import asyncio
import atexit
import contextlib
import json
import logging
import select
import sys
from collections import deque
from datetime import UTC, datetime
from typing import BinaryIO, TextIO, cast

import structlog
from structlog.typing import EventDict, Processor


class _EachTurn:
    """A stream whose lines are written out together, once in each turn of the event loop.

    A write lets go of the interpreter's lock, which must then be won back from the writer's
    thread: one for every line cost a quarter of the server's throughput.

    Several processes may write to one pipe, where only so much is written in one piece: no more
    than that is written at once, in whole lines.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._due = False
        self._lines: deque[str] = deque()
        self.write = self._lines.append

    def flush(self) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.write_out()
            return
        if not self._due:
            self._due = True
            loop.call_soon(self.write_out)

    def write_out(self) -> None:
        self._due = False
        piece = b""
        with contextlib.suppress(IndexError):  # threads that have no loop write out as well
            while True:
                line = self._lines.popleft().encode()
                if len(piece) + len(line) > select.PIPE_BUF:
                    self._write(piece)
                    piece = b""
                piece += line
        self._write(piece)

    def _write(self, piece: bytes) -> None:
        self._stream.write(piece)
        self._stream.flush()


_encode = json.JSONEncoder(default=repr).encode


def _stamp(_logger: object, level: str, event: EventDict) -> EventDict:
    """Adds the level, and the time where the caller has not said when it was."""
    event["level"] = level
    time_s = event.pop("time_s", None)
    moment = datetime.now(UTC) if time_s is None else datetime.fromtimestamp(time_s, UTC)
    event["timestamp"] = moment.isoformat().replace("+00:00", "Z")
    return event


def _naming(worker: int) -> Processor:
    def name(_logger: object, _level: str, event: EventDict) -> EventDict:
        event["worker"] = worker
        return event

    return name


def _json(_logger: object, _level: str, event: EventDict) -> str:
    return _encode(event)


def configure(level: str = "info", worker: int | None = None) -> None:
    """
    Args:
        level: the least severe level that is written.
        worker: which of several processes that write to one place this is; its lines tell.
    """
    # A writer of its own, since sys.stderr writes at the end of every line.
    stream = open(sys.stderr.fileno(), "wb", closefd=False)  # noqa: SIM115 as long as the process
    lines = _EachTurn(stream)
    atexit.register(lines.write_out)
    people = sys.stderr.isatty()
    structlog.configure(
        processors=[
            _stamp,
            *([] if worker is None else [_naming(worker)]),
            *([] if people else [structlog.processors.format_exc_info]),
            structlog.dev.ConsoleRenderer() if people else _json,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=structlog.WriteLoggerFactory(file=cast("TextIO", lines)),
        cache_logger_on_first_use=True,
    )
