"""Structured log lines on standard error: JSON for programs, coloured text for a terminal.

Configured once, before the server exists. A line never holds a credential, a note's text or an
applicant's reference: calls are logged by method, code, reference, caller and duration.

The reader of standard error may be slow, stuck or gone, and no call waits for it: lines go into a
bounded queue, which a thread of its own writes out. Lines that find no room, or cannot be written,
are counted, and the count is logged once writing works again. Repeated warnings and errors are
folded into one line a second.

The module is longer than most: queue, folding and rendering are one path that each line takes.
"""

import asyncio
import atexit
import faulthandler
import json
import logging
import os
import select
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Final, NamedTuple, TextIO, cast

import structlog
from structlog.typing import EventDict, ExcInfo, Processor

MAX_QUEUED_CHARACTERS: Final = 4_000_000
"""Size of the queue of lines waiting to be written, characters (about 15,000 lines)."""

FOLD_S: Final = 1.0
"""Interval at which repetitions of a warning or an error are logged as one line, seconds."""

MAX_KINDS: Final = 10
"""Kinds of lines of one event whose repetitions are counted separately."""

FLUSH_S: Final = 2.0
"""Time for queued lines to be written when the process ends, seconds."""

Render = Callable[[str, EventDict], str]
_FOLDED: Final = {"warning", "error", "critical"}
_UNLIKE: Final = {"reference", "exc_info", "time_s"}


class _Writer:
    """A stream whose lines are written by a thread of its own.

    The thread is woken at most once per turn of the event loop: each wake takes the interpreter's
    lock, and a wake for every line cost a quarter of the server's throughput.

    Several processes may write to one pipe, where writes of up to PIPE_BUF bytes are atomic: lines
    are written whole, in pieces of at most that size.

    Args:
        file: descriptor to write to.
        folding: its repetitions are written when they are due.
        render: turns an event into a line.

    Attributes:
        dropped_ever: number of lines that were not written.
    """

    def __init__(self, file: int, folding: "_Folding", render: Render) -> None:
        self._file = file
        self._folding = folding
        self._render = render
        self._lock = threading.Lock()
        self._queue: deque[str] = deque()
        self._characters = 0
        self._dropped = 0
        self.dropped_ever = 0
        self._torn = False
        self._scheduled = False
        self._closing = False
        self._awake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def write(self, line: str) -> None:
        with self._lock:
            if self._characters + len(line) > MAX_QUEUED_CHARACTERS:
                self._dropped += 1
                self.dropped_ever += 1
                return
            self._characters += len(line)
            self._queue.append(line)

    def flush(self) -> None:
        """Wakes the thread to write what is queued; never waits."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._awake.set()
            return
        if not self._scheduled:
            self._scheduled = True
            loop.call_soon(self._wake)

    def _wake(self) -> None:
        self._scheduled = False
        self._awake.set()

    def close(self) -> None:
        """Writes what is left, within FLUSH_S."""
        self._closing = True
        self._awake.set()
        self._thread.join(FLUSH_S)

    def _run(self) -> None:
        while True:
            self._awake.wait(FOLD_S)
            self._awake.clear()
            closing = self._closing
            for level, event in self._folding.due(everything=closing):
                self.write(self._render(level, event))
            self._write_out()
            if closing:
                return

    def _write_out(self) -> None:
        with self._lock:
            lines, self._queue = self._queue, deque()
            self._characters = 0
        piece, count = b"", 0
        for line in lines:
            encoded = line.encode(errors="backslashreplace")
            if piece and len(piece) + len(encoded) > select.PIPE_BUF:
                self._write_piece(piece, count)
                piece, count = b"", 0
            piece += encoded
            count += 1
        if piece:
            self._write_piece(piece, count)

    def _write_piece(self, piece: bytes, lines: int) -> None:
        if not self._written(piece):
            with self._lock:
                self._dropped += lines
                self.dropped_ever += lines
        elif self._dropped:
            told = self._dropped
            line = self._render("warning", {"event": "log_lines_dropped", "lines": told})
            if self._written(line.encode()):
                with self._lock:
                    self._dropped -= told

    def _written(self, piece: bytes) -> bool:
        """Writes all of a piece. Returns false if it cannot: no space left, or no reader."""
        if self._torn:
            piece = b"\n" + piece
        whole = piece
        while piece:
            try:
                piece = piece[os.write(self._file, piece) :]
            except BlockingIOError:  # a process that shares the descriptor made it non-blocking
                select.select([], [self._file], [])
            except OSError:
                self._torn = self._torn or len(piece) < len(whole)
                return False
        self._torn = False
        return True


class _Folding:
    """A processor that passes the first of several similar warnings or errors at once.

    Those that follow within FOLD_S are counted, and become one line a second: the latest of them,
    with `repeated`. Lines are similar if they differ only in what differs in every call. At most
    MAX_KINDS kinds of one event are told apart, since a text may differ every time too.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kinds: dict[_Kind, _Repeated] = {}

    def __call__(self, _logger: object, level: str, event: EventDict) -> EventDict:
        """Passes an event on, or counts it.

        Raises:
            structlog.DropEvent: the event is counted, and logged later.
        """
        if level not in _FOLDED:
            return event
        name = event["event"]
        details = [(key, str(each)) for key, each in event.items() if key not in _UNLIKE]
        with self._lock:
            kind = _Kind(level, name, tuple(sorted(details)))
            if kind not in self._kinds and self._told_apart(level, name) >= MAX_KINDS:
                kind = _Kind(level, name, ())
            repeated = self._kinds.get(kind)
            now = time.monotonic()
            if repeated is None or (repeated.times == 0 and repeated.due_s <= now):
                self._kinds[kind] = _Repeated(now + FOLD_S)
                return event
            repeated.times += 1
            # The first line has the traceback, which cannot be rendered later.
            repeated.latest = {key: each for key, each in event.items() if key != "exc_info"}
        raise structlog.DropEvent

    def _told_apart(self, level: str, name: str) -> int:
        return sum((kind.level, kind.event) == (level, name) for kind in self._kinds)

    def due(self, *, everything: bool) -> list[tuple[str, EventDict]]:
        """The lines that are due, with their levels.

        Args:
            everything: also those that are not due yet.
        """
        now = time.monotonic()
        told: list[tuple[str, EventDict]] = []
        with self._lock:
            for kind, repeated in list(self._kinds.items()):
                if now < repeated.due_s and not everything:
                    continue
                if repeated.times:
                    told.append((kind.level, {**repeated.latest, "repeated": repeated.times}))
                    self._kinds[kind] = _Repeated(now + FOLD_S)
                else:
                    del self._kinds[kind]
        return told


