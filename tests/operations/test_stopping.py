"""Stopping: at once, and with what was begun finished, whoever goes on calling or reading."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
import uvicorn
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from idpass.v1.id_pass_service_pb2 import CancelRequest, RegisterRequest, WatchRequest
from idpass.v1.id_pass_service_pb2_grpc import IdPassServiceStub
from idpass_server.config import Settings
from idpass_server.engine.sweeper import Sweeper
from idpass_server.hosting import server as server_module
from idpass_server.hosting.server import PartFailed, Server
from idpass_server.processes import running
from kit import http2
from kit.restarting import restart_under_load
from kit.support import UNKNOWN_ID, Calls, Process, Service, cli, problems, process

FOREVER = ("--drain", "600")
"""A stop that uses it up fails its test."""
INITIAL_WINDOW_SIZE = 4
LONELY = [("grpc.use_local_subchannel_pool", 1)]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Process]:
    with process(tmp_path / "idpass.db", *FOREVER) as running:
        yield running
    assert problems(running.url) == []


def test_calls_that_keep_coming_do_not_hold_up_a_stop(server: Process) -> None:
    calling = threading.Event()
    over = threading.Event()

    def call_on_and_on() -> None:
        with grpc.insecure_channel(server.address) as channel:
            while not over.is_set():
                with contextlib.suppress(grpc.RpcError):
                    Calls(channel).get(UNKNOWN_ID)
                calling.set()

    with ThreadPoolExecutor(4) as pool:
        for _ in range(4):
            pool.submit(call_on_and_on)
        calling.wait(30)
        server.signal()
        try:
            assert server.wait() == 0
        finally:
            over.set()


STREAMS = {
    "health": ("/grpc.health.v1.Health/Watch", health_pb2.HealthCheckRequest()),
    "events": ("WatchIdPasses", WatchRequest()),
    "reflection": (
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        reflection_pb2.ServerReflectionRequest(list_services=""),
    ),
}


@pytest.mark.parametrize("window", [0, 1])
@pytest.mark.parametrize("stream", STREAMS)
def test_a_stream_that_nobody_reads_does_not_hold_up_a_stop(
    server: Process, stream: str, window: int
) -> None:
    """Neither where nothing may be sent, nor where it may be a byte at a time."""
    server.register()
    method, request = STREAMS[stream]
    headers = http2.call_headers(method)
    settings = {INITIAL_WINDOW_SIZE: window}
    with contextlib.closing(http2.Connection(server.address, settings=settings)) as reader:
        reader.send(http2.call(1, http2.message(request.SerializeToString()), headers))
        reader.wait_quiet()
        server.signal()
        assert server.wait() == 0


SYMBOL = reflection_pb2.ServerReflectionRequest(file_containing_symbol="idpass.v1.IdPassService")


@pytest.mark.parametrize("pace_s", [None, 1.0])
@pytest.mark.parametrize("stream", STREAMS)
def test_a_reader_with_room_that_takes_next_to_nothing_does_not_hold_up_a_stop(
    server: Process, stream: str, pace_s: float | None
) -> None:
    """One that reads no byte, and one that reads one a second: the kernel holds the rest."""
    method, request = STREAMS[stream]
    headers = http2.call_headers(method)
    settings = {INITIAL_WINDOW_SIZE: http2.LARGEST_WINDOW}
    over = threading.Event()
    with contextlib.closing(http2.Connection(server.address, settings=settings)) as reader:
        reader.open_wide()
        reader.send(http2.header_frames(1, headers))
        asked = http2.message(request.SerializeToString())
        reader.send(http2.data_frames(1, asked, end_stream=stream != "reflection"))
        reader.wait_quiet()
        trickle = threading.Thread(target=take_a_byte_at_a_time, args=(reader, pace_s, over))
        trickle.start()
        if stream == "reflection":  # 20 MB of answers
            asked = http2.message(SYMBOL.SerializeToString())
            reader.send(http2.data_frames(1, asked * 1_000, end_stream=False))
        for _ in range(100):
            server.register()
        server.signal()
        try:
            assert server.wait() == 0
        finally:
            over.set()
            trickle.join()


def take_a_byte_at_a_time(
    reader: http2.Connection, pace_s: float | None, over: threading.Event
) -> None:
    while not over.wait(pace_s):
        reader.forget(1)


def test_a_call_in_flight_is_finished_however_long_it_takes(tmp_path: Path) -> None:
    service = Service(tmp_path / "idpass.db", drain_s=600)
    pass_id = service.register().id_pass.id
    entered, go_on = threading.Event(), threading.Event()
    commit = service.server._store.commit

    def slow(*arguments: Any) -> Any:
        entered.set()
        go_on.wait(30)
        return commit(*arguments)

    service.server._store.commit = slow  # type: ignore[method-assign, assignment]
    call = service.stub.CancelIdPass.future(CancelRequest(id=pass_id), timeout=30)
    entered.wait(30)
    service.loop.call_soon_threadsafe(service.server.stop)
    # The server has hung up: nobody new gets in any more.
    with grpc.insecure_channel(service.address, LONELY) as other:
        while refusal_of(Calls(other)) != "failed to connect":
            pass
    go_on.set()
    assert call.result().fee_refunded
    service.stop()
    assert service.healthy


def refusal_of(calls: Calls) -> str:
    """What a call is told by a server that stops, or by nobody."""
    try:
        calls.account()
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.CANCELLED:  # it came while gRPC hung up
            return "cancelled"
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        return str(error.details()).partition(" to all")[0]
    return "answered"


async def test_a_store_that_never_answers_does_not_hold_up_a_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "CLOSE_S", 0.1)
    server = Server(settings(tmp_path, drain_s=0.1))
    address = await server.start()
    asked, answers = threading.Event(), threading.Event()

    def wait(*_: object) -> Any:
        asked.set()
        answers.wait(30)

    server._store.commit = wait  # type: ignore[method-assign, assignment]
    async with grpc.aio.insecure_channel(address) as channel:
        call = IdPassServiceStub(channel).RegisterIdPass(RegisterRequest())
        await asyncio.to_thread(asked.wait)
        server.stop()
        assert await server.wait() is False
        with pytest.raises(grpc.aio.AioRpcError):
            await call
    answers.set()
    await asyncio.to_thread(server._engine._thread.join)


def settings(folder: Path, **more: Any) -> Settings:
    return Settings(listen="127.0.0.1:0", db=f"sqlite:///{folder / 'idpass.db'}", **more)


async def test_a_part_that_fails_ends_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_: Sweeper) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr(Sweeper, "run", fail)
    server = Server(settings(tmp_path))
    await server.start()
    with pytest.raises(PartFailed, match="sweeper"):
        await server.wait()


def test_a_writer_that_fails_ends_the_server(tmp_path: Path) -> None:
    service = Service(tmp_path / "idpass.db")

    def fail(*_: object) -> Any:
        raise SystemExit

    service.server._store.commit = fail  # type: ignore[method-assign, assignment]
    call = service.stub.RegisterIdPass.future(RegisterRequest(), timeout=30)
    assert isinstance(call.exception(), grpc.RpcError)
    service.stop()
    assert service.healthy is False


async def test_a_gateway_that_fails_ends_the_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr(uvicorn.Server, "serve", fail)
    with pytest.raises(PartFailed, match="gateway"):
        await running.serve(settings(tmp_path, http="127.0.0.1:0"))


def test_http_without_its_parser_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "httptools.py").write_text("raise ImportError('none', name='httptools')")
    done = cli(
        *("serve", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"),
        *("--db", f"sqlite:///{tmp_path / 'idpass.db'}"),
        env={"PYTHONPATH": str(tmp_path)},
    )
    assert done.returncode == 1
    assert "--http needs httptools, which is not installed" in done.stderr


@pytest.mark.long
def test_a_server_restarted_under_load_loses_nothing_and_its_clients_see_no_error(
    tmp_path: Path,
) -> None:
    restart_under_load(tmp_path / "idpass.db", restarts=2)
