"""What webhooks cost calls, and how fast they are: endpoints made through the API, one receiver.

A receiver in a process of its own counts what comes, and answers with what it counted.
usage: python -m bench.hooks
"""

import asyncio
import json
import re
import time
from typing import Any, Final

import grpc
import httptools
import uvloop

from bench.load import SERVICE
from bench.serving import say_serving, until_told_to_stop
from idpass.v1 import id_pass_service_pb2 as service_pb
from idpass.v1 import webhook_service_pb2 as webhook_pb
from idpass.v1.webhook_service_pb2_grpc import WebhookServiceStub

ENDPOINTS: Final = 10
SAMPLES: Final = 50


class _Receiver(asyncio.Protocol):
    """Answers each POST with 200; GET /seen tells how many came and when the newest did."""

    seen = 0
    newest_s = 0.0

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        if self._parser.get_method() == b"GET":
            told = json.dumps({"seen": _Receiver.seen, "newest_s": _Receiver.newest_s}).encode()
        else:
            _Receiver.seen += 1
            _Receiver.newest_s = time.time()
            told = b"ok"
        head = f"HTTP/1.1 200 OK\r\ncontent-length: {len(told)}\r\n\r\n"
        self._transport.write(head.encode() + told)


async def receive() -> None:
    """The receiver's process."""
    server = await asyncio.get_running_loop().create_server(_Receiver, "127.0.0.1", 0)
    say_serving(server.sockets[0].getsockname()[1])
    await until_told_to_stop()


async def seen(receiver: str) -> tuple[int, float]:
    """How many requests have come, and when the newest did, seconds since the epoch."""
    host, _, port = receiver.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /seen HTTP/1.1\r\nhost: x\r\n\r\n")
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head)
    assert length
    told = json.loads(await reader.readexactly(int(length[1])))
    writer.close()
    return told["seen"], told["newest_s"]


async def make(address: str, receiver: str, count: int, after_sequence: int | None = None) -> None:
    """Creates endpoints."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = WebhookServiceStub(channel)
        for _ in range(count):
            request = webhook_pb.CreateWebhookRequest(url=f"http://{receiver}/")
            if after_sequence is not None:
                request.after_sequence = after_sequence
            await stub.CreateWebhook(request)


async def delivered_per_s(address: str, receiver: str, events: int) -> float:
    """Deliveries a second to one new endpoint that is far behind."""
    before, _ = await seen(receiver)
    began_s = time.perf_counter()
    await make(address, receiver, 1, 0)
    while True:
        came = (await seen(receiver))[0] - before
        if came >= events:
            return came / (time.perf_counter() - began_s)
        await asyncio.sleep(0.05)


async def latencies_s(address: str, receiver: str, pass_ids: list[str]) -> list[float]:
    """From just before a cancellation is asked for to its POST, one at a time."""
    taken_s = []
    async with grpc.aio.insecure_channel(address) as channel:
        cancel: Any = channel.unary_unary(SERVICE + "CancelIdPass")
        for pass_id in pass_ids:
            before, _ = await seen(receiver)
            began_s = time.time()
            await cancel(service_pb.CancelRequest(id=pass_id).SerializeToString())
            while True:
                count, newest_s = await seen(receiver)
                if count > before:
                    break
                await asyncio.sleep(0.002)
            taken_s.append(newest_s - began_s)
    return taken_s


if __name__ == "__main__":
    uvloop.run(receive())
