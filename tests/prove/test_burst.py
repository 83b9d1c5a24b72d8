"""Promise: the client brings in more calls at once than a server takes, and each is done once.

Means: thousands of registrations begun together by the asynchronous client; the server turns many
away, the client makes them again, and as many passes are there as calls were made.

Blind spots: other clients; callers who go on coming (see test_overload); SQLite only.
"""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from idpass import AsyncIdPassClient, IdPassClient, _retry
from kit.client import ServerProcess

CALLS = 6_000


def test_calls_that_come_all_at_once_are_each_carried_out_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turned_away: Counter[str] = Counter()
    failed = _retry.Attempts.failed

    def counted(self: _retry.Attempts, rpc_error: Any, *args: Any, **options: Any) -> float:
        turned_away[rpc_error.code().name] += 1
        return failed(self, rpc_error, *args, **options)

    monkeypatch.setattr(_retry.Attempts, "failed", counted)

    async def burst() -> int:
        async with AsyncIdPassClient(server.address, timeout=120) as client:
            receipts = await asyncio.gather(*(client.register() for _ in range(CALLS)))
            return len({receipt.id_pass.id for receipt in receipts})

    server = ServerProcess(tmp_path / "idpass.db")
    try:
        server.set_slots(CALLS)
        assert asyncio.run(burst()) == CALLS
        with IdPassClient(server.address) as client:
            assert client.account().slots_in_use == CALLS
    finally:
        server.kill()
    print(f"{CALLS} calls at once; turned away: {dict(turned_away)}")
