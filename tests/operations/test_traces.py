"""Spans of calls and batches, as an OpenTelemetry exporter gets them."""

import socket
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from structlog.testing import CapturingLogger

from idpass.v1 import id_pass_service_pb2 as service_pb
from idpass_server.hosting import tracing
from kit.collector import Collector
from kit.documents import command, words
from kit.support import UNKNOWN_ID, Calls, Service, channel_to, eventually, process, refused

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT_ID = "00f067aa0ba902b7"
SAMPLED = (("traceparent", f"00-{TRACE_ID}-{PARENT_ID}-01"), ("tracestate", "vendor=1"))
UNSAMPLED = (("traceparent", f"00-{TRACE_ID}-{PARENT_ID}-00"),)
CANCEL = "Recv.idpass.v1.IdPassService.CancelIdPass"


class Traced(Service):
    """A server whose spans stay in memory. Args: exporter: that they are exported to."""

    def __init__(self, db: Path | str, exporter: InMemorySpanExporter) -> None:
        super().__init__(db)
        self._exporter = exporter

    def cancel_in(self, metadata: Any, pass_id: str) -> Any:
        """Cancels a pass with metadata of the test's own."""
        request = service_pb.CancelRequest(id=pass_id)
        return self.stub.CancelIdPass(request, metadata=metadata, timeout=10)

    def spans(self) -> dict[str, list[Any]]:
        """Stops, and returns every span by its name."""
        self.stop()
        found: defaultdict[str, list[Any]] = defaultdict(list)
        for span in self._exporter.get_finished_spans():
            found[span.name].append(span)
        return found


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch, db: Path | str) -> Iterator[Traced]:
    exporter = InMemorySpanExporter()
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "memory")
    monkeypatch.setattr(tracing, "_exporters", lambda _names: [exporter])
    service = Traced(db, exporter)
    yield service
    service.stop()


@pytest.mark.both_stores
def test_a_cancel_is_a_span_with_its_wait_and_its_commit(traced: Traced) -> None:
    pass_id = traced.register().id_pass.id
    reference = traced.cancel_in(SAMPLED, pass_id).reference
    spans = traced.spans()
    (call,) = spans[CANCEL]
    (queue,) = [each for each in spans["queue"] if each.parent.span_id == call.context.span_id]
    (commit,) = [each for each in spans["commit"] if each.parent.span_id == call.context.span_id]
    assert (call.kind, f"{call.context.trace_id:032x}") == (SpanKind.SERVER, TRACE_ID)
    assert f"{call.parent.span_id:016x}" == PARENT_ID
    assert call.context.trace_state.to_header() == "vendor=1"
    assert (
        call.attributes.items()
        >= {
            "rpc.system.name": "grpc",
            "rpc.method": "idpass.v1.IdPassService/CancelIdPass",
            "rpc.response.status_code": "OK",
            "network.peer.address": "127.0.0.1",
            "idpass.reference": reference,
            "idpass.account": "demo",
            "idpass.id_pass": pass_id,
            "idpass.replayed": False,
        }.items()
    )
    assert call.status.status_code is StatusCode.UNSET
    times = [call.start_time, queue.start_time, queue.end_time, commit.end_time, call.end_time]
    assert times == sorted(times)
    assert commit.start_time == queue.end_time
    assert [link.context.span_id for link in commit.links] == [call.context.span_id]
    assert [link.context.span_id for link in queue.links] == [commit.context.span_id]


def test_one_commit_is_linked_to_every_call_of_its_batch(traced: Traced) -> None:
    ids = [traced.register().id_pass.id for _ in range(40)]
    with ThreadPoolExecutor(len(ids)) as pool:
        list(pool.map(traced.cancel, ids))
    spans = traced.spans()
    calls = {call.context.span_id for call in spans[CANCEL]}
    commits = [each for each in spans["commit"] if each.parent.span_id in calls]
    linked = [link.context.span_id for commit in commits for link in commit.links]
    assert len(linked) == len(calls) == 40
    assert set(linked) == calls
    assert len(commits) < 40  # they were not one by one
    assert sum(commit.attributes["idpass.batch.calls"] for commit in commits) == 40
    queues = [each for each in spans["queue"] if each.parent.span_id in calls]
    assert len(queues) == 40
    ids_of_commits = {commit.context.span_id for commit in commits}
    assert {each.links[0].context.span_id for each in queues} == ids_of_commits


def test_a_refusal_is_no_error_of_the_server(traced: Traced) -> None:
    refused(lambda: traced.cancel(UNKNOWN_ID))
    (call,) = traced.spans()[CANCEL]
    assert call.attributes["rpc.response.status_code"] == "NOT_FOUND"
    assert call.attributes["idpass.reason"] == "PASS_NOT_FOUND"
    assert call.status.status_code is StatusCode.UNSET
    assert "error.type" not in call.attributes


def test_a_call_that_its_caller_does_not_record_has_no_span(traced: Traced) -> None:
    pass_id = traced.register().id_pass.id
    traced.cancel_in(UNSAMPLED, pass_id)
    assert CANCEL not in traced.spans()


