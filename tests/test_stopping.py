"""Stopping: at once, with everything that was begun finished, whoever goes on calling or reading."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

import http2
from idpass.v1.id_pass_service_pb2 import CancelRequest, WatchRequest
from support import UNKNOWN_ID, Process, problems, process

FOREVER = ("--drain", "600")
"""A stop that uses it up fails its test."""
INITIAL_WINDOW_SIZE = 4


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Process]:
    with process(tmp_path / "idpass.db", *FOREVER) as running:
        yield running
    assert problems(running.url) == []


def test_calls_that_keep_coming_do_not_hold_up_a_stop(server: Process) -> None:
    ended = threading.Event()
    codes: list[grpc.StatusCode] = []

    def call_on_and_on() -> None:
        while not ended.wait(0.01):
            call = server.stub.CancelIdPass.future(CancelRequest(id=UNKNOWN_ID), timeout=30)
            call.add_done_callback(lambda each: codes.append(each.code()))

    caller = threading.Thread(target=call_on_and_on)
    caller.start()
    try:
        while not codes:
            ended.wait(0.01)
        server.signal()
        assert server.wait() == 0
    finally:
        ended.set()
        caller.join()


STREAMS = {
    "health": ("/grpc.health.v1.Health/Watch", health_pb2.HealthCheckRequest()),
    "events": ("WatchIdPasses", WatchRequest()),
    "reflection": (
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
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
