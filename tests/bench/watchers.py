"""Streams of WatchIdPasses, held open until this process is ended.

usage: python -m bench.watchers ADDRESS STREAMS
"""

import asyncio
import json
import sys
from typing import Any

import grpc
import uvloop

from bench.load import SERVICE
from bench.serving import until_told_to_stop
from idpass.v1 import id_pass_pb2 as pb
from idpass.v1 import id_pass_service_pb2 as service_pb


async def main(address: str, streams: int) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        get_account: Any = channel.unary_unary(
            SERVICE + "GetAccount", response_deserializer=pb.Account.FromString
        )
        latest = (await get_account(b"")).last_sequence
        request = service_pb.WatchRequest(after_sequence=latest).SerializeToString()
        # Events are received and not decoded: this process is to take little from the others.
        watch: Any = channel.unary_stream(SERVICE + "WatchIdPasses")
        calls: list[Any] = [watch(request) for _ in range(streams)]
        await asyncio.gather(*(call.initial_metadata() for call in calls))
        tasks = [asyncio.ensure_future(_receive(call)) for call in calls]
        sys.stderr.write(json.dumps({"event": "watching", "streams": streams}) + "\n")
        sys.stderr.flush()
        await until_told_to_stop()
        for task in tasks:
            task.cancel()


async def _receive(call: Any) -> None:
    async for _event in call:
        pass


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2])))
