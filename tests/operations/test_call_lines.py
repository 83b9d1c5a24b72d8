"""What the line of a call says, which calls have one, and the line that a start leaves."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idpass import IdPassClient, __version__
from idpass.v1 import id_pass_service_pb2 as service_pb
from idpass_server import trace_context
from idpass_server.api import call_log
from idpass_server.api.call_log import CallRecord
from idpass_server.store.sqlite.schema import SCHEMA
from kit.http import EventStream, Http, served
from kit.http2 import Connection, call, call_headers, message
from kit.support import UNKNOWN_ID, Process, process, refused

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE_ID}-00f067aa0ba902b7-01"


def lines(server: Process) -> list[dict[str, Any]]:
    """The lines of all calls, once the server has stopped."""
    server.signal()
    assert server.wait() == 0
    server.end()
    return [line for line in server.log if line["event"] == "call"]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Process]:
    with process(tmp_path / "idpass.db") as running:
        yield running


def test_the_line_of_a_change_says_whose_it_is_and_what_it_changed(server: Process) -> None:
    with IdPassClient(server.address) as client:
        pass_id = client.register(applicant_reference="Jane").id_pass.id
        client.cancel(pass_id, request_id="once")
        client.cancel(pass_id, request_id="once")
    refused(lambda: server.cancel(pass_id))
    registered, cancelled, replayed, refusal = lines(server)
    for line in (registered, cancelled, replayed, refusal):
        assert (line["account"], line["caller"], line["id_pass"]) == ("demo", "demo", pass_id)
        host, _, port = line["peer"].rpartition(":")
        assert host == "127.0.0.1"
        assert port.isdecimal()
        assert "trace_id" not in line
    assert cancelled["client"].startswith(f"idpass-client/{__version__} grpc-python/")
    assert [line.get("replayed") for line in (cancelled, replayed, refusal)] == [False, True, None]
    assert "Jane" not in json.dumps(server.log)


def test_the_line_of_a_read_says_what_was_read(server: Process) -> None:
    pass_id = server.register().id_pass.id
    superseding = server.register(supersedes=pass_id).id_pass.id
    server.get(pass_id)
    server.page()
    items = [service_pb.CancelRequest(id=each) for each in (superseding, UNKNOWN_ID, "no id")]
    server.batch(*items)
    list(server.watch(id=pass_id))
    refused(lambda: server.get("\n\x1b[31m no id"))
    refused(lambda: server.register(supersedes=pass_id))
    _, second, got, page, batch, watched, bad, no_pass = lines(server)
    assert (second["id_pass"], second["replayed"]) == (superseding, False)
    assert (got["id_pass"], watched["id_pass"]) == (pass_id, pass_id)
    assert (page["passes"], batch["passes"]) == (2, 3)
    assert "id_pass" not in bad
    assert no_pass["id_pass"] == pass_id  # the one that cannot be superseded; none was made
    assert all("replayed" not in line for line in (got, page, batch, watched, bad, no_pass))


def test_a_call_that_its_caller_leaves_has_its_line(server: Process) -> None:
    server.register()
    stream = server.watch()
    next(stream)
    stream.cancel()
    with pytest.raises(grpc.RpcError):
        next(stream)
    line = server.wait_for("call", count=2)
    assert (line["method"], line["code"], line["account"]) == ("WatchIdPasses", "CANCELLED", "demo")
    assert line["peer"].startswith("127.0.0.1:")


def test_the_trace_of_a_call_is_in_its_line_and_never_fails_it(server: Process) -> None:
    for trace in (TRACEPARENT, TRACEPARENT.upper(), "00-0", ""):
        server.stub.GetAccount(
            service_pb.GetAccountRequest(), metadata=(("traceparent", trace),), timeout=10
        )
    assert [line.get("trace_id") for line in lines(server)] == [TRACE_ID, None, None, None]


def test_a_reference_leads_from_the_answer_over_http_to_its_line_and_its_event(
    tmp_path: Path,
) -> None:
    with served(tmp_path / "idpass.db") as server:
        pass_id = server.register().id_pass.id
        answer = server.send(
            json.dumps({"id": pass_id}), traceparent=TRACEPARENT, tracestate="vendor=1"
        )
        reference = answer.json()["reference"]
        assert answer.headers["idpass-reference"] == reference
        with server.http.stream(
            "GET", "/idpass/events", params={"id": pass_id}, headers={"traceparent": TRACEPARENT}
        ) as response:
            stream = EventStream(response)
            assert [stream.json()["reference"] for _ in range(2)][1] == reference
        _, cancelled, watched = lines(server)
    assert cancelled["reference"] == reference
    assert cancelled["trace_id"] == watched["trace_id"] == TRACE_ID
    assert cancelled["client"].startswith(f"idpass-gateway/{__version__} ")


def test_malformed_traces_are_not_passed_on_by_the_gateway(tmp_path: Path) -> None:
    with served(tmp_path / "idpass.db") as server:
        for headers in (
            [("traceparent", TRACEPARENT), ("traceparent", TRACEPARENT)],
            [("traceparent", f"{TRACEPARENT}é".encode())],
            [("traceparent", "x" * 5_000)],
            [("tracestate", "vendor=1")],
        ):
            assert get(server, headers).status_code == 200
        assert all("trace_id" not in line for line in lines(server))


def get(server: Http, headers: Any) -> httpx.Response:
    return server.http.get("/idpass/account", headers=headers)


@pytest.mark.parametrize("which", ["failed", "sampled"])
def test_calls_that_failed_are_logged_even_if_others_are_not(tmp_path: Path, which: str) -> None:
    calls = 20

    def in_trace(server: Process, flags: str) -> None:
        metadata = (("traceparent", TRACEPARENT.removesuffix("01") + flags),)
        server.stub.GetAccount(service_pb.GetAccountRequest(), metadata=metadata, timeout=10)

    with process(tmp_path / "idpass.db", "--log-calls", which) as server:
        for _ in range(calls):
            in_trace(server, "00")
            in_trace(server, "01")
        refused(lambda: server.get(UNKNOWN_ID))
        told = [(line["code"], "trace_id" in line) for line in lines(server)]
    assert told == [*[("OK", True)] * (calls if which == "sampled" else 0), ("NOT_FOUND", False)]


def test_one_call_in_a_hundred_is_sampled_by_its_reference() -> None:
    log = call_log.CallLog("sampled")

    def ended() -> CallRecord:
        record = CallRecord("GetAccount")
        record.code = grpc.StatusCode.OK
        return record

    calls = 20_000
    logged = sum(log._is_logged(ended()) for _ in range(calls))
    # Nine standard deviations from the mean; the digits of a UUIDv7 that are looked at are random.
    assert abs(logged - calls / 100) < 9 * (calls / 100) ** 0.5
    once = ended()
    assert len({log._is_logged(once) for _ in range(10)}) == 1


def test_what_gRPC_lets_through_steers_no_terminal(server: Process) -> None:
    named = ("grpc-go/1.60", "\x1b]0;title\x07", "\u202e\u0085", "x" * 2_000)
    with contextlib.closing(Connection(server.address)) as connection:
        for stream, name in zip(range(1, 9, 2), named, strict=True):
            headers = [*call_headers("GetAccount"), ("user-agent", name), ("traceparent", name)]
            connection.send(call(stream, message(b""), headers))
            connection.ended(stream)
    told = [line["client"] for line in lines(server)]
    assert told[0] == "grpc-go/1.60"
    assert all(each.isascii() and each.isprintable() for each in told)
    assert "x" * call_log.MAX_CLIENT_CHARACTERS in told


def test_what_a_stranger_calls_itself_is_cut_and_printable() -> None:
    for text in ("\x1b]0;title\x07", "a\nb", "é" * 200, "\u202e", "x" * 5_000, b"\xff\x00"):
        shown = call_log.plain(text)
        assert shown.isascii()
        assert shown.isprintable()
        assert len(shown) <= 10 * call_log.MAX_CLIENT_CHARACTERS
    assert call_log.plain("grpc-go/1.60.0") == "grpc-go/1.60.0"
    assert call_log.address_of("ipv6:%5B::1%5D:50051") == "[::1]:50051"
    assert call_log.address_of("unix:") == "unix"
    assert call_log.address_of("ipv4:%0A%1B") == r"\n\x1b"


def test_a_start_says_what_runs_and_how_it_is_set(db: Path | str) -> None:
    with process(db, "--log-calls", "sampled", "--max-calls", "7") as server:
        told = server.wait_for("started")
    assert told["version"] == __version__
    assert told["grpcio"] == grpc.__version__
    assert told["schema"] == SCHEMA.migrations[-1]
    assert told["database"].split()[0] == "SQLite"
    changed = told["settings"]
    assert (changed["log-calls"], changed["max-calls"]) == ("sampled", 7)
    assert changed["db"].startswith("sqlite:///")
    assert "max-streams" not in changed


def test_a_start_does_not_tell_the_databases_password(postgres_db: str) -> None:
    with process(postgres_db.replace("postgres@", "postgres:hunter2@")) as server:
        told = server.wait_for("started")
    assert told["database"].startswith("PostgreSQL ")
    assert told["settings"]["db"] == postgres_db
    assert "hunter2" not in json.dumps(server.log)


# -- the form of a trace context

BAD = [
    "",
    "00",
    TRACEPARENT.upper(),
    TRACEPARENT + "\n",
    TRACEPARENT + " ",
    TRACEPARENT + "-",
    TRACEPARENT + "-00",
    "ff" + TRACEPARENT[2:],
    TRACEPARENT.replace(TRACE_ID, "0" * 32),
    TRACEPARENT.replace("00f067aa0ba902b7", "0" * 16),
    TRACEPARENT.replace(TRACE_ID, TRACE_ID[:-1]),
    TRACEPARENT.replace("4b", "gb"),
    "01" + TRACEPARENT[2:] + "x",
    "01" + TRACEPARENT[2:] + "-" + "x" * 200,
    TRACEPARENT.replace("4", "٤"),  # a digit elsewhere
]


@pytest.mark.parametrize("text", BAD)
def test_what_is_no_traceparent_is_ignored(text: str) -> None:
    assert trace_context.read([("traceparent", text)]) is None
    assert trace_context.read([("traceparent", text.encode())]) is None


def test_a_trace_is_passed_on_as_version_00_knows_it() -> None:
    def passed_on(*headers: tuple[str, str]) -> list[str]:
        found = trace_context.read(headers)
        assert found is not None
        return [value for _, value in found.headers()]

    parent = ("traceparent", TRACEPARENT)
    assert passed_on(parent) == [TRACEPARENT]
    assert passed_on(("traceparent", f"cc{TRACEPARENT[2:-2]}ff-more")) == [f"{TRACEPARENT[:-2]}03"]
    assert passed_on(parent, ("tracestate", "a=1 , b@v=2,,")) == [TRACEPARENT, "a=1,b@v=2"]
    assert passed_on(parent, ("tracestate", "a=1"), ("tracestate", "b=2"))[1] == "a=1,b=2"
    for state in ("a=1,a=2", "A=1", "a", "a=\x1b", "a=é", "a=1\n", "x" * 600, "=1", "a=b=c", ""):
        assert passed_on(parent, ("tracestate", state)) == [TRACEPARENT], state
    many = ",".join(f"k{number}=v" for number in range(33))
    assert passed_on(parent, ("tracestate", many)) == [TRACEPARENT]
    assert passed_on(parent, ("tracestate", many.rpartition(",")[0]))[1].count(",") == 31


names = st.sampled_from(["traceparent", "tracestate", "other"])
values = st.text(max_size=200) | st.binary(max_size=200) | st.from_regex(trace_context._TRACEPARENT)


@settings(max_examples=50)
@given(st.lists(st.tuples(names, values), max_size=4))
def test_whatever_is_read_is_passed_on_as_it_would_be_read_again(headers: Any) -> None:
    found = trace_context.read(headers)
    if found is not None:
        for _, value in found.headers():
            assert value.isascii()
            assert value.isprintable()
        assert trace_context.read(found.headers()) == found
