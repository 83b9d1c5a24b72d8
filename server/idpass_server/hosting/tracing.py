"""Sets OpenTelemetry up from its own standard variables, if the extra `otel` is installed.

Spans are exported by a thread of OpenTelemetry's, from a bounded queue, and no call waits for it:
what finds no room is dropped. They go over HTTP: an exporter that speaks gRPC would share the
threads and the global state of the library that answers our calls.
"""

import asyncio
import contextlib
import os
import threading
import uuid
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import TYPE_CHECKING, Final

import structlog

from idpass import __version__
from idpass_server import extras

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

    from idpass_server.api.spans import Spans

FLUSH_S: Final = 2.0
"""Time for the last spans to be exported when the server stops, seconds."""

_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_BY_PROTOCOL: Final = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}
_GROUP: Final = "opentelemetry_traces_exporter"
"""Entry points under which packages name their exporters."""

log = structlog.get_logger()


class NoExporter(Exception):
    """What the variables ask for is not there; the message says what to do."""


class Tracing:
    """Spans that are exported.

    Args:
        provider: samples, batches and exports.
        spans: makes them.
    """

    def __init__(self, provider: "TracerProvider", spans: "Spans") -> None:
        self._provider = provider
        self.spans = spans

    async def close(self) -> None:
        """Exports what is left, within FLUSH_S."""
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def flush() -> None:
            self._provider.shutdown()
            with contextlib.suppress(RuntimeError):  # the loop is closed: it took too long
                loop.call_soon_threadsafe(done.set)

        # A daemon: the process does not wait for a collector that does not answer.
        threading.Thread(target=flush, name="traces", daemon=True).start()
        try:
            await asyncio.wait_for(done.wait(), FLUSH_S)
        except TimeoutError:
            log.warning("traces_not_flushed", seconds=FLUSH_S)


def start(environment: Mapping[str, str] = os.environ) -> Tracing | None:
    """Begins to trace, if the variables ask for it.

    Args:
        environment: with `OTEL_…`; what is not looked at here, OpenTelemetry reads itself.

    Returns:
        None if they do not, or if what they ask for is not installed, which is logged.
    """
    names = _asked_for(environment)
    if not names:
        return None
    try:
        tracing = _tracing(_exporters(names))
    except ImportError as error:
        log.warning("traces_off", reason=extras.missing("tracing", error, "otel"))
        return None
    except NoExporter as error:
        log.warning("traces_off", reason=str(error))
        return None
    log.info("traces", exporters=names)
    return tracing


def _asked_for(environment: Mapping[str, str]) -> list[str]:
    """The names of the exporters that the variables ask for."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return []
    asked = environment.get("OTEL_TRACES_EXPORTER", "").strip()
    if not asked and any(environment.get(each) for each in _ENDPOINTS):
        asked = "otlp"
    names = [name.strip() for name in asked.split(",") if name.strip() not in {"", "none"}]
    protocol = next((environment[each] for each in _PROTOCOLS if environment.get(each)), "")
    otlp = _BY_PROTOCOL.get(protocol or "http/protobuf", f"otlp ({protocol})")
    return [otlp if name == "otlp" else name for name in names]


def _exporters(names: Sequence[str]) -> "list[SpanExporter]":
    """Makes exporters by their names.

    Raises:
        ImportError: a package is missing.
        NoExporter: no package names such an exporter.
    """
    import opentelemetry.sdk.trace.export  # noqa: F401, PLC0415 an extra may be missing

    found = {each.name: each for each in metadata.entry_points(group=_GROUP)}
    unknown = [name for name in names if name not in found]
    if unknown:
        raise NoExporter(
            f"there is no exporter {unknown[0]} here; there are: {', '.join(sorted(found))}. The "
            "extra `otel` has the one for OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf, which "
            "collectors take on port 4318"
        )
    return [found[name].load()() for name in names]


def _tracing(exporters: "Sequence[SpanExporter]") -> Tracing:
    """Raises ImportError if a package is missing."""
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource  # noqa: PLC0415 likewise
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 likewise
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415 likewise

    from idpass_server.api.spans import Spans  # noqa: PLC0415 it imports them

    # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES
    named = OTELResourceDetector().detect().attributes
    ours = {
        "service.name": "idpass-server",
        "service.version": __version__,
        "service.instance.id": str(uuid.uuid4()),  # of each worker its own
    }
    provider = TracerProvider(resource=Resource.create({**ours, **named}), shutdown_on_exit=False)
    for exporter in exporters:
        provider.add_span_processor(BatchSpanProcessor(exporter))
    return Tracing(provider, Spans(provider.get_tracer("idpass-server", __version__)))
