"""Metrics of a server, for Prometheus: those of its calls, and the registry for all others.

What `server/docs/monitoring.md` lists is kept in four places: calls here, what engine and store do
in `hosting.observers`, what is read from the store now and then in `hosting.figures`, and the
workers' together in `processes.gathering`.
"""

import platform
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Literal

import grpc
from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

import idpass
from idpass_server.api.call_log import CallRecord
from idpass_server.api.tallies import Counts, Histograms
from idpass_server.api.wire import ID_PASSES, WEBHOOKS

PREFIX: Final = "idpass"
UNFOLDED: Final = 256
"""Number of ended calls that are counted together, if no scrape comes first."""
MAX_CALLERS: Final = 1_000
"""Number of callers whose refusals are told apart; those of further ones count as `other`."""
OTHER: Final = "other"
"""Value of a label for whatever has no value of its own."""

OverWorkers = Literal["sum", "min", "max"]
"""How the gauges of several workers become one."""


class Metrics(Collector):
    """The metrics of one server; for the event loop, but for `gauge` values.

    Attributes:
        registry: all of them.
        over_workers: how each gauge of several workers becomes one, by name.
        late_results: counts results that were refused because their pass had been cancelled.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.over_workers: dict[str, OverWorkers] = {}
        self._ended: list[CallRecord] = []
        self._names = {
            method.name: f"{service.full_name}/{method.name}"
            for service in (ID_PASSES, WEBHOOKS)
            for method in service.methods
        }
        self._started = Counts(
            "grpc_server_call_started",
            "Calls that have come in",
            ["grpc_method"],
            [(name,) for name in (*self._names.values(), OTHER)],
        )
        self._durations = Histograms(
            "grpc_server_call_duration_seconds",
            "Time from a call's arrival to its end",
            ["grpc_method", "grpc_status"],
        )
        self._refusals = Counts(
            f"{PREFIX}_refusals",
            "Calls, and items of batches, that were refused",
            ["method", "reason"],
        )
        self._caller_refusals = Counts(
            f"{PREFIX}_caller_refusals",
            "The same, by caller of the callers file",
            ["caller", "reason"],
        )
        self._callers: set[str] = set()
        self._unauthenticated = Counts(
            f"{PREFIX}_unauthenticated",
            "Calls refused for their credentials",
            ["kind"],
            [("missing",), ("token",), ("certificate",)],
        )
        self._requests = Histograms(
            "http_server_request_duration_seconds",
            "Time from an HTTP request to the end of its answer",
            ["http_route", "http_response_status_code"],
        )
        self.registry.register(self)
        self.late_results = Counter(
            f"{PREFIX}_late_results",
            "Results that came after their pass was cancelled, and were refused",
            registry=self.registry,
        )
        build = Gauge(
            f"{PREFIX}_build_info",
            "1, with what runs as labels",
            ["version", "grpc", "python"],
            registry=self.registry,
        )
        build.labels(idpass.__version__, grpc.__version__, platform.python_version()).set(1)
        self.over_workers[f"{PREFIX}_build_info"] = "max"
        ProcessCollector(registry=self.registry)

    def started(self, method: str) -> None:
        """Counts a call that has come in. Args: method: of the service, or anything else."""
        self._started.add((self._names.get(method, OTHER),))

    def ended(self, record: CallRecord) -> None:
        """Counts a call that has ended, by the next scrape at the latest."""
        self._ended.append(record)
        if len(self._ended) >= UNFOLDED:
            self._fold()

    def refused(self, method: str, caller: str | None, reason: str) -> None:
        """Counts a refusal.

        Args:
            method: of the service.
            caller: as the callers file names it; None for a stranger.
            reason: name of an ErrorReason.
        """
        self._refusals.add((method, reason))
        if caller is None:
            return
        if caller not in self._callers:
            if len(self._callers) >= MAX_CALLERS:
                caller = OTHER
            self._callers.add(caller)
        self._caller_refusals.add((caller, reason))

    def requested(self, route: str, status: str, seconds: float) -> None:
        """Counts an HTTP request that has ended.

        Args:
            route: its path, if there is such a one here.
            status: of the answer; `none` if there was none.
            seconds: until its end.
        """
        self._requests.of((route, status)).observe(seconds)

    def gauge(
        self,
        name: str,
        help_text: str,
        value: Callable[[], float],
        *,
        over_workers: OverWorkers = "sum",
    ) -> None:
        """Adds a gauge whose value is read at each scrape.

        Args:
            name: without the prefix.
            help_text: for people.
            value: returns the current value, from memory.
            over_workers: how those of several workers become one.
        """
        name = f"{PREFIX}_{name}"
        self.over_workers[name] = over_workers
        Gauge(name, help_text, registry=self.registry).set_function(value)

    def collect(self) -> Iterator[Metric]:
        self._fold()
        yield from self._started.collect()
        yield from self._durations.collect()
        yield from self._refusals.collect()
        yield from self._caller_refusals.collect()
        yield from self._unauthenticated.collect()
        yield from self._requests.collect()

    def describe(self) -> Iterable[Metric]:
        return ()

    def _fold(self) -> None:
        ended, self._ended = self._ended, []
        for record in ended:
            key = (self._names[record.method], record.code.name)
            self._durations.of(key).observe(record.ended_s - record.started_s)
            if record.reason is not None:
                self.refused(record.method, record.caller_name, record.reason)
            if record.unauthenticated is not None:
                self._unauthenticated.add((record.unauthenticated,))
