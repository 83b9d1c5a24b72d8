"""Erases what passes say of their applicants once they have ended long ago: `--erase-after`.

It reads all accounts from end to end, a page at each step, with no index and no record of its own:
a restart begins again, and what is erased already is not found again. Each step erases a few passes
through the engine, as any other change, so that calls hardly notice it. Of several processes the
one that sweeps does it.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Final

import structlog

from idpass_server.engine.clock import SECOND_US, Clock
from idpass_server.engine.reads import Reads
from idpass_server.engine.writes import Engine
from idpass_server.ids import new_uuid
from idpass_server.rules.commands import SWEEPER, Erase
from idpass_server.rules.erasure import count_erased
from idpass_server.rules.refusals import Refusal
from idpass_server.store import Store
from idpass_server.store.retention import Wanted

STEP_S: Final = 1.0
"""Pause between steps, seconds."""
STEP_PASSES: Final = 50
"""Largest number of passes that a step erases."""
REST_S: Final = 600.0
"""Pause after all accounts have been looked through, seconds."""

log = structlog.get_logger()


class Eraser:
    """The task that erases.

    Args:
        store: where passes are found.
        reads: has the threads for it.
        engine: commits the erasures.
        clock: decides what ended long ago.
        age_s: how long ago, seconds.
    """

    def __init__(
        self, store: Store, reads: Reads, engine: Engine, clock: Clock, *, age_s: int
    ) -> None:
        self._store = store
        self._reads = reads
        self._engine = engine
        self._clock = clock
        self._age_us = age_s * SECOND_US

    async def run(self) -> None:
        """Looks through all accounts again and again until cancelled."""
        while True:
            erased = 0
            try:
                async for count in self._round():
                    erased += count
            except Refusal as refusal:
                log.warning("erasure_postponed", error=str(refusal))
            except Exception:
                log.exception("erasure_failed")
            if erased:
                log.info("passes_erased", count=erased)
            await asyncio.sleep(REST_S)

    async def _round(self) -> AsyncIterator[int]:
        """Takes the steps of one round. Yields how many passes each has erased."""
        for account in await self._reads.run(self._store.account_names):
            after_id: str | None = None
            while True:
                if not await self._reads.claim_sweep():
                    await asyncio.sleep(STEP_S)
                    continue
                # What is due, so that a clock that has jumped erases nothing.
                wanted = Wanted(account, self._clock.now().due_us - self._age_us, personal=True)
                ids, after_id = await self._reads.run(
                    self._store.find_passes, wanted, after_id, STEP_PASSES
                )
                yield await self._erase(account, ids)
                if ids or after_id is not None:
                    await asyncio.sleep(STEP_S)
                if after_id is None:
                    break

    async def _erase(self, account: str, ids: list[str]) -> int:
        if not ids:
            return 0
        reference = new_uuid()
        commands = [Erase(account, reference, pass_id, SWEEPER) for pass_id in ids]
        return count_erased(await self._engine.submit(commands))
