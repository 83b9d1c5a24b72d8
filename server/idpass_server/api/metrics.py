"""Metrics of a server, for Prometheus."""

from collections.abc import Callable
from typing import Final

import grpc
from prometheus_client import CollectorRegistry, Counter, Gauge

PREFIX: Final = "idpass"


class Metrics:
    """The metrics of one server.

    Attributes:
        registry: all of them.
        late_results: counts results that were refused because their pass had been cancelled.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._calls = Counter(
            f"{PREFIX}_calls",
            "Calls answered, by method and status code",
            ["method", "code"],
            registry=self.registry,
        )
        self._calls_by_key: dict[tuple[str, grpc.StatusCode], Counter] = {}
        self.late_results = Counter(
            f"{PREFIX}_late_results",
            "Results that came after their pass was cancelled, and were refused",
            registry=self.registry,
        )

    def call(self, method: str, code: grpc.StatusCode) -> None:
        """Counts a call that has ended."""
        key = (method, code)
        counter = self._calls_by_key.get(key)
        if counter is None:
            counter = self._calls_by_key[key] = self._calls.labels(method, code.name)
        counter.inc()

    def gauge(self, name: str, help_text: str, value: Callable[[], int]) -> None:
        """Adds a gauge whose value is read at each scrape.

        Args:
            name: without the prefix.
            help_text: for people.
            value: returns the current value, on any thread.
        """
        Gauge(f"{PREFIX}_{name}", help_text, registry=self.registry).set_function(value)
