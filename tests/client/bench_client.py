"""What the client costs over the bare stub, and how fast many passes are cancelled.

    python tests/client/bench_client.py

CPU of this process only, the service being another one; the two ways alternate, and the median of
the rounds is told. Logging is set up and has nothing to tell, and there are no interceptors.
"""

import asyncio
import logging
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from itertools import islice
from pathlib import Path

import grpc

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from bench.seed import seed  # noqa: E402 found by the line above
from idpass import AsyncIdPassClient, CancelReason, IdPassClient  # noqa: E402 likewise
from idpass._arguments import new_request_id  # noqa: E402 likewise
from idpass.v1 import id_pass_pb2 as pb  # noqa: E402 likewise
from idpass.v1 import id_pass_service_pb2 as service_pb  # noqa: E402 likewise
from idpass.v1.id_pass_service_pb2_grpc import IdPassServiceStub  # noqa: E402 likewise
from kit.client import ServerProcess  # noqa: E402 likewise

CALLS = 500
ROUNDS = 9
MANY = 100_000
MAX_OVERHEAD = 0.12
MIN_PASSES_PER_S = 8_000
MAX_GROWTH_MIB = 16


def raw_request(pass_id: str) -> service_pb.CancelRequest:
    """What a careful caller of the bare stub sends as well."""
    return service_pb.CancelRequest(
        id=pass_id, request_id=new_request_id(), reason=pb.CANCEL_REASON_ABANDONED
    )


def cpu_us_per_call(do: Callable[[], object]) -> float:
    before_s = time.process_time()
    do()
    return (time.process_time() - before_s) / CALLS * 1e6


def compare(name: str, raw: Callable[[], object], client: Callable[[], object]) -> bool:
    raw_us, client_us = [], []
    for _ in range(ROUNDS):
        raw_us.append(cpu_us_per_call(raw))
        client_us.append(cpu_us_per_call(client))
    before, after = statistics.median(raw_us), statistics.median(client_us)
    overhead = after / before - 1
    print(f"{name:6} stub {before:6.0f} µs, client {after:6.0f} µs of CPU a call: {overhead:+.1%}")
    return overhead <= MAX_OVERHEAD


def rss_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def cancel_many(client: IdPassClient, ids: list[str]) -> bool:
    started_s = time.monotonic()
    peak_early = peak = 0.0
    done = 0
    for result in client.cancel_many(iter(ids), timeout=60):
        assert result.receipt, result.error
        done += 1
        if done % 1_000 == 0:
            peak = max(peak, rss_mib())
            if done == len(ids) // 10:
                peak_early = peak
    passes_per_s = done / (time.monotonic() - started_s)
    growth_mib = peak - peak_early
    print(
        f"many   {passes_per_s:,.0f} passes/s, memory grew {growth_mib:.1f} MiB over the last 90 %"
    )
    return passes_per_s >= MIN_PASSES_PER_S and growth_mib <= MAX_GROWTH_MIB


def main() -> int:
    logging.basicConfig(level=logging.INFO)
    with tempfile.TemporaryDirectory(prefix="idpass-bench-") as folder:
        db = Path(folder, "idpass.db")
        seeded = seed(db, in_flight=MANY + 4 * ROUNDS * CALLS)
        ids = iter(seeded.in_flight)
        server = ServerProcess(db)
        try:
            good = [sync(server.address, lambda: list(islice(ids, CALLS)))]
            good.append(asynchronous(server.address, lambda: list(islice(ids, CALLS))))
            with IdPassClient(server.address) as client:
                good.append(cancel_many(client, list(ids)))
        finally:
            server.kill()
    return 0 if all(good) else 1


def sync(address: str, more: Callable[[], list[str]]) -> bool:
    with grpc.insecure_channel(address) as channel, IdPassClient(address) as client:
        stub = IdPassServiceStub(channel)

        def raw() -> None:
            for pass_id in more():
                stub.CancelIdPass(raw_request(pass_id), timeout=5)

        def through_client() -> None:
            for pass_id in more():
                client.cancel(pass_id, reason=CancelReason.ABANDONED)

        return compare("sync", raw, through_client)


def asynchronous(address: str, more: Callable[[], list[str]]) -> bool:
    with asyncio.Runner() as runner:

        async def connect() -> tuple[grpc.aio.Channel, AsyncIdPassClient]:
            return grpc.aio.insecure_channel(address), AsyncIdPassClient(address)

        channel, client = runner.run(connect())
        stub = IdPassServiceStub(channel)

        async def each(call: Callable[[str], Awaitable[object]]) -> None:
            for pass_id in more():
                await call(pass_id)

        def raw() -> None:
            runner.run(each(lambda id_: stub.CancelIdPass(raw_request(id_), timeout=5)))

        def through_client() -> None:
            runner.run(each(lambda id_: client.cancel(id_, reason=CancelReason.ABANDONED)))

        good = compare("async", raw, through_client)
        runner.run(client.close())
        runner.run(channel.close())
        return good


if __name__ == "__main__":
    sys.exit(main())
