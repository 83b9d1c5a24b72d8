"""The server as a whole: health, reflection, limits, draining, and what it writes to its log."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from idpass.v1 import id_pass_pb2 as pb
from idpass.v1.id_pass_service_pb2 import (
    CancelRequest,
    GetAccountRequest,
    ListRequest,
    WatchRequest,
)
from idpass.v1.id_pass_service_pb2_grpc import IdPassServiceStub
from kit.support import Service, cli, problems, process, refused, set_slots

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.mark.parametrize("name", ["", "idpass.v1.IdPassService"])
def test_health_is_told_overall_and_for_the_service(service: Service, name: str) -> None:
    stub = health_pb2_grpc.HealthStub(service.channel)
    assert stub.Check(health_pb2.HealthCheckRequest(service=name)).status == SERVING


def test_one_call_too_many_is_overloaded(tmp_path: Path) -> None:
    service = Service(tmp_path / "idpass.db", max_calls=2)
    pass_id = service.register().id_pass.id
    blocked = threading.Event()
    entered = threading.Semaphore(0)
    read = service.server._store.get_pass

    def slow(account: str, pass_id: str) -> object:
        entered.release()
        blocked.wait(30)
        return read(account, pass_id)

    service.server._store.get_pass = slow  # type: ignore[method-assign, assignment]
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(service.get, pass_id) for _ in range(2)]
        for _ in range(2):
            entered.acquire()
        error = refused(lambda: service.cancel(pass_id))
        blocked.set()
        assert [future.result().id for future in waiting] == [pass_id] * 2
    assert (error.code, error.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
    assert int(error.trailing["grpc-retry-pushback-ms"]) > 0
    assert service.cancel(pass_id).fee_refunded
    service.stop()


def told_code(error: Exception) -> grpc.StatusCode:
    assert isinstance(error, grpc.RpcError)
    return error.code()


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.long)]
)
def test_a_stopping_server_finishes_what_is_in_flight(tmp_path: Path, number: int) -> None:
    db = tmp_path / "idpass.db"
    with process(db) as server:
        set_slots(db, 5_000)
        ids = [server.register().id_pass.id for _ in range(400)]
        health = health_pb2_grpc.HealthStub(server.channel).Watch(health_pb2.HealthCheckRequest())
        assert next(health).status == SERVING
        futures = [
            server.stub.CancelIdPass.future(CancelRequest(id=pass_id), timeout=30)
            for pass_id in ids
        ]
        futures[0].result()
        server.signal(number)
        assert next(health).status == NOT_SERVING
        outcomes = [future.exception() for future in futures]
        assert server.wait() == 0
    assert {line["event"] for line in server.log} >= {"draining", "stopped"}
    with process(db) as server:
        for pass_id, error in zip(ids, outcomes, strict=True):
            is_cancelled = server.get(pass_id).status == pb.ID_PASS_STATUS_CANCELLED
            if error is None:
                assert is_cancelled
            elif told_code(error) is not grpc.StatusCode.CANCELLED:
                # What gRPC drops in the moment of hanging up is CANCELLED, and nobody can know.
                assert told_code(error) is grpc.StatusCode.UNAVAILABLE
                assert not is_cancelled or "nothing was changed" not in str(error)
    assert problems(db) == []


def test_a_second_start_serves_what_the_first_stored(tmp_path: Path) -> None:
    db = tmp_path / "idpass.db"
    with process(db) as server:
        pass_id = server.register(request_id="r").id_pass.id
        first = server.cancel(pass_id, request_id="c")
        server.signal()
        assert server.wait() == 0
    with process(db) as server:
        again = server.cancel(pass_id, request_id="c")
        assert again.replayed
        assert again.reference == first.reference
        assert server.register(request_id="r").id_pass.id == pass_id


def test_a_second_process_on_the_file_is_refused(tmp_path: Path) -> None:
    db = tmp_path / "idpass.db"
    with process(db) as server:
        second = cli("serve", "--listen", "127.0.0.1:0", "--db", f"sqlite:///{db}")
        assert second.returncode == 1
        assert "being served by another process" in second.stderr
        assert str(server.process.pid) in second.stderr
        assert "Traceback" not in second.stderr
        link = tmp_path / "other.db"
        link.symlink_to(db)
        by_link = cli("serve", "--listen", "127.0.0.1:0", "--db", f"sqlite:///{link}")
        assert by_link.returncode == 1
        assert server.register().id_pass.id


def test_a_port_in_use_is_said_so(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        done = cli("serve", "--listen", listen, "--db", f"sqlite:///{tmp_path / 'idpass.db'}")
    assert done.returncode == 1
    assert f"{listen} cannot be listened on" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_second_server_on_the_port_is_refused(tmp_path: Path) -> None:
    with process(tmp_path / "a.db") as server:
        listen, db = server.address, f"sqlite:///{tmp_path / 'b.db'}"
        done = cli("serve", "--listen", listen, "--db", db)
        assert done.returncode == 1
        assert "cannot be listened on" in done.stderr


def test_the_environment_sets_what_the_options_do(tmp_path: Path) -> None:
    db = tmp_path / "by-environment.db"
    environment = {"IDPASS_DB": f"sqlite:///{db}", "IDPASS_MAX_WATCHERS": "0"}
    command = [sys.executable, "-m", "idpass_server", "serve", "--listen", "127.0.0.1:0"]
    with subprocess.Popen(
        command, env=os.environ | environment, stderr=subprocess.PIPE, text=True
    ) as server:
        assert server.stderr
        try:
            told = map(json.loads, server.stderr)
            address = next(line["listen"] for line in told if line["event"] == "serving")
            with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError) as caught:
                next(IdPassServiceStub(channel).WatchIdPasses(WatchRequest()))
        finally:
            server.kill()
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert db.exists()


def test_a_log_line_for_each_call_and_no_private_text_in_any(tmp_path: Path) -> None:
    with process(tmp_path / "idpass.db") as server:
        pass_id = server.register(applicant_reference="Jane Doe, flat 7").id_pass.id
        answer = server.cancel(pass_id, note="she told us a secret")
        error = refused(
            lambda: server.stub.CancelIdPass(
                CancelRequest(id=pass_id, note="x" * 501 + "long secret"),
                metadata=(("authorization", "Bearer hunter2"),),
            )
        )
        server.signal()
        server.wait()
    lines = [line for line in server.log if line["event"] == "call"]
    register, cancel, bad = lines
    assert [line["method"] for line in lines] == ["RegisterIdPass", "CancelIdPass", "CancelIdPass"]
    assert (cancel["code"], cancel["reference"]) == ("OK", answer.reference)
    assert (bad["code"], bad["reason"]) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
    assert bad["reference"] == error.details["RequestInfo"].request_id  # type: ignore[attr-defined]
    assert all(line["duration_ms"] > 0 and line["caller"] == "demo" for line in lines)
    text = json.dumps(server.log)
    assert register["timestamp"].endswith("Z")
    for private in ("Jane", "secret", "hunter2", "xxx"):
        assert private not in text


def test_metrics_count_calls_and_late_results(tmp_path: Path) -> None:
    with process(tmp_path / "idpass.db", "--metrics", "127.0.0.1:0") as server:
        pass_id = server.pass_in("in_progress")
        server.cancel(pass_id)
        refused(lambda: server.advance(pass_id, "complete"))
        listen = server.wait_for("metrics")["listen"]
        method = 'grpc_method="idpass.v1.IdPassService/AdvanceIdPass"'
        ended = "grpc_server_call_duration_seconds_count"
        late = f'{ended}{{{method},grpc_status="FAILED_PRECONDITION"}} 1.0'
        text = ""
        while late not in text:  # it is counted when it has been answered
            text = urllib.request.urlopen(f"http://{listen}/metrics", timeout=10).read().decode()
    assert f'{ended}{{{method.replace("Advance", "Cancel")},grpc_status="OK"}} 1.0' in text
    assert "idpass_late_results_total 1.0" in text
    assert "idpass_pending_commands 0.0" in text
    assert "idpass_watchers_lag_events_max 0.0" in text


def test_every_answer_has_its_reference(service: Service) -> None:
    _, account = service.stub.GetAccount.with_call(GetAccountRequest())
    _, listed = service.stub.ListIdPasses.with_call(ListRequest())
    for call in (account, listed):
        assert dict(call.trailing_metadata())["idpass-reference"]
    request = CancelRequest(id=service.register().id_pass.id, request_id="one-answer")
    first, call = service.stub.CancelIdPass.with_call(request)
    assert not call.trailing_metadata()
    again, call = service.stub.CancelIdPass.with_call(request)
    assert dict(call.trailing_metadata())["idpass-reference"] != again.reference == first.reference


def test_a_client_that_vanishes_does_not_undo_a_commit(service: Service) -> None:
    ids = [service.register().id_pass.id for _ in range(100)]
    for pass_id in ids:
        request = CancelRequest(id=pass_id, request_id=f"c-{pass_id}")
        service.stub.CancelIdPass.future(request, timeout=0.002)
    refunds = 0
    for pass_id in ids:
        answer = service.cancel(pass_id, request_id=f"c-{pass_id}")
        refunds += answer.fee_refunded
    assert refunds == 100
    assert service.account().fees_refunded.units == 450
