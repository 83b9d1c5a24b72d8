"""`serve --workers`: several processes on one port, as one service."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from idpass import IdPassClient, Status
from idpass.v1.id_pass_service_pb2 import CancelRequest
from idpass_server.config import Settings
from idpass_server.failures import BadSetting
from idpass_server.hosting.listening import CannotListen
from idpass_server.processes.reserving import reserve
from idpass_server.processes.worker import Start
from kit.children import children
from kit.guarded import caller
from kit.postgres import Postgres
from kit.probing import VERBOSE, Answer, get, scrape, total
from kit.support import Calls, Process, cli, eventually, problems, process
from kit.versions import BROKEN, Installed
from kit.witness import CHANNEL_OPTIONS, Witness, callers, check

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
WORKERS = 2


@pytest.fixture
def database(postgres_db: str) -> Iterator[str]:
    """A database to serve; it passes an audit in the end."""
    yield postgres_db
    assert problems(postgres_db) == []


@pytest.fixture
def server(database: str) -> Iterator[Process]:
    with process(database, "--workers", str(WORKERS)) as running:
        yield running


def account_by_connections(address: str, count: int) -> None:
    """As many calls, each over a connection of its own."""
    for _ in range(count):
        with grpc.insecure_channel(address, CHANNEL_OPTIONS) as channel:
            Calls(channel).account()


@contextlib.contextmanager
def supervisor(*options: str) -> Iterator["subprocess.Popen[str]"]:
    """One that may not serve yet, in a process group of its own."""
    with subprocess.Popen(
        [sys.executable, "-m", "idpass_server", "serve", "--workers", "2", *options],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as running:
        try:
            yield running
        finally:
            started = children(running.pid)
            running.kill()
            for child in started:  # which may be stopped
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGCONT)


def end(server: Process) -> None:
    server.signal()
    assert server.wait() == 0


def test_connections_are_spread_over_all_workers(server: Process) -> None:
    account_by_connections(server.address, 60)
    end(server)
    by_worker = [line["worker"] for line in server.log if line["event"] == "call"]
    assert len(by_worker) == 60
    assert set(by_worker) == set(range(WORKERS))


def test_one_pass_is_cancelled_once_whichever_workers_are_asked(server: Process) -> None:
    pass_id = server.register().id_pass.id
    channels = [grpc.insecure_channel(server.address, CHANNEL_OPTIONS) for _ in range(12)]
    with ThreadPoolExecutor(len(channels)) as pool:
        answers = list(pool.map(lambda each: Calls(each).cancel(pass_id, request_id="c"), channels))
    for channel in channels:
        channel.close()
    assert sorted(answer.replayed for answer in answers) == [False] + [True] * 11
    assert len({answer.reference for answer in answers}) == 1
    assert server.account().fees_refunded.units == 4


def test_a_killed_worker_is_replaced_and_no_answer_is_lost(server: Process) -> None:
    witness = Witness(seed=1)
    with callers(server.address, witness, 6):
        witness.wait_for_answers(50)
        number, pid = next(iter(server.workers().items()))
        os.kill(pid, signal.SIGKILL)
        died = server.wait_for("worker_died")
        assert (died["worker"], died["pid"], died["signal"]) == (number, pid, "SIGKILL")
        replaced = server.wait_for("worker_started", count=WORKERS + 1)
        assert replaced["worker"] == number
        witness.wait_for_answers(50)
    check(server, witness.take())
    assert set(server.workers()) == set(range(WORKERS))


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.long)]
)
def test_a_signal_drains_all_workers(database: str, number: int) -> None:
    with process(database, "--workers", str(WORKERS)) as server:
        channels = [grpc.insecure_channel(server.address, CHANNEL_OPTIONS) for _ in range(9)]
        ids = [server.register().id_pass.id for _ in range(90)]
        health = [
            health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
            for channel in channels
        ]
        assert {next(answers).status for answers in health} == {SERVING}
        futures = [
            Calls(channels[place % 9]).stub.CancelIdPass.future(
                CancelRequest(id=pass_id), timeout=30
            )
            for place, pass_id in enumerate(ids)
        ]
        futures[0].result()
        server.signal(number)
        assert {next(answers).status for answers in health} == {NOT_SERVING}
        outcomes = [future.exception() for future in futures]
        assert server.wait() == 0
        for channel in channels:
            channel.close()
    stopped = [line.get("worker", "all") for line in server.log if line["event"] == "stopped"]
    assert sorted(stopped[:-1]) == list(range(WORKERS))
    assert stopped[-1] == "all"
    assert "worker_died" not in {line["event"] for line in server.log}
    with process(database) as server:
        for pass_id, error in zip(ids, outcomes, strict=True):
            if error is None:
                assert server.get(pass_id).cancellation.caller
            else:
                assert isinstance(error, grpc.RpcError)
                # gRPC itself drops with CANCELLED what comes in the moment of hanging up.
                assert error.code().name in {"UNAVAILABLE", "CANCELLED"}


def test_ctrl_c_in_a_terminal_drains_all_workers(database: str) -> None:
    """There it goes to the whole process group."""
    with supervisor("--listen", "127.0.0.1:0", "--db", database) as server:
        assert server.stderr
        lines = []
        for line in server.stderr:
            lines.append(json.loads(line))
            if lines[-1]["event"] == "serving":
                os.killpg(server.pid, signal.SIGINT)
        assert server.wait() == 0
    ends = [line["event"] for line in lines if line["event"] in {"stopped", "worker_died"}]
    assert ends == ["stopped"] * 3


def test_workers_end_by_themselves_when_their_supervisor_is_killed(server: Process) -> None:
    pass_id = server.register().id_pass.id
    server.process.kill()
    server.wait_for("end")  # of the pipe that they all write to
    assert sum(line["event"] == "stopped" for line in server.log) == WORKERS
    with process(server.url) as again:
        assert again.get(pass_id)


@pytest.mark.parametrize("count", ["1", pytest.param("2", marks=pytest.mark.long)])
def test_a_second_server_on_the_port_is_refused(server: Process, count: str) -> None:
    options = ("--listen", server.address, "--db", server.url, "--workers", count)
    done = cli("serve", *options)
    assert done.returncode == 1
    assert f"{server.address} cannot be listened on" in done.stderr
    assert "Traceback" not in done.stderr
    account_by_connections(server.address, 20)


def test_a_port_is_taken_before_any_worker_listens(database: str) -> None:
    """Two supervisors that start at the same time do not share it."""
    with contextlib.ExitStack() as first, contextlib.ExitStack() as second:
        place = reserve("--listen", "127.0.0.1:0", first)
        with pytest.raises(CannotListen):
            reserve("--listen", place, second)
        assert cli("serve", "--listen", place, "--db", database).returncode == 1


@pytest.mark.parametrize("option", ["--listen", pytest.param("--http", marks=pytest.mark.long)])
def test_a_port_of_another_program_is_refused(database: str, option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        options = {"--listen": "127.0.0.1:0", "--db": database, "--workers": "2", option: place}
        done = cli("serve", *(word for pair in options.items() for word in pair))
    assert done.returncode == 1
    assert f"{place} cannot be listened on" in done.stderr
    assert option in done.stderr


@pytest.mark.long
def test_a_port_can_be_served_again_at_once(database: str) -> None:
    """Connections that a server closed linger for a minute; they are no reason to wait."""
    with process(database) as alone:
        listen = alone.address
        end(alone)
    for _ in range(2):
        with process(database, "--workers", "2", "--listen", listen) as server:
            assert server.address == listen
            account_by_connections(listen, 5)
            end(server)


@pytest.mark.parametrize("state", ["not migrated", "out of reach"])
def test_if_no_worker_can_start_the_reason_is_said_once(postgres_url: str, state: str) -> None:
    url = postgres_url if state == "not migrated" else "postgresql://nobody@127.0.0.1:1/none"
    options = ("--listen", "127.0.0.1:0", "--db", url)
    alone = cli("serve", *options)
    several = cli("serve", *options, "--workers", "2")
    assert alone.returncode == several.returncode == 1
    assert several.stderr == alone.stderr
    assert several.stderr.startswith("Error: ")


def test_if_the_metrics_cannot_be_shown_no_worker_serves(database: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        options = ("--db", database, "--workers", "3", "--metrics", f"127.0.0.1:{port}")
        done = cli("serve", "--listen", "127.0.0.1:0", *options)
    assert done.returncode == 1
    assert f"Error: 127.0.0.1:{port} cannot be listened on" in done.stderr
    assert "Traceback" not in done.stderr
    assert '"serving"' not in done.stderr


@pytest.mark.long
def test_no_worker_serves_before_all_are_ready(database: str, tmp_path: Path) -> None:
    file = tmp_path / "callers.toml"
    file.write_text(caller("ann", "demo"))
    with socket.create_server(("127.0.0.1", 0)) as free:
        listen = f"127.0.0.1:{free.getsockname()[1]}"
    options = ("--listen", listen, "--db", database, "--callers", str(file))
    with supervisor(*options) as server:
        assert server.stderr
        while (
            len(
                workers := [
                    pid
                    for pid, line in children(server.pid).items()
                    if "idpass_server.processes.worker" in line
                ]
            )
            < 2
        ):
            time.sleep(0.01)
        os.kill(workers[1], signal.SIGSTOP)
        assert json.loads(server.stderr.readline())["event"] == "callers_loaded"
        with grpc.insecure_channel(listen, CHANNEL_OPTIONS) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            with pytest.raises(grpc.RpcError):
                health.Check(health_pb2.HealthCheckRequest(), timeout=0.5)
            os.kill(workers[1], signal.SIGCONT)
            while json.loads(server.stderr.readline())["event"] != "serving":
                pass
            answer = health.Check(health_pb2.HealthCheckRequest(), timeout=10, wait_for_ready=True)
            assert answer.status == SERVING
        server.terminate()
        server.stderr.read()
        assert server.wait() == 0


@pytest.mark.long
def test_a_worker_that_cannot_be_replaced_now_is_replaced_later(
    server: Process, postgres: Postgres
) -> None:
    name = server.url.rpartition("/")[2]
    postgres.execute("ALTER TABLE schema_migrations RENAME TO hidden", database=name)
    number, pid = next(iter(server.workers().items()))
    os.kill(pid, signal.SIGKILL)
    failed = server.wait_for("worker_died", count=2)
    assert failed["worker"] == number
    assert "idpass-server migrate" in failed["error"]
    account_by_connections(server.address, 10)
    postgres.execute("ALTER TABLE hidden RENAME TO schema_migrations", database=name)
    assert server.wait_for("worker_started", count=WORKERS + 1)["worker"] == number


@pytest.mark.long
def test_workers_older_than_the_schema_end_the_service_with_the_reason(
    server: Process, postgres: Postgres
) -> None:
    name = server.url.rpartition("/")[2]
    newer = "INSERT INTO schema_migrations VALUES ('from_the_future', 0)"
    postgres.execute(newer, database=name)
    postgres.execute("UPDATE schema_compatibility SET oldest = 1000", database=name)
    os.kill(next(iter(server.workers().values())), signal.SIGKILL)
    assert server.wait() == 1
    server.wait_for_line(lambda line: "newer idpass-server" in line.get("text", ""))
    postgres.execute("DELETE FROM schema_migrations WHERE applied_time_us = 0", database=name)


@pytest.mark.long
def test_a_worker_that_is_told_to_stop_is_no_error(server: Process) -> None:
    number, pid = next(iter(server.workers().items()))
    os.kill(pid, signal.SIGTERM)
    assert server.wait_for("worker_stopped")["pid"] == pid
    assert server.wait_for("worker_started", count=WORKERS + 1)["worker"] == number
    assert "worker_died" not in {line["event"] for line in server.log}


def test_sighup_is_passed_on_and_ends_nobody(server: Process) -> None:
    server.signal(signal.SIGHUP)
    account_by_connections(server.address, 20)
    end(server)
    assert "worker_died" not in {line["event"] for line in server.log}


@pytest.mark.long
def test_sigusr1_prints_the_stacks_of_all_and_ends_nobody(server: Process) -> None:
    server.signal(signal.SIGUSR1)
    for told in ("idpass_server/processes/worker.py", "idpass_server/cli/serving.py"):
        server.wait_for_line(lambda line, told=told: told in line.get("text", ""))  # type: ignore[misc]
    account_by_connections(server.address, 20)
    end(server)
    assert "worker_died" not in {line["event"] for line in server.log}


@pytest.mark.long
def test_all_workers_are_scraped_in_one_place(database: str) -> None:
    options = ("--workers", str(WORKERS), "--metrics", "127.0.0.1:0", "--http", "127.0.0.1:0")
    with process(database, *options) as server:
        place = server.wait_for("metrics")["listen"]
        account_by_connections(server.address, 30)

        def calls() -> float:
            return total(scrape(place), "grpc_server_call_duration_seconds_count")

        eventually(lambda: calls() == 30)
        found = scrape(place)
        assert total(found, "idpass_worker_up") == WORKERS
        assert total(found, "idpass_store_up") == 1
        assert found["idpass_account_slot_limit", (("account", "demo"),)] == 1_000
        own = {dict(labels)["worker"] for name, labels in found if name == "process_open_fds"}
        assert own == set(map(str, range(WORKERS)))

        # What a worker has counted stays when it ends, whether it could say so or not.
        for number, how in ((0, signal.SIGKILL), (1, signal.SIGTERM)):
            os.kill(server.workers()[number], how)
            server.wait_for("worker_started", count=WORKERS + 1 + number)
        eventually(lambda: total(scrape(place), "idpass_worker_up") == WORKERS)
        assert calls() == 30
        assert total(scrape(place), "idpass_worker_restarts_total") == 1


@pytest.mark.long
def test_a_worker_that_hangs_keeps_its_counts_and_holds_no_scrape_up(database: str) -> None:
    options = ("--workers", "2", "--metrics", "127.0.0.1:0")
    with process(database, *options) as server:
        place = server.wait_for("metrics")["listen"]
        account_by_connections(server.address, 20)

        def calls() -> float:
            return total(scrape(place), "grpc_server_call_duration_seconds_count")

        eventually(lambda: calls() == 20)
        hung = server.workers()[0]
        os.kill(hung, signal.SIGSTOP)
        up = ("idpass_worker_up", (("worker", "0"),))
        eventually(lambda: scrape(place)[up] == 0)
        assert calls() == 20
        assert not any(("worker", "0") in labels for name, labels in scrape(place) if name != up[0])
        os.kill(hung, signal.SIGCONT)
        eventually(lambda: scrape(place)[up] == 1)
        end(server)


@pytest.mark.long
def test_all_workers_are_probed_in_one_place(database: str) -> None:
    options = ("--workers", str(WORKERS), "--probe", "127.0.0.1:0")
    with process(database, *options) as server:
        place = server.wait_for("probe")["listen"]
        while (told := probed(place)).status != 200:
            time.sleep(0.01)
        assert {"[+] workers: ok", "[+] store: ok"} <= set(told.body.splitlines())
        _, pid = next(iter(server.workers().items()))
        os.kill(pid, signal.SIGKILL)
        server.wait_for("worker_started", count=WORKERS + 1)
        assert probed(place).status == 200
        end(server)


def test_a_worker_that_cannot_store_makes_all_not_ready(database: str, postgres: Postgres) -> None:
    name = database.rpartition("/")[2]
    with process(database, "--workers", "2", "--probe", "127.0.0.1:0") as server:
        place = server.wait_for("probe")["listen"]
        while probed(place).status != 200:
            time.sleep(0.01)
        postgres.shut_out(name)
        while "[-] store: worker " not in (told := probed(place)).body:
            time.sleep(0.01)
        assert told.status == 503
        assert "not currently accepting connections" in told.body
        postgres.let_in(name)


def probed(place: str) -> Answer:
    return get(place, VERBOSE)


def test_http_is_answered_by_all_workers(database: str) -> None:
    with process(database, "--workers", "2", "--http", "127.0.0.1:0") as server:
        place = server.wait_for("gateway")["http"]
        for _ in range(20):
            request = urllib.request.Request(
                f"http://{place}/idpass/register",
                data=b"{}",
                headers={"Content-Type": "application/json"},
            )
            with urllib.request.urlopen(request, timeout=10) as answer:
                assert json.load(answer)["id_pass"]["status"] == "new"
        assert server.wait_for("gateway", count=2)["http"] == place
        end(server)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"db": "sqlite:///idpass.db"}, "one process serves a SQLite file"),
        (
            {"db": "postgresql:///x", "sandbox": True, "http": "127.0.0.1:0"},
            "cannot be used with --sandbox",
        ),
    ],
)
def test_what_several_processes_cannot_do_is_refused(
    settings: dict[str, object], said: str
) -> None:
    with pytest.raises(BadSetting, match=said):
        Settings(workers=2, **settings)  # type: ignore[arg-type]


@pytest.mark.long
def test_workers_are_replaced_one_by_one_and_clients_see_nothing(
    database: str, tmp_path: Path
) -> None:
    installed = Installed(tmp_path)
    options = ("--workers", "2", "--http", "127.0.0.1:0", "--probe", "127.0.0.1:0")
    over = threading.Event()
    cancelled: list[str] = []

    def cancel_on_and_on(address: str) -> None:
        with IdPassClient(address) as client:
            while not over.is_set():
                cancelled.append(client.cancel(client.register().id_pass.id).id)

    with (
        process(database, *options, env=installed.env) as server,
        ThreadPoolExecutor(3) as pool,
    ):
        callers = [pool.submit(cancel_on_and_on, server.address) for _ in range(3)]
        before = server.workers()
        installed.install(BROKEN)
        server.signal(signal.SIGUSR2)
        failed = server.wait_for("roll_over_failed", 60)
        assert (failed["worker"], failed["replaced"]) == (0, 0)
        assert server.workers() == before
        installed.install({})
        server.signal(signal.SIGUSR2)
        server.wait_for("rolled_over", 60)
        after = server.workers()
        assert set(after) == set(before)
        assert not set(after.values()) & set(before.values())
        assert probed(server.wait_for("probe")["listen"]).status == 200
        os.kill(after[0], signal.SIGKILL)
        server.wait_for("worker_started", 60, count=5)
        over.set()
        for each in callers:
            each.result(60)
        with IdPassClient(server.address) as client:
            assert {client.get(each).status for each in cancelled} == {Status.CANCELLED}
        end(server)
    assert sum(line["event"] == "worker_died" for line in server.log) == 1


def test_a_setting_that_a_newer_worker_does_not_know_is_refused() -> None:
    known = Start(1, Settings(drain_s=3))
    assert Start.of(known.line()) == known
    line = known.line().replace(b'"drain_s"', b'"dance_s"')
    with pytest.raises(BadSetting, match="has no option for dance_s"):
        Start.of(line)
