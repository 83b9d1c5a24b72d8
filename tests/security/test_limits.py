"""What a caller sees at each limit, and that it is that caller alone who sees it."""

import contextlib
import json
import queue
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from hyperframe.frame import DataFrame

from idpass import IdPassClient
from idpass.v1 import id_pass_service_pb2 as service_pb
from idpass.v1.id_pass_service_pb2 import CancelRequest, GetAccountRequest, GetRequest
from idpass_server.api import calls
from idpass_server.api.call_log import CallRecord
from idpass_server.config import Settings
from idpass_server.gateway import errors
from kit import http2
from kit.guarded import Guarded, caller
from kit.http2 import INITIAL_WINDOW, Connection, call, call_headers, message
from kit.support import UNKNOWN_ID, Service, Told, process, refused, told

DEADLINE_S = 60
OVERLOADED = (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")


def as_(name: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {name}-token"),)


@contextlib.contextmanager
def limited(folder: Path, **settings: Any) -> Iterator[Guarded]:
    """A server of callers ann and bob with these limits."""
    server = Guarded(folder, caller("ann"), caller("bob", "beta"), **settings)
    try:
        yield server
    finally:
        server.stop()


def get(server: Service, name: str) -> Any:
    return server.stub.GetAccount(GetAccountRequest(), metadata=as_(name), timeout=DEADLINE_S)


def pushback_ms(error: Told) -> int:
    retry = error.details["RetryInfo"]
    assert isinstance(retry, error_details_pb2.RetryInfo)
    milliseconds: int = retry.retry_delay.ToMilliseconds()
    assert error.trailing["grpc-retry-pushback-ms"] == str(milliseconds)
    return milliseconds


def test_a_caller_over_its_rate_is_overloaded_and_the_others_are_not(tmp_path: Path) -> None:
    with limited(tmp_path, rate_per_s=0.01, burst=3) as server:
        for _ in range(3):
            get(server, "ann")
        error = refused(lambda: get(server, "ann"))
        assert (error.code, error.reason) == OVERLOADED
        assert "0.01 calls a second" in error.message
        # A token takes 100 s, and the first of them has begun to come.
        assert 90_000 < pushback_ms(error) <= 100_000
        for _ in range(3):
            get(server, "bob")


def test_without_a_callers_file_there_is_no_rate_unless_it_is_given() -> None:
    assert Settings().default_rate_per_s == 0
    assert Settings(rate_per_s=7).default_rate_per_s == 7
    assert Settings(callers="callers.toml").default_rate_per_s == 500
    assert Settings(callers="callers.toml", rate_per_s=0).default_rate_per_s == 0


def test_a_callers_own_rate_and_burst_stand_in_the_callers_file(tmp_path: Path) -> None:
    own = caller("ann") + "rate = 0.01\nburst = 2\n"
    server = Guarded(tmp_path, own, caller("bob", "beta"), rate_per_s=0.02, burst=3)
    try:
        for name, allowed, said in (("ann", 2, "0.01"), ("bob", 3, "0.02")):
            for _ in range(allowed):
                get(server, name)
            error = refused(lambda: get(server, name))  # noqa: B023 called at once
            assert error.reason == "OVERLOADED"
            assert f"{said} calls a second" in error.message
        server.reload(caller("ann") + "rate = 0\n", caller("bob", "beta"))
        get(server, "ann")
        assert refused(lambda: get(server, "bob")).reason == "OVERLOADED"
    finally:
        server.stop()


def test_a_large_request_counts_as_several_calls_valid_or_not(tmp_path: Path) -> None:
    with limited(tmp_path, rate_per_s=1, burst=10) as server:
        item = CancelRequest(id=UNKNOWN_ID, note="n" * 100 * calls.BYTES_PER_CALL)
        batch = service_pb.BatchCancelRequest(requests=[item])
        assert server.stub.BatchCancelIdPasses(batch, metadata=as_("ann")).results[0].error.code
        error = refused(lambda: get(server, "ann"))
        assert 90_000 < pushback_ms(error) <= 92_000


def ended_as(server: Guarded) -> "queue.SimpleQueue[grpc.StatusCode]":
    """The codes by which the server counts its calls, as they end."""
    codes: queue.SimpleQueue[grpc.StatusCode] = queue.SimpleQueue()

    def ended(record: CallRecord) -> None:
        codes.put(record.code)

    server.server.metrics.ended = ended  # type: ignore[method-assign]
    return codes


def test_who_gives_up_while_its_refusal_is_held_is_counted_as_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "REFUSALS_PER_S", 0.001)
    monkeypatch.setattr(calls, "REFUSALS_AT_ONCE", 1)
    with limited(tmp_path, rate_per_s=0.001, burst=1) as server:
        codes = ended_as(server)
        get(server, "ann")
        assert codes.get(timeout=DEADLINE_S) is grpc.StatusCode.OK
        assert refused(lambda: get(server, "ann")).reason == "OVERLOADED"
        assert codes.get(timeout=DEADLINE_S) is grpc.StatusCode.RESOURCE_EXHAUSTED
        with pytest.raises(grpc.RpcError):
            server.stub.GetAccount(GetAccountRequest(), metadata=as_("ann"), timeout=0.2)
        assert codes.get(timeout=DEADLINE_S) is grpc.StatusCode.CANCELLED


def test_a_watcher_that_leaves_while_it_does_not_read_is_counted_as_cancelled(
    tmp_path: Path,
) -> None:
    with limited(tmp_path) as server:
        registered = [
            server.stub.RegisterIdPass.future(service_pb.RegisterRequest(), metadata=as_("ann"))
            for _ in range(500)
        ]
        for future in registered:
            future.result()
        codes = ended_as(server)
        watcher = Connection(server.address, settings={INITIAL_WINDOW: 1})
        with contextlib.closing(watcher):
            headers = call_headers("WatchIdPasses", authorization="Bearer ann-token")
            watcher.send(call(1, message(b""), headers))
            # The first byte of the first event; the others are more than gRPC keeps to be sent.
            assert any(isinstance(frame, DataFrame) for frame in watcher.frames(DEADLINE_S))
            watcher.wait_quiet()
            watcher.send(http2.reset(1))
            while (code := codes.get(timeout=DEADLINE_S)) is grpc.StatusCode.OK:
                pass  # a registration that was counted later than it was answered
            assert code is grpc.StatusCode.CANCELLED


def test_a_caller_over_its_rate_is_told_so_whatever_else_is_wrong(tmp_path: Path) -> None:
    with limited(tmp_path, rate_per_s=0.01, burst=1) as server:
        get(server, "ann")
        bad = CancelRequest(id="bad")
        error = refused(lambda: server.stub.CancelIdPass(bad, metadata=as_("ann")))
        assert error.reason == "OVERLOADED"


def test_every_pass_of_a_batch_counts(tmp_path: Path) -> None:
    with limited(tmp_path, rate_per_s=1, burst=10) as server:
        batch = service_pb.BatchCancelRequest(requests=[CancelRequest(id=UNKNOWN_ID)] * 500)
        answer = server.stub.BatchCancelIdPasses(batch, metadata=as_("ann"))
        assert len(answer.results) == 500
        error = refused(lambda: get(server, "ann"))
        assert 480_000 < pushback_ms(error) <= 491_000
        get(server, "bob")


def test_a_long_page_counts_as_several_calls(tmp_path: Path) -> None:
    with limited(tmp_path, rate_per_s=0.01, burst=60) as server:
        for _ in range(51):
            server.stub.RegisterIdPass(service_pb.RegisterRequest(), metadata=as_("ann"))
        server.stub.ListIdPasses(service_pb.ListRequest(page_size=51), metadata=as_("ann"))
        for _ in range(60 - 51 - 3):
            get(server, "ann")
        assert refused(lambda: get(server, "ann")).reason == "OVERLOADED"


def test_a_stream_counts_as_a_call(tmp_path: Path) -> None:
    with limited(tmp_path, rate_per_s=0.01, burst=2) as server:
        streams = [
            server.stub.WatchIdPasses(service_pb.WatchRequest(), metadata=as_("ann"))
            for _ in range(2)
        ]
        for stream in streams:
            assert stream.initial_metadata()
        assert refused(lambda: get(server, "ann")).reason == "OVERLOADED"
        for stream in streams:
            stream.cancel()


def test_refusals_to_a_flooding_caller_take_their_turn_and_end_with_its_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "REFUSALS_PER_S", 0.001)
    monkeypatch.setattr(calls, "REFUSALS_AT_ONCE", 2)
    with limited(tmp_path, rate_per_s=0.001, burst=1) as server:
        get(server, "ann")
        futures = [
            server.stub.GetAccount.future(GetAccountRequest(), metadata=as_("ann"))
            for _ in range(5)
        ]
        done = threading.Semaphore(0)
        for future in futures:
            future.add_done_callback(lambda _: done.release())
        for _ in range(2):
            assert done.acquire(timeout=DEADLINE_S)
        get(server, "bob")
        assert sum(future.done() for future in futures) == 2
        # A server that stops keeps nobody waiting.
        server.loop.call_soon_threadsafe(server.server.stop)
        for future in futures:
            error = future.exception(timeout=DEADLINE_S)
            assert isinstance(error, grpc.RpcError)
            assert told(error).reason == "OVERLOADED"


