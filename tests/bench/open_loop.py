"""Callers who do not wait for one another: calls come at a rate, whatever becomes of them.

usage: python -m bench.open_loop ADDRESS IDS < PLAN > RESULTS

A plan is a line of JSON, a list of phases (see `Phase`); the results are a line of JSON, one
`Result` for each. The callers stand behind a number of connections. Each call cancels a pass, has
a deadline, and is reset when that has passed; a call that finds no room on its connection (the
server's limit on streams, or flow control) waits in the client, as in every gRPC client.

It speaks HTTP/2 by hand, with frames made beforehand: a gRPC client takes more time for a call
than the server does, and many times the server's capacity is what is to be offered here.
"""

import asyncio
import json
import statistics
import struct
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import hpack
import uvloop
from hyperframe.frame import SettingsFrame

from idpass.v1 import id_pass_service_pb2 as service_pb

CONNECTIONS: Final = 16
TICK_S: Final = 0.001
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DEFAULT_WINDOW: Final = 65_535
OWN_WINDOW: Final = 1 << 30
CANCEL_CODE: Final = struct.pack(">I", 8)

DATA, HEADERS, RST_STREAM, SETTINGS, PING, WINDOW_UPDATE = 0, 1, 3, 4, 6, 8
END_STREAM, ACK, END_HEADERS = 1, 1, 4


class Phase(NamedTuple):
    """
    Args:
        per_s: calls a second, evenly spaced; 0: as many in flight as `in_flight` says.
        seconds: for which they come.
        deadline_s: of each call, counted from when it was to be made.
    """

    per_s: float
    seconds: float
    deadline_s: float
    in_flight: int = 0


class Result(NamedTuple):
    """What became of the calls that came within a phase."""

    calls: int
    seconds: float
    by_status: dict[str, int]
    """By gRPC status; "late" are those whose deadline passed first, "unsent" among them those that
    never left the client."""
    p50_s: float
    p99_s: float
    """Of those that were answered OK."""
    normal_after_s: float
    """From the beginning of the phase to the last call that was not answered OK within a tenth of
    the deadline."""


class Call:
    __slots__ = ("body", "due_s", "phase", "stream")

    def __init__(self, body: bytes, due_s: float, phase: "Running") -> None:
        self.body = body
        self.due_s = due_s
        self.phase = phase
        self.stream = 0


