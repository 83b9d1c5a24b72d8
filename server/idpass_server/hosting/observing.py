"""What engine, store and files tell of themselves, as metrics.

Those of the hot path are tallies, to which only the writer adds.
"""

from collections.abc import Collection, Iterator, Sequence

from prometheus_client import Counter, Histogram
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from idpass_server import logs
from idpass_server.api.metrics import PREFIX, Metrics
from idpass_server.api.tallies import CALL_SECONDS, SIZES, STEP_SECONDS, Counts, Histograms
from idpass_server.config import Settings
from idpass_server.engine import observing as engine
from idpass_server.engine.observing import EngineObserver
from idpass_server.hosting.reloading import Reloading
from idpass_server.hosting.tls import Certificates
from idpass_server.rules.records import Event, Status
from idpass_server.store import observing as store
from idpass_server.store.observing import StoreObserver
from idpass_server.urls import sqlite_path


def of(settings: Settings, metrics: Metrics) -> tuple[StoreObserver, EngineObserver]:
    """Observers of store and engine, which keep nothing where nobody asks for metrics."""
    if settings.metrics is None:
        return store.NOBODY, engine.NOBODY
    sqlite = sqlite_path(settings.db) is not None
    return StoreMetrics(metrics, sqlite=sqlite), EngineMetrics(metrics)


class EngineMetrics(EngineObserver):
    """Args: metrics: to which they belong."""

    def __init__(self, metrics: Metrics) -> None:
        queue = Histograms(
            f"{PREFIX}_engine_queue_seconds",
            "Longest wait of a call in each batch, until the batch was begun",
        )
        size = Histograms(
            f"{PREFIX}_engine_batch_commands", "Changes asked for in each batch", bounds=SIZES
        )
        self._transitions = Counts(
            f"{PREFIX}_transitions",
            "Committed changes of status, registrations among them",
            ["to_status"],
            [(status,) for status in Status],
        )
        self._charged = Counts(
            f"{PREFIX}_charged_micros", "Committed fees, millionths of the unit", ["currency"]
        )
        self._refunded = Counts(
            f"{PREFIX}_refunded_micros", "Committed refunds, millionths of the unit", ["currency"]
        )
        for each in (queue, size, self._transitions, self._charged, self._refunded):
            metrics.registry.register(each)
        self._queue, self._size = queue.of(), size.of()
        self._reads = Histogram(
            f"{PREFIX}_store_read_seconds",
            "Time of a read, with the wait for a reading thread",
            ["what"],
            buckets=CALL_SECONDS,
            registry=metrics.registry,
        )
        self._errors = Counter(
            f"{PREFIX}_store_errors",
            "Batches, checks and reads that the store has failed",
            ["kind"],
            registry=metrics.registry,
        )
        for kind in ("unavailable", "outcome_unknown", "broken", "fault"):
            self._errors.labels(kind)

    def batch(self, waited_s: float, commands: int, events: Sequence[Event]) -> None:
        self._queue.observe(waited_s)
        self._size.observe(commands)
        for event in events:
            if not event.erased:  # which changes no status
                self._transitions.add((event.to_status,))
            if event.charge_micros:
                self._charged.add((event.currency,), event.charge_micros)
            if event.refund_micros:
                self._refunded.add((event.currency,), event.refund_micros)

    def currencies(self, found: Collection[str]) -> None:
        for currency in found:
            self._charged.know((currency,))
            self._refunded.know((currency,))

    def read(self, what: str, seconds: float) -> None:
        self._reads.labels(what).observe(seconds)

    def failed(self, kind: str) -> None:
        self._errors.labels(kind).inc()


class StoreMetrics(StoreObserver):
    """Only what the kind of database has. Args: metrics: to which they belong."""

    def __init__(self, metrics: Metrics, *, sqlite: bool) -> None:
        commit = Histograms(
            f"{PREFIX}_store_commit_seconds",
            "Time of each step of a batch that changed something",
            ["step"],
            bounds=STEP_SECONDS,
        )
        metrics.registry.register(commit)
        self._load, self._decide, self._save, self._commit = (
            commit.of((step,)) for step in store.STEPS
        )
        if sqlite:
            self._checkpoints = Histogram(
                f"{PREFIX}_sqlite_checkpoint_seconds",
                "Time of checkpoints, which fold the WAL into the file",
                buckets=CALL_SECONDS,
                registry=metrics.registry,
            )
            return
        self._reconnects = Counter(
            f"{PREFIX}_postgresql_reconnects",
            "Lost connections that were replaced",
            registry=metrics.registry,
        )
        self._settled = Counter(
            f"{PREFIX}_postgresql_commits_settled",
            "COMMITs without an answer, by what was found out about them",
            ["outcome"],
            registry=metrics.registry,
        )
        for outcome in ("stored", "run_again", "unknown"):
            self._settled.labels(outcome)

    def committed(self, load_s: float, decide_s: float, save_s: float, commit_s: float) -> None:
        self._load.observe(load_s)
        self._decide.observe(decide_s)
        self._save.observe(save_s)
        self._commit.observe(commit_s)

    def checkpointed(self, seconds: float) -> None:
        self._checkpoints.observe(seconds)

    def reconnected(self) -> None:
        self._reconnects.inc()

    def settled(self, outcome: str) -> None:
        self._settled.labels(outcome).inc()


def show_files(metrics: Metrics, reloading: Reloading, certificates: Certificates | None) -> None:
    """Shows which files are refused, when the certificate ends, and which log lines were lost.

    Args:
        metrics: where.
        reloading: rereads the files.
        certificates: those in force; None without TLS.
    """
    metrics.registry.register(_Files(reloading))
    metrics.over_workers[_Files.name] = "max"
    if certificates is not None:
        metrics.gauge(
            "tls_certificate_not_after_timestamp_seconds",
            "When the server's certificate in force ends, seconds since the epoch",
            certificates.not_after_s,
            over_workers="min",
        )


class _Files(Collector):
    name = f"{PREFIX}_config_rejected"

    def __init__(self, reloading: Reloading) -> None:
        self._reloading = reloading

    def collect(self) -> Iterator[Metric]:
        help_text = "1 while what was last read from the files was refused, and the former is used"
        family = GaugeMetricFamily(self.name, help_text, labels=["file"])
        for file, rejected in self._reloading.rejected.items():
            family.add_metric([file], rejected)
        yield family
        dropped = CounterMetricFamily(
            f"{PREFIX}_log_lines_dropped", "Lines of the log that could not be written"
        )
        dropped.add_metric([], logs.lines_dropped())
        yield dropped
