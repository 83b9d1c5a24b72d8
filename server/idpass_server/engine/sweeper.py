"""Time's own task: each second, passes past their expire_time that nobody touches expire."""

import asyncio
from typing import Final

import structlog

from idpass_server.engine.clock import Clock
from idpass_server.engine.readiness import Readiness
from idpass_server.engine.reads import Reads
from idpass_server.rules.refusals import Refusal

INTERVAL_S: Final = 1.0

log = structlog.get_logger()


class Sweeper:
    """
    Args:
        reads: sweeps.
        clock: is looked at before each sweep.
        readiness: is told whether the clock can be trusted.
    """

    def __init__(self, reads: Reads, clock: Clock, readiness: Readiness) -> None:
        self._reads = reads
        self._clock = clock
        self._readiness = readiness

    async def run(self) -> None:
        """Sweeps for ever."""
        while True:
            self._readiness.set("clock", self._clock.problem())
            try:
                if await self._reads.claim_sweep():
                    await self._reads.sweep()
            except Refusal as refusal:
                log.warning("sweep_postponed", error=str(refusal))
            except Exception:
                log.exception("sweep_failed")
            await asyncio.sleep(INTERVAL_S)
