"""Time's own command: passes past their expire_time become expired.

A pass that is touched expires in the transaction that touches it; the sweeper reaches those
that nobody touches, and makes sure that a list or a count never tells of an overdue pass.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

import structlog

from idpass_server.clock import Clock
from idpass_server.engine import Engine
from idpass_server.records import Expire, new_uuid
from idpass_server.refusals import Refusal
from idpass_server.store import Store

INTERVAL_S: Final = 1.0
CHUNK_PASSES: Final = 200

log = structlog.get_logger()


class Sweeper:
    """Args: read: runs one of the store's reading methods off the event loop."""

    def __init__(
        self,
        engine: Engine,
        store: Store,
        clock: Clock,
        read: Callable[..., Awaitable[Any]],
    ) -> None:
        self._engine = engine
        self._store = store
        self._clock = clock
        self._read = read

    async def sweep(self, account: str | None = None) -> None:
        """Expires every overdue pass, of one account or of all.

        Raises:
            Refusal: the store cannot take it now.
        """
        while True:
            late = await self._read(self._store.due, self._clock.now_us(), CHUNK_PASSES, account)
            if late:
                reference = new_uuid()
                commands = [Expire(p.account, reference, p.id) for p in late]
                for outcome in await self._engine.submit(commands):
                    if isinstance(outcome, Refusal):
                        raise outcome
            if len(late) < CHUNK_PASSES:
                return

    async def run(self) -> None:
        """Sweeps for ever."""
        while True:
            try:
                if await self._read(self._store.claim_sweep, self._clock.now_us()):
                    await self.sweep()
            except Refusal as refusal:
                log.warning("sweep_postponed", error=str(refusal))
            except Exception:
                log.exception("sweep_failed")
            await asyncio.sleep(INTERVAL_S)