def test_a_stream_is_a_span_until_its_reader_leaves(traced: Traced) -> None:
    traced.register()
    stream = traced.watch()
    next(stream)
    stream.cancel()
    eventually(lambda: traced.server._watchers.open == 0)
    spans = traced.server._spans
    assert spans is not None
    eventually(lambda: spans._open == {})  # nothing of a call is kept
    watched = traced.spans()["Recv.idpass.v1.IdPassService.WatchIdPasses"]
    assert [call.attributes["rpc.response.status_code"] for call in watched] == ["CANCELLED"]


def test_a_sampler_that_fails_fails_no_call(
    traced: Traced, monkeypatch: pytest.MonkeyPatch
) -> None:
    pass_id = traced.register().id_pass.id
    tracer = traced.server._spans._tracer  # type: ignore[union-attr]
    begin = tracer.start_span

    def fail_at(*names: str) -> None:
        def start(name: str, *args: Any, **kwargs: Any) -> Any:
            return 1 // 0 if name in names else begin(name, *args, **kwargs)

        monkeypatch.setattr(tracer, "start_span", start)

    fail_at("queue", "commit")
    assert traced.cancel(pass_id).fee_refunded
    fail_at(CANCEL)
    assert refused(lambda: traced.cancel(pass_id)).reason == "PASS_ALREADY_CANCELLED"
    assert len(traced.spans()[CANCEL]) == 1


def test_the_standard_variables_lead_the_spans_to_a_collector(tmp_path: Path) -> None:
    exported = words(command("monitoring.md", "export OTEL").replace("export", ""))
    with Collector() as collector:
        environment = dict(each.split("=") for each in exported) | {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_TRACES_SAMPLER_ARG": "0",  # only what the caller records
            "OTEL_SERVICE_NAME": "passes",
            "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
            "OTEL_BSP_SCHEDULE_DELAY": "10",
        }
        with process(tmp_path / "idpass.db", env=environment) as server:
            assert server.wait_for("traces")["exporters"] == ["otlp_proto_http"]
            server.account()
            server.stub.GetAccount(service_pb.GetAccountRequest(), metadata=SAMPLED, timeout=10)
            spans = collector.wait_for(lambda each: len(each) > 0)
            server.stub.GetAccount(service_pb.GetAccountRequest(), metadata=SAMPLED, timeout=10)
            server.signal()  # what is left is exported before the end
            assert server.wait() == 0
        spans = collector.wait_for(lambda each: len(each) == 2)
    for span, resource in spans:
        assert span.trace_id.hex() == TRACE_ID
        assert resource["service.name"] == "passes"
        assert resource["deployment.environment.name"] == "test"
        assert resource["service.version"]
    lines = [line for line in server.log if line["event"] == "call"]
    assert [line.get("trace_id") for line in lines] == [None, TRACE_ID, TRACE_ID]


def test_a_collector_that_does_not_answer_delays_neither_calls_nor_the_stop(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
            "OTEL_BSP_SCHEDULE_DELAY": "1",
            "OTEL_BSP_MAX_QUEUE_SIZE": "8",
            "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "8",
        }
        with process(tmp_path / "idpass.db", env=environment) as server:
            for _ in range(50):
                server.account()
            server.signal()
            assert server.wait() == 0
    assert server.wait_for("traces_not_flushed")["seconds"] == tracing.FLUSH_S


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "True"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_without_an_exporter_nothing_is_traced(environment: dict[str, str]) -> None:
    assert tracing.start(environment) is None


def test_an_exporter_that_is_not_there_is_told_with_what_would_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = CapturingLogger()
    monkeypatch.setattr(tracing, "log", log)
    asked = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    assert tracing.start(asked) is None
    assert tracing.start({"OTEL_TRACES_EXPORTER": "jaeger"}) is None
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace.export", None)
    assert tracing.start({"OTEL_TRACES_EXPORTER": "otlp"}) is None
    assert {call.args for call in log.calls} == {("traces_off",)}
    no_grpc, no_jaeger, nothing = [call.kwargs["reason"] for call in log.calls]
    assert "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf" in no_grpc
    assert "no exporter jaeger" in no_jaeger
    assert "pip install 'opentelemetry-exporter-otlp-proto-http" in nothing


def test_without_the_extra_opentelemetry_is_not_imported(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "from idpass_server.config import Settings\n"
        "from idpass_server.testing import RunningServer\n"
        "from idpass import IdPassClient\n"
        f"server = RunningServer(Settings(listen='127.0.0.1:0', db='sqlite:///{tmp_path}/x.db'))\n"
        "with IdPassClient(server.address) as client: client.cancel(client.register().id_pass.id)\n"
        "server.stop()\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry.')]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_each_worker_exports_its_own_spans(postgres_db: str) -> None:
    with Collector() as collector:
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
        with process(postgres_db, "--workers", "2", env=environment) as server:
            found: set[int] = set()
            while len(found) < 2:  # the kernel chooses a worker for each connection
                with channel_to(server.address, None) as channel:
                    Calls(channel).account()
                found = {line["worker"] for line in server.log if line["event"] == "call"}
            server.signal()
            assert server.wait() == 0
        spans = collector.wait_for(
            lambda each: len({it.resource["service.instance.id"] for it in each}) == 2
        )
    assert {each.resource["service.name"] for each in spans} == {"idpass-server"}
    assert {line["worker"] for line in server.log if line["event"] == "started"} == {0, 1}
