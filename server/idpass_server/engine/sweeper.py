"""Expires overdue passes that nobody touches, and watches the clock by which they do."""

import asyncio
from typing import Final

import structlog

from idpass_server.engine.clock import Clock
from idpass_server.engine.readiness import Readiness
from idpass_server.engine.reads import Reads
from idpass_server.rules.refusals import Refusal

INTERVAL_S: Final = 1.0
"""Pause between sweeps, seconds."""

log = structlog.get_logger()


class Sweeper:
    """The task that sweeps.

    Args:
        reads: does the sweeping.
        clock: checked before each sweep.
        readiness: gets a warning while the clock cannot be trusted; changes can be stored then.
    """

    def __init__(self, reads: Reads, clock: Clock, readiness: Readiness) -> None:
        self._reads = reads
        self._clock = clock
        self._readiness = readiness

    async def run(self) -> None:
        """Sweeps every INTERVAL_S until cancelled."""
        while True:
            self._readiness.warn("clock", self._clock.problem())
            try:
                if await self._reads.claim_sweep():
                    await self._reads.sweep()
            except Refusal as refusal:
                log.warning("sweep_postponed", error=str(refusal))
            except Exception:
                log.exception("sweep_failed")
            await asyncio.sleep(INTERVAL_S)
