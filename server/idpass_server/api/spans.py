"""OpenTelemetry's spans: one for each call, with its wait in the queue, and one for each batch.

    Recv.idpass.v1.IdPassService.CancelIdPass    a call, named as gRFC A72 says
    ├─ queue                                     until the writer took it into a batch
    └─ commit                                    the batch: one span, linked to each of its calls

A batch has one parent, as every span: the first of its calls that is traced. The `queue` spans of
the others are linked to it.

Attributes are those of OpenTelemetry's conventions for gRPC, and our own, `idpass.*`. The extra
`otel` has the package; without it nothing imports this module.
"""

import functools
import time
from collections.abc import Callable
from typing import Final, ParamSpec

import grpc
import structlog
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
    TraceState,
)
from opentelemetry.util.types import AttributeValue

from idpass_server.api.call_log import CallRecord, address_of, plain
from idpass_server.engine.submissions import Taken
from idpass_server.trace_context import TraceContext

FAULTS: Final = frozenset(
    {
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)
"""Codes with which a call's span is an error. The others are the caller's affair: a pass that is
cancelled already is no failure of the server. (A72 calls every code but OK an error.)"""


P = ParamSpec("P")
log = structlog.get_logger()


def _fails_no_call(make: Callable[P, None]) -> Callable[P, None]:
    """Keeps what goes wrong with a span, in a sampler of someone's own say, from the calls."""

    @functools.wraps(make)
    def attempt(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            make(*args, **kwargs)
        except Exception:
            log.exception("trace_failed")

    return attempt


class Spans:
    """Makes the spans of calls and batches. Its methods are for the event loop.

    Args:
        tracer: of a provider that samples and exports.
    """

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._open: dict[str, CallRecord] = {}

    @_fails_no_call
    def begin(self, record: CallRecord) -> None:
        """Begins the span of a call, if it is sampled. Args: record: of the call."""
        span = self._tracer.start_span(
            f"Recv.{record.service}.{record.method}",
            context=_parent(record.trace),
            kind=SpanKind.SERVER,
            attributes=_known_first(record),
            start_time=_wall_ns(record.started_s),
        )
        if span.is_recording():
            record.span = span
            record.trace_id = f"{span.get_span_context().trace_id:032x}"
            self._open[record.reference] = record

    @_fails_no_call
    def end(self, record: CallRecord) -> None:
        """Ends the span of a call, if it has one. Args: record: of the call, complete."""
        span = record.span
        if span is None:
            return
        self._open.pop(record.reference, None)
        span.set_attributes(_known_last(record))
        if record.code in FAULTS:
            span.set_status(Status(StatusCode.ERROR))
        span.end(_wall_ns(record.ended_s))

    @_fails_no_call
    def batch(self, taken: Taken) -> None:
        """Makes the spans of a batch, and of its calls' wait for it."""
        traced: list[tuple[float, Span]] = []
        for submission in taken.submissions:
            record = self._open.get(submission.commands[0].reference)
            if record is not None and record.span is not None:
                traced.append((submission.submitted_s, record.span))
        if not traced:
            return
        taken_ns, ended_ns = _wall_ns(taken.taken_s), _wall_ns(taken.ended_s)
        _, first = traced[0]
        commit = self._tracer.start_span(
            "commit",
            context=trace.set_span_in_context(first, Context()),
            links=[Link(span.get_span_context()) for _, span in traced],
            attributes={
                "idpass.batch.calls": len(taken.submissions),
                "idpass.batch.commands": sum(len(each.commands) for each in taken.submissions),
            },
            start_time=taken_ns,
        )
        for submitted_s, span in traced:
            queue = self._tracer.start_span(
                "queue",
                context=trace.set_span_in_context(span, Context()),
                links=[Link(commit.get_span_context())],
                start_time=_wall_ns(submitted_s),
            )
            queue.end(taken_ns)
        if not taken.stored:
            commit.set_status(Status(StatusCode.ERROR))
        commit.end(ended_ns)


def _wall_ns(at_s: float) -> int:
    """Nanoseconds since the epoch. Args: at_s: on time.monotonic()."""
    return time.time_ns() - time.monotonic_ns() + int(at_s * 1e9)


def _parent(context: TraceContext | None) -> Context:
    """The caller's span as OpenTelemetry has it; an empty context for none."""
    if context is None:
        return Context()
    caller = SpanContext(
        int(context.trace_id, 16),
        int(context.parent_id, 16),
        is_remote=True,
        trace_flags=TraceFlags(context.flags),
        trace_state=TraceState.from_header([context.state] if context.state else []),
    )
    return trace.set_span_in_context(NonRecordingSpan(caller), Context())


def _known_first(record: CallRecord) -> dict[str, AttributeValue]:
    """The attributes that samplers may look at."""
    attributes: dict[str, AttributeValue] = {
        "rpc.system.name": "grpc",
        "rpc.method": f"{record.service}/{record.method}",
        "idpass.reference": record.reference,
    }
    host, _, port = address_of(record.peer).rpartition(":")
    if port.isdecimal():
        attributes |= {"network.peer.address": host.strip("[]"), "network.peer.port": int(port)}
    if record.client is not None:
        attributes["user_agent.original"] = plain(record.client)
    return attributes


def _known_last(record: CallRecord) -> dict[str, AttributeValue]:
    attributes: dict[str, AttributeValue] = {"rpc.response.status_code": record.code.name}
    if record.code in FAULTS:
        attributes["error.type"] = record.code.name
    if record.caller is not None:
        attributes["idpass.account"] = record.caller.account
        attributes["idpass.caller"] = record.caller.name
    told: dict[str, AttributeValue | None] = {
        "idpass.reason": record.reason,
        "idpass.id_pass": record.id_pass,
        "idpass.passes": record.passes,
        "idpass.replayed": record.replayed,
    }
    return attributes | {name: value for name, value in told.items() if value is not None}