class _Kind(NamedTuple):
    level: str
    event: str
    details: tuple[tuple[str, str], ...]


class _Repeated:
    """Repetitions of a kind of line. Args: due_s: when they are logged, monotonic seconds."""

    def __init__(self, due_s: float) -> None:
        self.due_s = due_s
        self.times = 0
        self.latest: EventDict = {}


_CALLER_LEFT: Final = "ExecuteBatchError"
"""What gRPC raises, and logs as an error, when a caller hangs up while it is sent a message; no
fault, and the line of the call tells of it."""


class _Forwarding(logging.Handler):
    """Turns what libraries log through `logging` into lines like our own."""

    def emit(self, record: logging.LogRecord) -> None:
        log = structlog.get_logger()
        kind = record.exc_info and record.exc_info[0]
        caller_left = kind is not None and kind.__name__ == _CALLER_LEFT
        say = log.debug if caller_left else getattr(log, record.levelname.lower(), log.warning)
        say("library", logger=record.name, message=record.getMessage(), exc_info=record.exc_info)


_writers: list[_Writer] = []  # one, where logging has been configured


def lines_dropped() -> int:
    """Number of lines that this process could not write, since it began."""
    return sum(each.dropped_ever for each in _writers)


_encode = json.JSONEncoder(default=repr).encode


def _stamp(_logger: object, level: str, event: EventDict) -> EventDict:
    """Adds the level and the time: `time_s` if the event has it, otherwise now."""
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


def _plain_traceback(to: TextIO, exc_info: ExcInfo) -> None:
    """Writes a traceback without values of variables and without terminal control characters."""
    text = "".join(traceback.format_exception(*exc_info))
    to.write("".join(c if c == "\n" or c.isprintable() else ascii(c)[1:-1] for c in text))


def _fill_standard_streams() -> None:
    """Opens /dev/null in place of a closed standard input, output or error.

    Otherwise the next file opened would get the free number, and gRPC writes its messages to
    descriptor 2, whatever that is.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number


class _Lines(NamedTuple):
    """Where lines go. Args: least: level of the least severe that are written."""

    render: Render
    writer: _Writer
    least: int


_lines: _Lines | None = None


def info(events: Iterable[EventDict]) -> None:
    """Writes a line of level info for each event.

    For lines by the thousand: a bound logger takes nearly twice as long for each.

    Args:
        events: with `event`, and `time_s` unless they happen now. They are used up.
    """
    if _lines is None:  # in a process that has not set up our lines
        log = structlog.get_logger()
        for event in events:
            log.info(**event)
    elif _lines.least <= logging.INFO:
        for event in events:
            _lines.writer.write(_lines.render("info", event))
        _lines.writer.flush()


def configure(level: str = "info", worker: int | None = None) -> None:
    """Sets up all logging of the process, and makes SIGUSR1 print every thread's stack.

    Args:
        level: the least severe level that is written.
        worker: number of this worker, added to each line; None for a process alone.
    """
    _fill_standard_streams()
    # Strangers can provoke gRPC's own log lines, and its threads would block on writing them.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    configure_lines(level, worker)
    logging.basicConfig(level=logging.WARNING, handlers=[_Forwarding()])
    # The signal handler writes it itself, so that it works when nothing else does.
    faulthandler.register(signal.SIGUSR1, file=2)


def configure_lines(level: str = "info", worker: int | None = None) -> None:
    """As `configure`, for our own lines alone: for a process that is not all ours."""
    terminal = os.isatty(2)
    processors: list[Processor] = [
        _stamp,
        *([] if worker is None else [_naming(worker)]),
        *([] if terminal else [structlog.processors.format_exc_info]),
        structlog.dev.ConsoleRenderer(exception_formatter=_plain_traceback, repr_native_str=True)
        if terminal
        else _json,
    ]

    def render(level: str, event: EventDict) -> str:
        made: object = event
        for processor in processors:
            made = processor(None, level, cast("EventDict", made))
        return f"{made}\n"

    folding = _Folding()
    writer = _Writer(2, folding, render)
    atexit.register(writer.close)
    _writers.append(writer)
    least: int = logging.getLevelName(level.upper())
    global _lines  # noqa: PLW0603 as structlog's own configuration, it is the process's
    _lines = _Lines(render, writer, least)
    structlog.configure(
        processors=[folding, *processors],
        wrapper_class=structlog.make_filtering_bound_logger(least),
        logger_factory=structlog.WriteLoggerFactory(file=cast("TextIO", writer)),
        cache_logger_on_first_use=True,
    )
