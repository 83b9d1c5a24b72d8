"""Figures that nobody reports, read every few seconds and shown from memory.

A scrape never waits for the store: while the store does not answer, its figures grow old and, after
STALE_S, are left out, so that nobody takes them for today's.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Final, NamedTuple

import structlog
from prometheus_client import Histogram
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from idpass_server.api.metrics import PREFIX, Metrics
from idpass_server.api.tallies import CALL_SECONDS
from idpass_server.engine.clock import SECOND_US, Clock
from idpass_server.engine.observing import EngineObserver
from idpass_server.engine.reads import Reads
from idpass_server.hosting.reloading import apart
from idpass_server.rules.records import Account
from idpass_server.rules.refusals import Refusal
from idpass_server.store import Store
from idpass_server.store.observing import Disk

INTERVAL_S: Final = 5.0
"""Interval between two readings, seconds."""
STALE_S: Final = 30.0
"""Age from which a figure is left out, seconds."""
MAX_ACCOUNTS: Final = 100
"""Number of accounts whose slots are shown: those that use the largest share of them."""
MAX_OVERDUE: Final = 1_000
"""Number of overdue passes from which they are no longer counted."""
TICK_S: Final = 0.25
"""Interval at which the lag of the event loop is measured, seconds."""

log = structlog.get_logger()


class _Overdue(NamedTuple):
    """Passes in flight that should have expired.

    Attributes:
        passes: number of them, up to MAX_OVERDUE.
        oldest_s: how long ago the oldest of them should have, seconds.
    """

    passes: int
    oldest_s: float


class Figures(Collector):
    """What is read from the store.

    Args:
        store: whose figures they are.
        reads: read it.
        clock: decides what is overdue.
        metrics: to which they belong.
        observer: is told of the accounts' currencies.
    """

    def __init__(
        self,
        store: Store,
        reads: Reads,
        clock: Clock,
        metrics: Metrics,
        observer: EngineObserver,
    ) -> None:
        self._store = store
        self._observer = observer
        self._reads = reads
        self._clock = clock
        self._disk: tuple[float, Disk] | None = None
        self._overdue: tuple[float, _Overdue] | None = None
        self._accounts: tuple[float, list[Account]] | None = None
        metrics.registry.register(self)
        for name in (*_DISK, *_OVERDUE, *_SLOTS):
            # All processes look at one database.
            metrics.over_workers[name] = "max"

    async def read_disk(self) -> None:
        """Reads, until cancelled, what a database in a file takes."""
        await self._repeat(self._read_disk)

    async def read_store(self) -> None:
        """Reads, until cancelled, what the store holds."""
        await self._repeat(self._read_store)

    async def _repeat(self, read: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await read()
            except (Refusal, OSError):
                pass  # readiness tells of it, and the figures grow old
            except Exception:
                log.exception("figures_failed")
            await asyncio.sleep(INTERVAL_S)

    async def _read_disk(self) -> None:
        disk = await apart(self._store.disk)  # a hung file system must not take a reading thread
        if disk is not None:
            self._disk = (time.monotonic(), disk)

    async def _read_store(self) -> None:
        due_us = self._clock.now().due_us
        due = await self._reads.run(self._store.due, due_us, MAX_OVERDUE)
        expired_us = [each.expire_time_us for each in due if each.end_time_us is None]
        oldest_us = due_us - min(expired_us, default=due_us)
        overdue = _Overdue(len(expired_us), oldest_us / SECOND_US)
        self._overdue = (time.monotonic(), overdue)
        accounts = await self._reads.run(self._store.fullest_accounts, MAX_ACCOUNTS)
        self._accounts = (time.monotonic(), accounts)
        self._observer.currencies({account.currency for account in accounts})

    def collect(self) -> Iterator[Metric]:
        fresh_s = time.monotonic() - STALE_S
        if self._disk is not None and self._disk[0] > fresh_s:
            yield from map(_gauge, _DISK.items(), self._disk[1])
        if self._overdue is not None and self._overdue[0] > fresh_s:
            yield from map(_gauge, _OVERDUE.items(), self._overdue[1])
        if self._accounts is not None and self._accounts[0] > fresh_s:
            for (name, help_text), field in zip(_SLOTS.items(), _SLOT_FIELDS, strict=True):
                family = GaugeMetricFamily(name, help_text, labels=["account"])
                for account in self._accounts[1]:
                    family.add_metric([account.name], getattr(account, field))
                yield family

    def describe(self) -> Iterable[Metric]:
        return ()


_DISK: Final = {
    f"{PREFIX}_sqlite_db_bytes": "Size of the SQLite file",
    f"{PREFIX}_sqlite_wal_bytes": "Size of its WAL, most of which is used again and again",
    f"{PREFIX}_sqlite_disk_free_bytes": "Room that is left on its file system",
}
_OVERDUE: Final = {
    f"{PREFIX}_overdue_passes": f"Passes in flight that should have expired, up to {MAX_OVERDUE:,}",
    f"{PREFIX}_oldest_overdue_seconds": "How long ago the oldest of them should have expired",
}
_SLOTS: Final = {
    f"{PREFIX}_account_slots_in_use": "Passes in flight of an account",
    f"{PREFIX}_account_slot_limit": "Passes that an account may have in flight",
}
_SLOT_FIELDS: Final = ("slots_in_use", "slot_limit")


def _gauge(named: tuple[str, str], value: float) -> Metric:
    return GaugeMetricFamily(*named, value=value)


async def measure_lag(metrics: Metrics) -> None:
    """Measures, until cancelled, how much later than asked for the event loop does things."""
    lag = Histogram(
        f"{PREFIX}_event_loop_lag_seconds",
        f"How late the event loop was, looked at every {TICK_S} s",
        buckets=CALL_SECONDS,
        registry=metrics.registry,
    )
    while True:
        asked_s = time.monotonic()
        await asyncio.sleep(TICK_S)
        lag.observe(max(0.0, time.monotonic() - asked_s - TICK_S))
