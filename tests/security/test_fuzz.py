"""Random and mutated payloads to every method of a real server, far more than one would think of.

None ends as UNKNOWN or INTERNAL, and none that is not valid writes anything. `make test` takes
one seed and 12,000 payloads, `make prove` another and more; `make fuzz` goes on for FUZZ_SECONDS.
A failure says the seed.
"""

import asyncio
import os
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
import uvloop

from idpass.v1 import id_pass_service_pb2 as service_pb
from kit import fuzzing
from kit.hooked import key_file
from kit.proving import MINUTES, times
from kit.support import problems, process, report, set_slots

PAYLOADS: Final = times(every_day=12_000, a_minute=40_000)
SECONDS: Final = float(os.environ.get("FUZZ_SECONDS", "0"))
SEED: Final = int(
    os.environ.get("FUZZ_SEED") or (random.getrandbits(32) if SECONDS or MINUTES else 20261125)
)
IN_FLIGHT: Final = 64
CHANNELS: Final = 2
ALLOWED: Final = {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "ABORTED"}


class Fuzz:
    """Sends payloads and keeps what came of them.

    Args:
        ids: of passes that have ended; whatever is asked of them is refused.
    """

    def __init__(self, ids: list[str]) -> None:
        self._payloads = fuzzing.Payloads(SEED, ids)
        self.codes: Counter[tuple[str, str]] = Counter()
        self.registered = 0
        self.sent = 0
        self._end_s = time.monotonic() + SECONDS

    def _go_on(self) -> bool:
        self.sent += 1
        if SECONDS:
            return time.monotonic() < self._end_s
        return self.sent <= PAYLOADS

    async def run(self, address: str) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        channels = [grpc.aio.insecure_channel(address, options) for _ in range(CHANNELS)]
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(IN_FLIGHT):
                    group.create_task(self._send(channels[number % CHANNELS]))
        finally:
            for channel in channels:
                await channel.close()

    async def _send(self, channel: grpc.aio.Channel) -> None:
        calls: dict[str, Any] = {
            method.name: (channel.unary_stream if method.server_streaming else channel.unary_unary)(
                f"/{method.containing_service.full_name}/{method.name}"
            )
            for method in fuzzing.METHODS.values()
        }
        while self._go_on():
            method, body = self._payloads.next()
            code = await self._code(method, calls[method], body)
            self.codes[method, code] += 1
            assert code in ALLOWED, f"{method} answered {code} to {body[:300]!r}, seed {SEED}"

    async def _code(self, name: str, method: Any, body: bytes) -> str:
        """How a call ends; a stream that is let in ends here, with OK."""
        call = method(body)
        try:
            if isinstance(call, grpc.aio.UnaryStreamCall):
                # A stream is let in when its initial metadata come, and else refused.
                if await call.initial_metadata():
                    call.cancel()
                    return "OK"
                await call.read()
            else:
                answer = await call
                if name == "RegisterIdPass":
                    self.registered += not service_pb.RegisterResponse.FromString(answer).replayed
        except grpc.aio.AioRpcError as error:
            return error.code().name
        return "OK"


@pytest.mark.scaled
def test_no_payload_ends_in_a_fault_or_writes_what_is_not_valid(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    db = tmp_path / "idpass.db"
    with process(db, "--webhook-key", str(key_file(tmp_path))) as server:
        set_slots(db, 2**31 - 1)
        ids = [server.pass_in(status) for status in ("cancelled", "complete", "failed")]
        before = server.account()
        fuzz = Fuzz(ids)
        start_s = time.monotonic()
        uvloop.run(fuzz.run(server.address))
        took_s = time.monotonic() - start_s
        after = server.account()
        assert server.process.poll() is None
        assert {line.get("level") for line in server.log} == {"info"}
    # A pass registered is the only thing that any of them may have written.
    assert after.last_sequence - before.last_sequence == fuzz.registered
    assert after.slots_in_use - before.slots_in_use == fuzz.registered
    assert problems(db) == []
    sent = fuzz.codes.total()
    title = f"Fuzz: {sent:,} payloads in {took_s:.0f} s, seed {SEED}"
    for (method, code), count in sorted(fuzz.codes.items()):
        report(request, title, f"{count:9,} {method} {code}")
    assert sent >= (1_000 if SECONDS else PAYLOADS)
