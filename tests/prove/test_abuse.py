"""HTTP/2 abused by raw frames, against a server in a process of its own.

Whatever it is sent: while the attack is on and after it the server answers others, it has
written nothing, and its memory is bounded. What that took is printed at the end of the run.
"""

import contextlib
import gzip
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest
from hyperframe.frame import (
    ContinuationFrame,
    HeadersFrame,
    PingFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from idpass import _endpoint
from idpass.v1 import id_pass_pb2 as pb
from idpass.v1 import id_pass_service_pb2 as service_pb
from idpass.v1.id_pass_service_pb2_grpc import IdPassServiceStub
from idpass_server.config import Settings
from idpass_server.hosting.channel_options import PING_STRIKES
from kit import http2
from kit.http2 import Connection, call, call_headers, data_frames, header_frames, message
from kit.memory import PEAK, forget_peak, rss_mb
from kit.support import UNKNOWN_ID, Process, eventually, problems, process, report

PROBE_S = 10.0
"""A probe's deadline: far more than it takes, also on a busy machine. What it took is printed."""

MAX_RSS_MB = 400
MAX_STREAMS = Settings.max_streams
MIB = 1 << 20
INITIAL_WINDOW = SettingsFrame.INITIAL_WINDOW_SIZE
GET = service_pb.GetRequest(id=UNKNOWN_ID).SerializeToString()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    db = tmp_path_factory.mktemp("abuse") / "idpass.db"
    with process(db, "--handshake-timeout", "1") as running:
        running.pass_in("cancelled")
        yield running
        assert running.process.poll() is None


class Attack:
    """Connections to a server that stay open until it has been looked at."""

    def __init__(self, server: Process) -> None:
        self.server = server
        self._connections: list[Connection] = []

    def connect(self, **how: Any) -> Connection:
        self._connections.append(Connection(self.server.address, **how))
        return self._connections[-1]

    def close(self) -> None:
        for connection in self._connections:
            connection.close()


@pytest.fixture
def attack(server: Process, request: pytest.FixtureRequest) -> Iterator[Attack]:
    """What an attack may do to a server is looked at when its test is done."""
    pid = server.process.pid
    before, before_mb = probe(server), rss_mb(pid)
    forget_peak(pid)
    attack = Attack(server)
    try:
        yield attack
        during = probe(server)
    finally:
        attack.close()
    after = probe(server)
    peak_mb = rss_mb(pid, PEAK)
    name = request.node.name.removeprefix("test_").replace("_", " ")
    report(
        request,
        "HTTP/2 abuse: a probe during and after, memory before, at its peak and after",
        f"{during.seconds * 1e3:6.1f} {after.seconds * 1e3:6.1f} ms  "
        f"{before_mb:4.0f} {peak_mb:4.0f} {rss_mb(pid):4.0f} MB  {name}",
    )
    assert (during.account, after.account) == (before.account, before.account)
    assert problems(server.url) == []
    assert peak_mb < MAX_RSS_MB


class Probe(NamedTuple):
    account: pb.Account
    seconds: float


def probe(server: Process) -> Probe:
    """A call on a connection of its own, made again when gRPC turned it away for want of room."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    start_s = time.perf_counter()
    with grpc.insecure_channel(server.address, options) as channel:
        stub = IdPassServiceStub(channel)
        while True:
            try:
                account = stub.GetAccount(service_pb.GetAccountRequest(), timeout=PROBE_S)
                return Probe(account, time.perf_counter() - start_s)
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.CANCELLED:
                    raise
                assert time.perf_counter() - start_s < PROBE_S


def odd(count: int) -> range:
    """The numbers of a client's streams."""
    return range(1, 2 * count, 2)


def test_a_well_formed_call_is_answered(attack: Attack) -> None:
    """Frames are right where they are meant to be."""
    connection = attack.connect()
    connection.send(call(1, message(GET), call_headers("GetIdPass")))
    assert connection.ended(1).status == "5"


def test_20_000_rapid_resets(attack: Attack) -> None:
    connection = attack.connect()
    headers = call_headers("RegisterIdPass")
    connection.send_all(header_frames(n, headers) + http2.reset(n) for n in odd(20_000))
    connection.wait_quiet()


def test_20_000_calls_that_are_reset_at_once(attack: Attack) -> None:
    connection = attack.connect()
    headers = call_headers("GetIdPass")
    connection.send_all(call(n, message(GET), headers) + http2.reset(n) for n in odd(20_000))
    connection.wait_quiet()


def continuation(megabytes: int) -> Iterator[bytes]:
    """A header block that does not end."""
    yield HeadersFrame(1, data=http2.block(call_headers())).serialize()
    piece = http2.block([("x-more", "v" * 1_000)] * 12)
    frame = ContinuationFrame(1, data=piece).serialize()
    for _ in range(megabytes * MIB // len(frame)):
        yield frame


@pytest.mark.parametrize("acknowledge", [True, False], ids=["acknowledged", "not"])
def test_a_flood_of_continuation_frames_with_settings(attack: Attack, acknowledge: bool) -> None:
    connection = attack.connect(acknowledge=acknowledge)
    connection.send_all(continuation(64))
    connection.wait_quiet()


def test_20_half_open_header_blocks_of_4_MiB(attack: Attack) -> None:
    for _ in range(20):
        attack.connect().send_all(continuation(4))


def test_half_open_header_blocks_on_many_streams(attack: Attack) -> None:
    connection = attack.connect()
    data = http2.block(call_headers())
    connection.send_all(HeadersFrame(n, data=data).serialize() for n in odd(1_000))
    connection.wait_closed()


@pytest.mark.parametrize("size", [4_000, 7_500])
def test_metadata_below_the_limit(attack: Attack, size: int) -> None:
    connection = attack.connect()
    connection.send(call(1, message(GET), call_headers("GetIdPass", x_large="v" * size)))
    assert connection.ended(1).status == "5"


@pytest.mark.parametrize("size", [8_200, 40_000, 1_000_000])
def test_metadata_above_the_limit_is_refused_each_time(attack: Attack, size: int) -> None:
    for _ in range(20):
        connection = attack.connect()
        connection.send(call(1, message(GET), call_headers("GetIdPass", x_large="v" * size)))
        assert connection.ended(1).status == "8"


def test_many_small_metadata_entries_above_the_limit(attack: Attack) -> None:
    connection = attack.connect()
    headers = [*call_headers("GetIdPass"), *((f"x-{n}", "v") for n in range(20_000))]
    connection.send(call(1, message(GET), headers))
    assert connection.ended(1).status == "8"


@pytest.mark.parametrize(
    ("encoding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)]
)
def test_a_compression_bomb(
    attack: Attack, encoding: str, compress: Callable[[bytes], bytes]
) -> None:
    connection = attack.connect()
    bomb = compress(bytes(200 * MIB))
    headers = call_headers(grpc_encoding=encoding)
    for n in odd(8):
        connection.send(call(n, message(bomb, flag=1), headers))
    for n in odd(8):
        assert connection.ended(n).status == "8"


@pytest.mark.parametrize(
    "how",
    [{"preface": False}, {"acknowledge": False}],
    ids=["send nothing", "do not acknowledge settings"],
)
def test_connections_that(attack: Attack, how: dict[str, Any]) -> None:
    stalled = [attack.connect(**how) for _ in range(100)]
    for connection in stalled:
        connection.wait_closed()


def test_connections_with_a_preface_only(attack: Attack) -> None:
    stalled = [attack.connect(preface=False) for _ in range(100)]
    for connection in stalled:
        connection.send(http2.PREFACE)
    for connection in stalled:
        connection.wait_closed()


def test_connections_that_do_not_speak_http2(attack: Attack) -> None:
    for garbage in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00", bytes(100_000)):
        connection = attack.connect(preface=False)
        connection.send(garbage)
        connection.wait_closed()


def test_answers_that_may_not_be_sent(attack: Attack) -> None:
    """With a window of 0 the server has to keep what it would say."""
    for _ in range(5):
        connection = attack.connect(settings={INITIAL_WINDOW: 0})
        connection.send_all(call(n, message(b""), call_headers("ListIdPasses")) for n in odd(50))
        connection.wait_quiet()


def test_calls_without_their_message(attack: Attack) -> None:
    for _ in range(2):
        connection = attack.connect()
        connection.send_all(
            header_frames(n, call_headers(), end_stream=True) for n in odd(MAX_STREAMS)
        )
        connection.wait_quiet()


def test_more_calls_than_are_taken_at_once_hold_nobody_up_for_long(attack: Attack) -> None:
    for _ in range(5):
        attack.connect().send_all(call(n, message(GET)) for n in odd(MAX_STREAMS))


def test_messages_that_stay_half_sent(attack: Attack) -> None:
    for _ in range(4):
        connection = attack.connect()
        prefix = message(bytes(2 * MIB))[:5]
        for n in odd(100):
            connection.send(header_frames(n, call_headers()))
            connection.send(data_frames(n, prefix + bytes(16_000), end_stream=False))


MESSAGES = {
    "no protobuf": (message(b"\xff" * 100), {"3"}),
    "a length beyond the limit": (b"\0\x7f\xff\xff\xff" + bytes(1_000), {"8"}),
    "compression but no encoding": (message(b"abc", flag=1), {"13"}),
    "an unknown flag": (message(b"", flag=0x80), {"3", "13"}),
    "another after it": (message(b"") + message(b""), {"3", "13"}),
}


@pytest.mark.parametrize(("body", "statuses"), MESSAGES.values(), ids=MESSAGES)
def test_a_message_with(attack: Attack, body: bytes, statuses: set[str]) -> None:
    connection = attack.connect()
    connection.send(call(1, body))
    assert connection.ended(1).status in statuses


@pytest.mark.parametrize(
    "body",
    [b"", b"\0\0", b"\0\0\0\0\xff", message(b"x" * 50)[:20]],
    ids=["at once", "in its prefix", "after its prefix", "half way"],
)
def test_a_message_that_ends_too_soon(attack: Attack, body: bytes) -> None:
    """No handler starts; the call waits for its deadline, or for its caller to go away."""
    connection = attack.connect()
    connection.send(call(1, body, call_headers(grpc_timeout="200m")))
    assert connection.ended(1).status in {"4", "13", "RST_STREAM 8", "RST_STREAM 0"}


CALLS = {
    "an unknown method": (call_headers("Nothing"), {"12"}),
    "an unknown path": (call_headers("/"), {"12"}),
    "a path of control characters": (call_headers("/\x01\x02/\x03"), {"12", "RST_STREAM 1"}),
    "another content-type": (call_headers(content_type="text/plain"), {"3", "RST_STREAM 2"}),
    "GET": (call_headers(_method="GET"), {"RST_STREAM 2", "13"}),
    "no path": (call_headers(_path=None), {"RST_STREAM 2", "13"}),
    "none of its headers": ([("x", "y")], {"RST_STREAM 2", "13"}),
    "an unknown encoding": (call_headers(grpc_encoding="zstd"), {"12", "13"}),
    "a bad timeout": (call_headers(grpc_timeout="soon"), {"3", "13", "RST_STREAM 2"}),
}


@pytest.mark.parametrize(("headers", "statuses"), CALLS.values(), ids=CALLS)
def test_a_call_with(attack: Attack, headers: http2.Headers, statuses: set[str]) -> None:
    connection = attack.connect()
    connection.send(call(1, message(b""), headers))
    assert connection.ended(1).status in statuses


def test_a_flood_of_pings_costs_the_connection(attack: Attack) -> None:
    connection = attack.connect()
    connection.send_all(PingFrame(0).serialize() * 100 for _ in range(1_000))
    assert connection.wait_closed() in {"too_many_pings", ""}


def test_a_flood_of_settings(attack: Attack) -> None:
    connection = attack.connect()
    connection.send_all(
        SettingsFrame(0, settings={INITIAL_WINDOW: 1_000 + n}).serialize() * 100
        for n in range(1_000)
    )
    connection.wait_quiet()


def test_a_flood_of_window_updates(attack: Attack) -> None:
    connection = attack.connect()
    update = WindowUpdateFrame(0, window_increment=1).serialize()
    connection.send_all(update * 1_000 for _ in range(1_000))
    connection.wait_quiet()


def test_data_beyond_the_window(attack: Attack) -> None:
    connection = attack.connect()
    connection.send(header_frames(1, call_headers()))
    connection.send_all(data_frames(1, bytes(MIB), end_stream=False) for _ in range(64))
    assert connection.ended(1).status != "0"


def test_more_streams_than_allowed(attack: Attack) -> None:
    connection = attack.connect()
    connection.send_all(header_frames(n, call_headers()) for n in odd(MAX_STREAMS))
    first_too_many = 2 * MAX_STREAMS + 1
    connection.send(header_frames(first_too_many, call_headers()))
    assert connection.ended(first_too_many).status in {"RST_STREAM 7", "RST_STREAM 11", "closed"}


def test_connections_beyond_the_limit_are_closed_and_the_others_served(tmp_path: Path) -> None:
    with process(tmp_path / "idpass.db", "--max-connections", "10") as server:
        server.account()
        attack = Attack(server)
        for _ in range(9):
            attack.connect()
        for _ in range(5):
            attack.connect(preface=False).wait_closed()
        server.account()
        attack.close()

        def has_room() -> bool:
            try:
                return bool(probe(server).account == server.account())
            except grpc.RpcError:  # the server has yet to read that connections were closed
                return False

        eventually(has_room)


def test_an_idle_connection_is_closed(tmp_path: Path) -> None:
    with process(tmp_path / "idpass.db", "--max-idle", "1") as server:
        with contextlib.closing(Connection(server.address)) as connection:
            connection.wait_closed()
        server.account()


def test_the_clients_own_pings_are_no_flood() -> None:
    assert Settings.min_ping_interval_s * 1000 < _endpoint._OPTIONS["grpc.keepalive_time_ms"]
    assert PING_STRIKES > 0
