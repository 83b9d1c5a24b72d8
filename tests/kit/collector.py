"""A collector of traces, as far as tests need one: it takes OTLP over HTTP, and keeps the spans."""

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Spanned(NamedTuple):
    """A span that was exported, and what exported it."""

    span: Any
    resource: dict[str, str]


class Collector:
    """Listens on a free port.

    Attributes:
        url: for OTEL_EXPORTER_OTLP_ENDPOINT.
    """

    def __init__(self) -> None:
        self._spans: list[Spanned] = []
        self._came = threading.Condition()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert self.path == "/v1/traces"
                body = self.rfile.read(int(self.headers["content-length"]))
                collector._keep(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _keep(self, request: ExportTraceServiceRequest) -> None:
        with self._came:
            for group in request.resource_spans:
                resource = {each.key: each.value.string_value for each in group.resource.attributes}
                for scope in group.scope_spans:
                    self._spans += [Spanned(span, resource) for span in scope.spans]
            self._came.notify_all()

    def wait_for(self, enough: Callable[[list[Spanned]], bool]) -> list[Spanned]:
        """All spans that have come, once they are enough."""
        with self._came:
            assert self._came.wait_for(lambda: enough(self._spans), 30), self._spans
            return list(self._spans)
