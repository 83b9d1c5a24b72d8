"""Health: whether a change could be stored now, and for strangers no way to hold it up."""

import asyncio
import threading
from typing import Any

import grpc
import psycopg
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from idpass_server.engine import writes as engine
from idpass_server.hosting import health
from idpass_server.rules.refusals import StoreUnavailable
from idpass_server.store import cause_of
from kit import http2
from kit.postgres import Postgres
from kit.secure import Secure
from kit.support import Service, cli

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
NAMES = ["", "idpass.v1.IdPassService", "idpass.v1.WebhookService", "liveness"]
INITIAL_WINDOW_SIZE = 4


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "INTERVAL_S", 0.02)
    monkeypatch.setattr(engine, "RECENT_S", 0.0)


def stub(service: Service) -> Any:
    return health_pb2_grpc.HealthStub(service.channel)


def request(name: str = "") -> health_pb2.HealthCheckRequest:
    return health_pb2.HealthCheckRequest(service=name)


def refuse() -> None:
    raise StoreUnavailable("the disk is full") from OSError("no space left")


def set_check(service: Service, check: Any) -> Any:
    """Puts another check of the store in place. Returns the one that was there."""
    store: Any = service.server._store
    before, store.check = store.check, check
    return before


@pytest.mark.parametrize("name", NAMES)
def test_a_server_that_can_store_serves(service: Service, name: str) -> None:
    assert stub(service).Check(request(name)).status == SERVING
    listed = stub(service).List(health_pb2.HealthListRequest()).statuses
    assert {each: answer.status for each, answer in listed.items()} == dict.fromkeys(NAMES, SERVING)


def test_an_unknown_name_is_told_as_the_protocol_says(service: Service) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub(service).Check(request("none"))
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    assert next(stub(service).Watch(request("none"))).status == SERVICE_UNKNOWN


def test_a_store_that_refuses_turns_health_and_comes_back(service: Service) -> None:
    watches = {name: stub(service).Watch(request(name)) for name in NAMES[:2]}
    assert {next(watch).status for watch in watches.values()} == {SERVING}
    before = set_check(service, refuse)
    assert {next(watch).status for watch in watches.values()} == {NOT_SERVING}
    assert stub(service).Check(request("liveness")).status == SERVING
    assert service.server.readiness.checks()["store"].problem == "the disk is full: no space left"
    set_check(service, before)
    assert {next(watch).status for watch in watches.values()} == {SERVING}


def test_a_store_that_does_not_answer_is_not_waited_for(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "CHECK_S", 0.05)
    watch = stub(service).Watch(request())
    assert next(watch).status == SERVING
    answers = threading.Event()
    before = set_check(service, lambda: answers.wait(30))
    assert next(watch).status == NOT_SERVING
    set_check(service, before)
    answers.set()
    assert next(watch).status == SERVING


def test_a_commit_is_proof_enough(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "RECENT_S", 60.0)
    service.register()
    checks: list[None] = []
    set_check(service, lambda: checks.append(None))
    check = asyncio.run_coroutine_threadsafe(service.server._engine.check(30), service.loop)
    check.result(30)
    assert checks == []


def test_a_database_that_is_away_says_why(postgres_db: str, postgres: Postgres) -> None:
    service = Service(postgres_db)
    watch = stub(service).Watch(request())
    assert next(watch).status == SERVING
    name = postgres_db.rpartition("/")[2]
    postgres.shut_out(name)
    assert next(watch).status == NOT_SERVING
    problem = service.server.readiness.checks()["store"].problem
    assert problem is not None
    assert f'database "{name}" is not currently accepting connections' in problem
    postgres.let_in(name)
    assert next(watch).status == SERVING
    service.stop()


def test_a_reason_of_the_database_has_its_sqlstate() -> None:
    refusal = StoreUnavailable("the database takes no writes")
    assert cause_of(refusal) is None
    refusal.__cause__ = psycopg.errors.ReadOnlySqlTransaction("cannot execute\nUPDATE")
    assert cause_of(refusal) == "cannot execute UPDATE (SQLSTATE 25006)"


def test_a_reader_that_takes_nothing_holds_up_no_other(service: Service) -> None:
    reader = http2.Connection(service.address, settings={INITIAL_WINDOW_SIZE: 0})
    message = http2.message(request().SerializeToString())
    reader.send(http2.call(1, message, http2.call_headers("/grpc.health.v1.Health/Watch")))
    reader.wait_quiet()
    watch = stub(service).Watch(request())
    assert next(watch).status == SERVING
    set_check(service, refuse)
    assert next(watch).status == NOT_SERVING
    reader.close()


def test_streams_of_one_connection_are_limited(service: Service) -> None:
    watches = [stub(service).Watch(request()) for _ in range(health.MAX_STREAMS_PER_CONNECTION)]
    assert {next(watch).status for watch in watches} == {SERVING}
    with pytest.raises(grpc.RpcError) as caught:
        next(stub(service).Watch(request()))
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    with grpc.insecure_channel(service.address, [("grpc.use_local_subchannel_pool", 1)]) as other:
        assert next(health_pb2_grpc.HealthStub(other).Watch(request())).status == SERVING
    assert stub(service).Check(request()).status == SERVING


def test_a_stream_ends_in_time_read_or_not(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "MAX_STREAM_AGE_S", 0.05)
    reader = http2.Connection(service.address, settings={INITIAL_WINDOW_SIZE: 0})
    message = http2.message(request().SerializeToString())
    headers = http2.call_headers("/grpc.health.v1.Health/Watch")
    for stream in range(1, 2 * health.MAX_STREAMS_PER_CONNECTION, 2):
        reader.send(http2.call(stream, message, headers))
    reader.wait_quiet()
    with pytest.raises(grpc.RpcError) as caught:
        list(stub(service).Watch(request()))
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    while service.server._health._open:
        pass
    reader.close()


def test_the_command_says_how_a_server_is(service: Service) -> None:
    command = ("health", "--address", service.address)
    done = cli(*command)
    assert (done.returncode, done.stdout) == (0, "serving\n")
    watch = stub(service).Watch(request())
    next(watch)
    set_check(service, refuse)
    next(watch)
    assert cli(*command).returncode == 1
    assert cli(*command, "--service", "liveness").returncode == 0
    assert cli(*command, "--service", "none").returncode == 4


def test_the_command_says_that_nobody_answers() -> None:
    done = cli("health", "--address", "127.0.0.1:1")
    assert done.returncode == 4
    assert "127.0.0.1:1 gives no answer" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_command_speaks_mutual_tls(secure: Secure) -> None:
    tls = ("--tls-ca", str(secure.servers.path))
    client = ("--tls-cert", str(secure.billing.cert), "--tls-key", str(secure.billing.key))
    assert cli("health", "--address", secure.address, *tls, *client).returncode == 0
    assert cli("health", "--address", secure.address, *tls).returncode == 4
    assert cli("health", "--address", secure.address, *client).returncode == 2
