"""Structured log lines on standard error: JSON for programs, coloured text for a terminal.

Configured once, before the server exists. A line never holds a credential, a note's text or an
applicant's reference: calls are logged by method, code, reference, caller and duration.
"""

import asyncio
import atexit
import json
import logging
import sys
from typing import TextIO, cast

import structlog


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


def configure(level: str = "info") -> None:
    """Args: level: the least severe level that is written."""
    # A writer of its own, since sys.stderr writes at the end of every line.
    stream = open(  # noqa: SIM115 open as long as the process lives
        sys.stderr.fileno(), "w", encoding="utf-8", closefd=False, buffering=1 << 16
    )
    atexit.register(stream.flush)
    processors: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if sys.stderr.isatty():
        processors.append(structlog.dev.ConsoleRenderer())
    else:
        processors += [
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(serializer=json.dumps),
        ]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=structlog.WriteLoggerFactory(file=cast("TextIO", _EachTurn(stream))),
        cache_logger_on_first_use=True,
    )