def test_who_does_not_say_who_it_is_shares_one_rate_and_is_still_told_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "REFUSALS_PER_S", 1_000)
    over_rate: list[bool] = []

    def ended(record: CallRecord) -> None:
        over_rate.append(record.over_rate)

    with limited(tmp_path, rate_per_s=0.01, burst=2) as server:
        server.server.metrics.ended = ended  # type: ignore[method-assign]
        for number in range(50):
            error = refused(lambda: get(server, f"guess-{number}"))  # noqa: B023 called at once
            assert error.reason == "UNAUTHENTICATED_CALLER"
        for name in ("ann", "bob"):
            get(server, name)
    assert sum(over_rate) == 48


def test_a_flood_is_counted_in_the_log_and_not_told_line_by_line(tmp_path: Path) -> None:
    with process(tmp_path / "idpass.db", "--rate", "0.01", "--burst", "5") as server:
        for _ in range(5):
            server.account()
        for _ in range(15):
            assert refused(server.account).reason == "OVERLOADED"
        server.signal()
        assert server.wait() == 0
    assert sum(line["event"] == "call" for line in server.log) == 5
    over = [line for line in server.log if line["event"] == "over_rate"]
    assert {line["caller"] for line in over} == {"demo"}
    assert sum(line["refused"] for line in over) == 15


