"""Calls at a steady rate, whatever becomes of the earlier ones, and without retries."""

import asyncio
import time
from typing import Any, NamedTuple

import grpc

from idpass.v1.id_pass_service_pb2 import CancelRequest, RegisterRequest
from idpass.v1.id_pass_service_pb2_grpc import IdPassServiceStub
from kit.support import Process, set_slots

OPTIONS = [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 100)]


class Ended(NamedTuple):
    sent_s: float
    id_pass: str
    error: str | None
    known: bool
    """Whether a caller can tell from the error that nothing was changed."""


async def cancel(stub: Any, pass_id: str) -> Ended:
    sent_s = time.monotonic()
    try:
        await stub.CancelIdPass(CancelRequest(id=pass_id), timeout=10)
    except grpc.aio.AioRpcError as error:
        details = error.details() or ""
        text = details.split(";")[0]
        known = "nothing was changed" in details or "failed to connect" in details
        return Ended(sent_s, pass_id, f"{error.code().name}: {text}", known)
    return Ended(sent_s, pass_id, None, known=True)


async def open_loop(address: str, rate: float, ids: list[str], over: asyncio.Event) -> list[Ended]:
    channels = [grpc.aio.insecure_channel(address, OPTIONS) for _ in range(4)]
    stubs = [IdPassServiceStub(channel) for channel in channels]
    calls = []
    next_s = time.monotonic()
    for number, pass_id in enumerate(ids):
        if over.is_set():
            break
        calls.append(asyncio.create_task(cancel(stubs[number % 4], pass_id)))
        next_s += 1 / rate
        await asyncio.sleep(max(0.0, next_s - time.monotonic()))
    ended = await asyncio.gather(*calls)
    for channel in channels:
        await channel.close()
    return list(ended)


def registered(server: Process, count: int) -> list[str]:
    set_slots(server.url, count + 1_000)
    ids: list[str] = []
    while len(ids) < count:
        futures = [
            server.stub.RegisterIdPass.future(RegisterRequest(), timeout=60) for _ in range(200)
        ]
        ids += [future.result().id_pass.id for future in futures]
    return ids
