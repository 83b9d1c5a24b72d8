"""Callers who do not wait for one another: calls come at a rate, whatever becomes of them.

usage: python -m bench.open_loop ADDRESS IDS [OUTCOMES] < PLAN > RESULTS

A plan is a line of JSON, a list of phases (see `Phase`); the results are a line of JSON, one
`Result` for each. The file of outcomes gets a line of JSON for each call, an `Outcome`.

The callers stand behind a number of connections. Each call cancels a pass under the pass's id as
its request_id, has a deadline, and is reset when that has passed; a call that finds no room on its
connection (the server's limit on streams, or flow control) waits in the client, as in every gRPC
client.

It speaks HTTP/2 by hand, with frames made beforehand: a gRPC client takes more time for a call
than the server does, and many times the server's capacity is what is to be offered here.
"""

import asyncio
import functools
import json
import statistics
import struct
import sys
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
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


class Outcome(NamedTuple):
    """What became of one call.

    Attributes:
        phase: number of the one that it came in.
        id_pass: that it was to cancel.
        status: as in Result.
        due_s: when it was to be made, from the beginning of its phase.
        took_s: from then to its end.
        trailers: of an error that the server has sent.
    """

    phase: int
    id_pass: str
    status: str
    due_s: float
    took_s: float
    trailers: dict[str, str]


class Call:
    __slots__ = ("body", "due_s", "id_pass", "phase", "stream")

    def __init__(self, id_pass: str, body: bytes, due_s: float, phase: "Running") -> None:
        self.id_pass = id_pass
        self.body = body
        self.due_s = due_s
        self.phase = phase
        self.stream = 0


class Running:
    """A phase that calls have come in."""

    def __init__(self, phase: Phase, start_s: float) -> None:
        self.phase = phase
        self.start_s = start_s
        self.seconds = 0.0
        self.calls = 0
        self.by_status: Counter[str] = Counter()
        self.latencies_s: list[float] = []
        self.last_bad_s = start_s
        self.ends: list[tuple[Call, str, float, bytes]] = []
        """Call, status, duration and header block of each that has ended."""

    def ended(self, call: Call, status: str, now_s: float, block: bytes = b"") -> None:
        self.by_status[status] += 1
        took_s = now_s - call.due_s
        self.ends.append((call, status, took_s, block))
        if status == "0":
            self.latencies_s.append(took_s)
        if status != "0" or took_s > self.phase.deadline_s / 10:
            self.last_bad_s = max(self.last_bad_s, call.due_s)

    def result(self) -> Result:
        ordered = sorted(self.latencies_s) or [0.0]
        return Result(
            self.calls,
            self.seconds,
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
            if call := self._sent.pop(stream, None):
                call.phase.ended(call, self._status(body), now_s, body)
        elif kind == RST_STREAM:
            if call := self._sent.pop(stream, None):
                call.phase.ended(call, f"reset {int.from_bytes(body, 'big')}", now_s)
        elif kind == WINDOW_UPDATE and stream == 0:
            self._window += int.from_bytes(body, "big")
        elif kind == SETTINGS and not flags & ACK:
            self._set(body)
        elif kind == PING and not flags & ACK:
            self._transport.write(frame(PING, ACK, 0, body))

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
        return _decoded(block)["grpc-status"]


def _decoded(block: bytes) -> dict[str, str]:
    """The fields of a header block; it needs none that came before, as there is no table."""
    return {str(name): str(value) for name, value in hpack.Decoder().decode(block)}


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


def _body(id_pass: str) -> bytes:
    body = service_pb.CancelRequest(id=id_pass, request_id=id_pass).SerializeToString()
    return b"\0" + len(body).to_bytes(4, "big") + body


def _outcomes(running: Sequence[Running]) -> Iterator[Outcome]:
    trailers = functools.cache(_decoded)
    for number, phase in enumerate(running):
        for call, status, took_s, block in phase.ends:
            told = trailers(block) if block and status != "0" else {}
            due_s = call.due_s - phase.start_s
            yield Outcome(number, call.id_pass, status, due_s, took_s, told)


async def run(
    address: str, bodies: Iterable[tuple[str, bytes]], phases: Sequence[Phase]
) -> list[Running]:
    """Runs one phase after the other, without a break between them.

    Args:
        bodies: for each call the id of its pass, and its message.
    """
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
                call = Call(*next(following), due_s, current)
                connections[made % CONNECTIONS].add(call)
                made += 1
                current.calls += 1
            for connection in connections:
                connection.pump(now_s)
            await asyncio.sleep(TICK_S)
            now_s = time.monotonic()
        current.seconds = now_s - start_s
    while any(r.by_status.total() < r.calls for r in running):
        for connection in connections:
            connection.pump(time.monotonic())
        await asyncio.sleep(TICK_S)
    return running


def main() -> None:
    address, ids, *outcomes = sys.argv[1:]
    bodies = [(id_, _body(id_)) for id_ in Path(ids).read_text().split()]
    phases = [Phase(**phase) for phase in json.loads(sys.stdin.readline())]
    running = uvloop.run(run(address, bodies, phases))
    for file in outcomes:
        lines = (json.dumps(outcome) for outcome in _outcomes(running))
        Path(file).write_text("".join(f"{line}\n" for line in lines))
    results = [phase.result()._asdict() for phase in running]
    sys.stdout.write(json.dumps(results) + "\n")


if __name__ == "__main__":
    main()
