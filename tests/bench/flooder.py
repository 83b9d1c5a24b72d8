"""One caller who keeps 128 calls in flight whatever comes back, and another who makes few.

usage: python -m bench.flooder ADDRESS
"""

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from typing import Any, Final

import grpc
import uvloop

from bench.load import CHANNELS, SERVICE
from bench.serving import until_told_to_stop
from idpass.v1 import id_pass_service_pb2 as service_pb

IN_FLIGHT: Final = 128
QUIET_CALLS_PER_S: Final = 20
QUIET_S: Final = 5.0


def _as(name: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {name}"),)


async def quiet_p99_s(address: str, ids: Sequence[str]) -> float:
    """Reads and cancels passes at a steady pace. Raises if any call fails."""
    taken_s: list[float] = []
    async with grpc.aio.insecure_channel(address) as channel:
        get: Any = channel.unary_unary(SERVICE + "GetIdPass")
        cancel: Any = channel.unary_unary(SERVICE + "CancelIdPass")

        async def both(id_: str) -> None:
            for method, request in (
                (get, service_pb.GetRequest(id=id_)),
                (cancel, service_pb.CancelRequest(id=id_)),
            ):
                start_s = time.perf_counter()
                await method(request.SerializeToString(), metadata=_as("quiet"))
                taken_s.append(time.perf_counter() - start_s)

        await channel.channel_ready()
        async with asyncio.TaskGroup() as group:
            for id_ in ids:
                group.create_task(both(id_))
                await asyncio.sleep(1 / QUIET_CALLS_PER_S)
    return sorted(taken_s)[len(taken_s) * 99 // 100]


async def main(address: str) -> None:
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(address, options) for _ in range(CHANNELS)]
    await asyncio.gather(*(channel.channel_ready() for channel in channels))

    async def again_and_again(register: Any) -> None:
        while True:
            try:
                await register(b"", metadata=_as("flood"))
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                    raise

    tasks = [
        asyncio.ensure_future(
            again_and_again(channels[number % CHANNELS].unary_unary(SERVICE + "RegisterIdPass"))
        )
        for number in range(IN_FLIGHT)
    ]
    sys.stderr.write(json.dumps({"event": "flooding", "listen": address}) + "\n")
    sys.stderr.flush()
    await until_told_to_stop()
    for task in tasks:
        task.cancel()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))