def test_one_caller_never_takes_all_the_room_there_is(tmp_path: Path) -> None:
    with limited(tmp_path, max_calls=18) as server:
        stored, refusal = threading.Event(), threading.Semaphore(0)
        commit = server.server._store.commit

        def slow(*args: Any) -> Any:
            stored.wait(DEADLINE_S)
            return commit(*args)

        server.server._store.commit = slow  # type: ignore[method-assign, assignment]

        def register(name: str) -> Any:
            return server.stub.RegisterIdPass.future(
                service_pb.RegisterRequest(), metadata=as_(name), timeout=DEADLINE_S
            )

        anns = [register("ann") for _ in range(40)]
        for future in anns:
            future.add_done_callback(lambda _: refusal.release())
        for _ in range(24):
            assert refusal.acquire(timeout=DEADLINE_S)
        bob = register("bob")
        stored.set()
        assert bob.result().id_pass.id
        codes = Counter(future.code() for future in anns)
        assert codes == {grpc.StatusCode.OK: 16, grpc.StatusCode.RESOURCE_EXHAUSTED: 24}


def test_streams_are_limited_for_each_account(tmp_path: Path) -> None:
    with limited(tmp_path, max_watchers_per_account=1) as server:
        request = service_pb.WatchRequest()
        first = server.stub.WatchIdPasses(request, metadata=as_("ann"))
        assert first.initial_metadata()
        get(server, "ann")
        error = refused(lambda: next(server.stub.WatchIdPasses(request, metadata=as_("ann"))))
        assert (error.code, error.reason) == OVERLOADED
        other = server.stub.WatchIdPasses(request, metadata=as_("bob"))
        assert other.initial_metadata()
        for stream in (first, other):
            stream.cancel()


