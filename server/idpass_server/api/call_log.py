"""The log lines of calls: one for each that is to be logged, except calls refused as OVERLOADED.

Lines are written in groups: written one by one between calls, each took three times as long. Calls
over their caller's rate and calls without room are only counted, and logged as totals once a
second, so that a flood does not fill the disk too.

What strangers wrote (their client's name, their trace) is bounded and made printable.
"""

import asyncio
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

import grpc
import structlog

from idpass_server import logs, trace_context
from idpass_server.api.identity import Caller
from idpass_server.api.rate import Room
from idpass_server.api.rate_fields import ASKING_KEY
from idpass_server.ids import new_uuid
from idpass_server.trace_context import TraceContext

if TYPE_CHECKING:
    from opentelemetry.trace import Span

WITHIN_S: Final = 0.05
"""Longest delay from the end of a call to its line, seconds."""

COUNTED_WITHIN_S: Final = 1.0
"""Longest delay from the end of a call that is only counted to the line of totals, seconds."""

SAMPLED_OF: Final = 100
"""With `--log-calls sampled`, one of how many calls that succeeded has a line."""

MAX_CLIENT_CHARACTERS: Final = 100
"""Length to which a client's name and versions are cut, characters."""

log = structlog.get_logger()


class CallRecord:
    """What the service keeps about one call from its arrival to its log line.

    Args:
        method: name of the rpc.
        service: full name of its service.

    Attributes:
        reference: UUID of the call.
        started_s: when it arrived, on time.monotonic().
        ended_s: when it ended, on time.monotonic().
        caller: who makes it; None until that is known.
        room: where it takes a place; None until it has entered.
        asks_rate: whether its answer is to say what is left of its caller's rate.
        over_rate: whether its caller was over its rate.
        overloaded: whether it was refused as OVERLOADED.
        code: how it ended.
        reason: of the error it ended with, or None.
        unauthenticated: which credentials it was refused for, or None.
        peer: where it comes from, as gRPC tells it.
        client: the program that makes it, as it names itself, or None.
        trace: that its caller makes it in, or None.
        trace_id: of that trace, or of one that begins here; None without a trace.
        span: OpenTelemetry's, of this call; None if it is not traced.
        id_pass: UUID of the pass that it is about, once that is known to be one; None for none.
        passes: number of passes that it is about, where there may be several.
        replayed: whether it got the first answer again; None if it was not answered with a change.
    """

    __slots__ = (
        *(
            "asks_rate",
            "caller",
            "client",
            "code",
            "ended_s",
            "id_pass",
            "method",
            "over_rate",
            "overloaded",
        ),
        *("passes", "peer", "reason", "reference", "replayed", "room", "service", "span"),
        *("started_s", "trace", "trace_id", "unauthenticated"),
    )

    def __init__(self, method: str, service: str = "") -> None:
        self.method = method
        self.service = service
        self.reference = new_uuid()
        self.started_s = self.ended_s = time.monotonic()
        self.caller: Caller | None = None
        self.room: Room | None = None
        self.asks_rate = False
        self.over_rate = False
        self.overloaded = False
        # A call that ends without an answer was abandoned by its caller.
        self.code = grpc.StatusCode.CANCELLED
        self.reason: str | None = None
        self.unauthenticated: str | None = None
        self.peer = ""
        self.client: str | None = None
        self.trace: TraceContext | None = None
        self.trace_id: str | None = None
        self.span: Span | None = None
        self.id_pass: str | None = None
        self.passes: int | None = None
        self.replayed: bool | None = None

    def come_from(self, context: Any) -> None:
        """Takes note of where the call comes from. Args: context: gRPC's."""
        self.peer = context.peer()
        metadata = context.invocation_metadata()
        for key, value in metadata:
            if key == "user-agent":
                self.client = value
            elif key == ASKING_KEY:
                self.asks_rate = True
        self.trace = trace_context.read(metadata)
        if self.trace is not None:
            self.trace_id = self.trace.trace_id

    @property
    def caller_name(self) -> str | None:
        """Name of the caller, if known."""
        return self.caller.name if self.caller else None


class CallLog:
    """Writes the lines of finished calls.

    Args:
        which: "all" calls, "failed" ones, or "sampled": those that failed, and a share of the
            others. Which others is the caller's choice where it has a trace, so that the lines of
            one trace are all there, or none is.
    """

    def __init__(self, which: str = "all") -> None:
        self._which = which
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
        if not self._is_logged(record):
            return
        if not self._finished:
            asyncio.get_running_loop().call_later(WITHIN_S, self._write_finished)
        self._finished.append(record)

    def _is_logged(self, record: CallRecord) -> bool:
        if self._which == "all" or record.code is not grpc.StatusCode.OK:
            return True
        if self._which == "failed":
            return False
        if record.trace is not None:
            return record.trace.sampled
        return int(record.reference[-8:], 16) % SAMPLED_OF == 0  # random digits of a UUIDv7

    def write(self) -> None:
        """Writes everything that is scheduled, now."""
        self._write_finished()
        self._write_counted()

    def _write_finished(self) -> None:
        epoch_s = time.time() - time.monotonic()
        finished, self._finished = self._finished, []
        logs.info(_event(record, epoch_s) for record in finished)

    def _write_counted(self) -> None:
        for (event, name), calls in self._counted.items():
            log.warning(event, caller=name, refused=calls)
        self._counted.clear()


def _event(record: CallRecord, epoch_s: float) -> dict[str, object]:
    """What the line of a call says; what does not apply to it is left out.

    Args:
        epoch_s: when time.monotonic() was 0, seconds since the epoch.
    """
    event: dict[str, object] = {
        "event": "call",
        "method": record.method,
        "code": record.code.name,
        "reason": record.reason,
        "reference": record.reference,
        "caller": record.caller_name,
    }
    if record.caller is not None:
        event["account"] = record.caller.account
    if record.id_pass is not None:
        event["id_pass"] = record.id_pass
    if record.passes is not None:
        event["passes"] = record.passes
    if record.replayed is not None:
        event["replayed"] = record.replayed
    event["peer"] = address_of(record.peer)
    if record.client is not None:
        event["client"] = plain(record.client)
    if record.trace_id is not None:
        event["trace_id"] = record.trace_id
    event["duration_ms"] = round((record.ended_s - record.started_s) * 1000, 3)
    event["time_s"] = epoch_s + record.ended_s
    return event


def address_of(peer: str) -> str:
    """HOST:PORT from how gRPC tells it: ipv4:127.0.0.1:5000, ipv6:%5B::1%5D:5000, unix:."""
    kind, _, address = peer.partition(":")
    return plain(unquote(address) or kind)


def plain(text: str | bytes) -> str:
    """A stranger's text, cut to MAX_CLIENT_CHARACTERS, without control characters."""
    if isinstance(text, bytes):
        text = text.decode("latin-1")
    text = text[:MAX_CLIENT_CHARACTERS]
    return text if text.isascii() and text.isprintable() else ascii(text)[1:-1]
