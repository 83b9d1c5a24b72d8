"""Callers: so many calls in flight at once, and what came of them.

All of them live in the one process of the bench, on uvloop. It stays cheap beside the servers,
so that it is those that are measured: requests go out as bytes already made, and unary answers
are not decoded (a refused call raises all the same).
"""

import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

import grpc
import uuid_utils

from bench.cpu import Usage
from idpass.v1 import id_pass_pb2 as pb
from idpass.v1 import id_pass_service_pb2 as service_pb

CHANNELS: Final = 4
MAX_WINDOWS: Final = 20
SERVICE: Final = "/idpass.v1.IdPassService/"

TakeIds = Callable[[int], list[str]]
"""Gives so many ids that nobody has had."""


class Client(Protocol):
    passes_per_call: int

    async def open(self, address: str) -> None: ...

    async def call(self, caller: int, ids: list[str]) -> None:
        """Makes one call. Raises if any pass was not cancelled."""

    async def close(self) -> None: ...


class Round(NamedTuple):
    """What was counted in one window of time."""

    passes_per_s: float
    p50_s: float
    p99_s: float
    p999_s: float
    worst_s: float
    cpu_per_pass_s: float
    """Processor time of the server."""
    threads_per_pass_s: Mapping[str, float]
    """The same by its threads' names."""
    beside_per_pass_s: float
    """Processor time of what the server calls in turn, such as a database."""
    callers_per_pass_s: float
    """Processor time of this process."""
    others_cores: float
    """Processors' time that went to whatever has no part in this, as a number of processors."""


async def measure(
    client: Client,
    take: TakeIds,
    usage: Callable[[], Usage],
    *,
    in_flight: int,
    ramp_s: float,
    window_s: float,
) -> Round:
    """Keeps `in_flight` calls in flight, and counts those that end within the window.

    Args:
        usage: gives the processor time so far.
        ramp_s: how long to call before the window opens.
    """
    ended: list[tuple[float, float]] = []
    running = True

    async def caller(number: int) -> None:
        while running:
            ids = take(client.passes_per_call)
            start_s = time.perf_counter()
            await client.call(number, ids)
            end_s = time.perf_counter()
            ended.append((end_s, end_s - start_s))

    callers = [asyncio.create_task(caller(number)) for number in range(in_flight)]
    try:
        await _sleep(ramp_s, callers)
        used_before, open_s = usage(), time.perf_counter()
        before = len(ended)
        # On a machine that is busy with other things one call may take longer than a window.
        for _ in range(MAX_WINDOWS):
            await _sleep(window_s, callers)
            if len(ended) > before:
                break
        used_after, close_s = usage(), time.perf_counter()
    finally:
        running = False
        await asyncio.gather(*callers)
    latencies_s = [latency_s for end_s, latency_s in ended if open_s <= end_s < close_s]
    return counted(latencies_s, client.passes_per_call, close_s - open_s, used_before, used_after)