def test_one_caller_never_takes_all_streams_of_its_account(tmp_path: Path) -> None:
    tables = (caller("ann"), caller("bob"))
    server = Guarded(tmp_path, *tables, rate_per_s=0, max_watchers_per_account=18)
    streams: list[Any] = []

    def watch(name: str) -> None:
        stream = server.stub.WatchIdPasses(service_pb.WatchRequest(), metadata=as_(name))
        streams.append(stream)
        assert stream.initial_metadata()

    try:
        for _ in range(16):
            watch("ann")
        request = service_pb.WatchRequest()
        error = refused(lambda: next(server.stub.WatchIdPasses(request, metadata=as_("ann"))))
        assert (error.code, error.reason) == OVERLOADED
        assert "18 streams" in error.message
        watch("bob")
        streams.pop(0).cancel()
        watch("bob")
    finally:
        for stream in streams:
            stream.cancel()
        server.stop()


def test_refusals_for_want_of_room_are_counted_in_the_log_and_not_told_line_by_line(
    tmp_path: Path,
) -> None:
    with process(tmp_path / "idpass.db", "--max-calls", "1") as server:
        futures = [server.stub.GetAccount.future(GetAccountRequest()) for _ in range(50)]
        codes = Counter(future.code() for future in futures)
        server.signal()
        assert server.wait() == 0
    refusals = codes[grpc.StatusCode.RESOURCE_EXHAUSTED]
    assert refusals
    lines = [line for line in server.log if line["event"] == "call"]
    assert len(lines) == codes[grpc.StatusCode.OK]
    assert sum(line["refused"] for line in server.log if line["event"] == "overloaded") == refusals


def test_a_request_beyond_the_size_is_refused_and_one_below_is_read(tmp_path: Path) -> None:
    with limited(tmp_path, max_message_bytes=2_000) as server:
        for note, code in (("x" * 1_900, "INVALID_ARGUMENT"), ("x" * 2_100, "RESOURCE_EXHAUSTED")):
            request = CancelRequest(id=UNKNOWN_ID, note=note)
            with pytest.raises(grpc.RpcError) as caught:
                server.stub.CancelIdPass(request, metadata=as_("ann"))
            assert caught.value.code().name == code


def test_metadata_beyond_the_size_is_refused_and_below_it_read(tmp_path: Path) -> None:
    with limited(tmp_path, max_metadata_bytes=2_000) as server:
        request = GetRequest(id=UNKNOWN_ID)
        for value, code in (("x" * 1_000, "NOT_FOUND"), ("x" * 2_000, "RESOURCE_EXHAUSTED")):
            with pytest.raises(grpc.RpcError) as caught:
                server.stub.GetIdPass(request, metadata=(*as_("ann"), ("x-more", value)))
            assert caught.value.code().name == code


def test_a_call_beyond_a_connections_streams_waits_its_turn(tmp_path: Path) -> None:
    # gRPC counts a stream until its memory is freed, and refuses a client that cannot know (see
    # `channel_options`); the client sends such a call again.
    with (
        limited(tmp_path, max_streams=1) as server,
        IdPassClient(server.address, token="ann-token", timeout=DEADLINE_S) as client,
        ThreadPoolExecutor(8) as pool,
    ):
        answers = list(pool.map(lambda _: client.account(), range(40)))
        assert len(answers) == 40


def test_what_clients_do_in_earnest_is_not_refused(tmp_path: Path) -> None:
    with limited(tmp_path, rate_per_s=0, max_calls=10_000) as server:
        futures = [
            server.stub.GetAccount.future(GetAccountRequest(), metadata=as_("ann"))
            for _ in range(500)
        ]
        codes = Counter(future.code() for future in futures)
        assert codes == {grpc.StatusCode.OK: 500}


def test_over_http_the_delay_is_told_in_whole_seconds() -> None:
    status = status_pb2.Status(code=8)
    detail: Any = status.details.add()
    retry = error_details_pb2.RetryInfo()
    retry.retry_delay.FromMilliseconds(200)
    detail.Pack(retry)
    headers = dict(errors.HttpError(429, status).headers)
    assert headers["retry-after"] == "1"
    assert json.loads(errors.HttpError(429, status).body())["code"] == 8