class Running:
    """A phase that calls have come in."""

    def __init__(self, phase: Phase, start_s: float) -> None:
        self.phase = phase
        self.start_s = start_s
        self.calls = 0
        self.by_status: Counter[str] = Counter()
        self.latencies_s: list[float] = []
        self.last_bad_s = start_s

    def ended(self, call: Call, status: str, now_s: float) -> None:
        self.by_status[status] += 1
        took_s = now_s - call.due_s
        if status == "0":
            self.latencies_s.append(took_s)
        if status != "0" or took_s > self.phase.deadline_s / 10:
            self.last_bad_s = max(self.last_bad_s, call.due_s)

    def result(self, seconds: float) -> Result:
        ordered = sorted(self.latencies_s) or [0.0]
        return Result(
            self.calls,
            seconds,
            dict(self.by_status),
            statistics.median(ordered),
            ordered[len(ordered) * 99 // 100],
            self.last_bad_s - self.start_s,
        )


def frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    return struct.pack(">I", len(body))[1:] + struct.pack(">BBI", kind, flags, stream) + body


class Connection(asyncio.Protocol):
    """One client's connection."""

    def __init__(self, headers: bytes) -> None:
        self._headers = headers
        self._received = bytearray()
        self._window = DEFAULT_WINDOW
        self._max_streams = 100
        self._next_stream = 1
        self._waiting: deque[Call] = deque()
        self._sent: dict[int, Call] = {}
        self._by_age: deque[Call] = deque()
        self._decoder = hpack.Decoder()
        self.ready = asyncio.get_running_loop().create_future()
        self.lost = False

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.write(
            PREFACE
            + SettingsFrame(
                0,
                settings={
                    SettingsFrame.HEADER_TABLE_SIZE: 0,
                    SettingsFrame.INITIAL_WINDOW_SIZE: OWN_WINDOW,
                },
            ).serialize()
            + frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", OWN_WINDOW))
        )

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 counted as lost
        self.lost = True
        for call in (*self._sent.values(), *self._waiting):
            call.phase.ended(call, "lost", time.monotonic())
        self._sent.clear()
        self._waiting.clear()

    def add(self, call: Call) -> None:
        self._waiting.append(call)

    def pump(self, now_s: float) -> None:
        """Resets what is late, and sends what there is room for."""
        out: list[bytes] = []
        while (
            self._by_age and self._by_age[0].due_s + self._by_age[0].phase.phase.deadline_s < now_s
        ):
            call = self._by_age.popleft()
            if self._sent.pop(call.stream, None):
                call.phase.ended(call, "late", now_s)
                out.append(frame(RST_STREAM, 0, call.stream, CANCEL_CODE))
        while self._waiting:
            call = self._waiting[0]
            left_s = call.due_s + call.phase.phase.deadline_s - now_s
            if left_s <= 0:
                self._waiting.popleft()
                call.phase.ended(call, "unsent", now_s)
                continue
            if len(self._sent) >= self._max_streams or self._window < len(call.body):
                break
            self._waiting.popleft()
            self._window -= len(call.body)
            call.stream = self._next_stream
            self._next_stream += 2
            self._sent[call.stream] = call
            self._by_age.append(call)
            timeout = b"%dm" % max(1, int(left_s * 1000))
            head = self._headers + bytes([len(timeout)]) + timeout
            out.append(frame(HEADERS, END_HEADERS, call.stream, head))
            out.append(frame(DATA, END_STREAM, call.stream, call.body))
        if out and not self.lost:
            self._transport.write(b"".join(out))

    def data_received(self, data: bytes) -> None:
        self._received += data
        at, received = 0, self._received
        now_s = time.monotonic()
        while len(received) - at >= 9:
            size = int.from_bytes(received[at : at + 3], "big")
            if len(received) - at < 9 + size:
                break
            kind, flags, stream = struct.unpack_from(">BBI", received, at + 3)
            self._frame(kind, flags, stream, bytes(received[at + 9 : at + 9 + size]), now_s)
            at += 9 + size
        del received[:at]

    def _frame(self, kind: int, flags: int, stream: int, body: bytes, now_s: float) -> None:
        if kind == HEADERS and flags & END_STREAM:
            self._end(stream, now_s, lambda: self._status(body))
        elif kind == RST_STREAM:
            self._end(stream, now_s, lambda: f"reset {int.from_bytes(body, 'big')}")
        elif kind == WINDOW_UPDATE and stream == 0:
            self._window += int.from_bytes(body, "big")
        elif kind == SETTINGS and not flags & ACK:
            self._set(body)
        elif kind == PING and not flags & ACK:
            self._transport.write(frame(PING, ACK, 0, body))

    def _end(self, stream: int, now_s: float, status: Callable[[], str]) -> None:
        if call := self._sent.pop(stream, None):
            call.phase.ended(call, status(), now_s)

    def _set(self, body: bytes) -> None:
        for key, value in struct.iter_unpack(">HI", body):
            if key == SettingsFrame.MAX_CONCURRENT_STREAMS:
                self._max_streams = value
        self._transport.write(frame(SETTINGS, ACK, 0, b""))
        if not self.ready.done():
            self.ready.set_result(None)

    def _status(self, block: bytes) -> str:
        """The grpc-status of trailers, whose other fields take long to decode."""
        _, found, rest = block.partition(b"\x0bgrpc-status")
        if found and not rest[0] & 0x80:
            return rest[1 : 1 + rest[0]].decode()
        headers: dict[Any, Any] = dict(self._decoder.decode(block))
        return str(headers["grpc-status"])


def _headers(authority: str) -> bytes:
    """The header block of every call, up to the value of its last field, the timeout."""

    def literal(name: str, value: str) -> bytes:
        return b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()

    name = b"grpc-timeout"
    return (
        b"\x83\x86"  # :method POST, :scheme http
        + literal(":path", "/idpass.v1.IdPassService/CancelIdPass")
        + literal(":authority", authority)
        + literal("te", "trailers")
        + literal("content-type", "application/grpc")
        + b"\x00"
        + bytes([len(name)])
        + name
    )


def _bodies(ids: Iterable[str]) -> Iterable[bytes]:
    for id_ in ids:
        body = service_pb.CancelRequest(id=id_, request_id=id_).SerializeToString()
        yield b"\0" + len(body).to_bytes(4, "big") + body


async def run(address: str, bodies: Iterable[bytes], phases: Sequence[Phase]) -> list[Result]:
    """Runs one phase after the other, without a break between them."""
    loop = asyncio.get_running_loop()
    host, _, port = address.rpartition(":")
    connections = []
    for _ in range(CONNECTIONS):
        _, connection = await loop.create_connection(
            lambda: Connection(_headers(address)), host, int(port)
        )
        await connection.ready
        connections.append(connection)
    following = iter(bodies)
    made = 0
    running: list[Running] = []
    results_s: list[float] = []
    for phase in phases:
        start_s = now_s = time.monotonic()
        current = Running(phase, start_s)
        running.append(current)
        while now_s - start_s < phase.seconds:
            if phase.per_s:
                due = int((now_s - start_s) * phase.per_s)
            else:
                due = phase.in_flight + current.by_status.total()
            while current.calls < due:
                due_s = start_s + current.calls / phase.per_s if phase.per_s else now_s
                call = Call(next(following), due_s, current)
                connections[made % CONNECTIONS].add(call)
                made += 1
                current.calls += 1
            for connection in connections:
                connection.pump(now_s)
            await asyncio.sleep(TICK_S)
            now_s = time.monotonic()
        results_s.append(now_s - start_s)
    while any(r.by_status.total() < r.calls for r in running):
        for connection in connections:
            connection.pump(time.monotonic())
        await asyncio.sleep(TICK_S)
    return [r.result(s) for r, s in zip(running, results_s, strict=True)]


def main() -> None:
    address, ids = sys.argv[1:]
    bodies = list(_bodies(Path(ids).read_text().split()))
    phases = [Phase(**phase) for phase in json.loads(sys.stdin.readline())]
    results = uvloop.run(run(address, bodies, phases))
    sys.stdout.write(json.dumps([result._asdict() for result in results]) + "\n")


if __name__ == "__main__":
    main()