def counted(
    latencies_s: Sequence[float], passes_per_call: int, window_s: float, before: Usage, after: Usage
) -> Round:
    """Args: latencies_s: of the calls that ended within the window, in any order."""
    if not latencies_s:
        raise RuntimeError("no call ended within the window; give more --seconds")
    ordered_s = sorted(latencies_s)
    passes = len(ordered_s) * passes_per_call
    threads_s = {
        name: max(0.0, taken_s - before.threads_s.get(name, 0.0))
        for name, taken_s in after.threads_s.items()
    }
    return Round(
        passes_per_s=passes / window_s,
        p50_s=ordered_s[len(ordered_s) // 2],
        p99_s=ordered_s[len(ordered_s) * 99 // 100],
        p999_s=ordered_s[len(ordered_s) * 999 // 1000],
        worst_s=ordered_s[-1],
        cpu_per_pass_s=(after.server_s - before.server_s) / passes,
        threads_per_pass_s={name: taken_s / passes for name, taken_s in threads_s.items()},
        beside_per_pass_s=(after.beside_s - before.beside_s) / passes,
        callers_per_pass_s=(after.callers_s - before.callers_s) / passes,
        others_cores=(after.others_s - before.others_s) / window_s,
    )


async def _sleep(seconds: float, callers: Sequence["asyncio.Task[None]"]) -> None:
    """Waits, but no longer than until a caller fails."""
    await asyncio.wait(callers, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)


class Grpc:
    """CancelIdPass over four connections.

    Args:
        token_of: gives the bearer token with which a pass is cancelled, if there are callers.
    """

    passes_per_call = 1
    _method = "CancelIdPass"

    def __init__(self, token_of: Callable[[str], str] | None = None) -> None:
        self._token_of = token_of

    async def open(self, address: str) -> None:
        # Without pools of their own all channels would share one connection.
        options = [("grpc.use_local_subchannel_pool", 1)]
        self._channels = [grpc.aio.insecure_channel(address, options) for _ in range(CHANNELS)]
        await asyncio.gather(*(channel.channel_ready() for channel in self._channels))
        method = SERVICE + self._method
        self._stubs: list[Any] = [channel.unary_unary(method) for channel in self._channels]

    async def call(self, caller: int, ids: list[str]) -> None:
        await self._send(caller, ids, _request(ids[0]).SerializeToString())

    async def _send(self, caller: int, ids: list[str], request: bytes) -> bytes:
        metadata = None
        if self._token_of is not None:
            metadata = (("authorization", f"Bearer {self._token_of(ids[0])}"),)
        answer: bytes = await self._stubs[caller % CHANNELS](request, metadata=metadata)
        return answer

    async def close(self) -> None:
        for channel in self._channels:
            await channel.close()


class GrpcBatch(Grpc):
    """BatchCancelIdPasses of so many."""

    _method = "BatchCancelIdPasses"

    def __init__(self, passes_per_call: int, token_of: Callable[[str], str] | None = None) -> None:
        super().__init__(token_of)
        self.passes_per_call = passes_per_call

    async def call(self, caller: int, ids: list[str]) -> None:
        request = service_pb.BatchCancelRequest(requests=map(_request, ids))
        answer = await self._send(caller, ids, request.SerializeToString())
        response = service_pb.BatchCancelResponse.FromString(answer)
        if response.cancelled_count != len(ids):
            raise RuntimeError(f"{response.cancelled_count} of {len(ids)} passes were cancelled")


def _request(id_: str) -> service_pb.CancelRequest:
    return service_pb.CancelRequest(
        id=id_, request_id=str(uuid_utils.uuid7()), reason=pb.CANCEL_REASON_ABANDONED
    )


class Http:
    """POST /idpass/cancel over a kept-alive connection for each caller.

    Bare asyncio protocols: a full HTTP client in Python takes more time for a call than the
    server does, and would be what is measured.
    """

    passes_per_call = 1

    async def open(self, address: str) -> None:
        self._host, _, port = address.rpartition(":")
        self._port = int(port)
        self._connections: dict[int, _HttpConnection] = {}

    async def call(self, caller: int, ids: list[str]) -> None:
        connection = self._connections.get(caller)
        if connection is None:
            loop = asyncio.get_running_loop()
            _, connection = await loop.create_connection(_HttpConnection, self._host, self._port)
            self._connections[caller] = connection
        body = json.dumps(
            {"id": ids[0], "request_id": str(uuid_utils.uuid7()), "reason": "abandoned"}
        ).encode()
        await connection.post(body)

    async def close(self) -> None:
        for connection in self._connections.values():
            connection.close()


class _HttpConnection(asyncio.Protocol):
    _HEAD: Final = (
        b"POST /idpass/cancel HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n\r\n"
    )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        self._received = b""
        self._answer: asyncio.Future[None] | None = None

    def post(self, body: bytes) -> "asyncio.Future[None]":
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(self._HEAD % len(body) + body)
        return self._answer

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end or self._answer is None:
            return
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(body) < length:
            return
        self._received = b""
        if head.startswith(b"HTTP/1.1 200 "):
            self._answer.set_result(None)
        else:
            self._answer.set_exception(RuntimeError(f"{head!r} {body!r}"))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionResetError("the server hung up"))

    def close(self) -> None:
        self._transport.close()


async def serving(address: str) -> None:
    """Waits for grpc.health.v1 to answer that the server serves."""
    from grpc_health.v1 import health_pb2, health_pb2_grpc  # noqa: PLC0415 untyped, used here only

    async with grpc.aio.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        answer = await stub.Check(health_pb2.HealthCheckRequest(), wait_for_ready=True, timeout=30)
        if answer.status != health_pb2.HealthCheckResponse.SERVING:
            raise RuntimeError(f"the server at {address} is not serving")
