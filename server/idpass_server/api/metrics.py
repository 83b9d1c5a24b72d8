"""What a server counts, for Prometheus."""

from collections.abc import Callable
from typing import Final

import grpc
from prometheus_client import CollectorRegistry, Counter, Gauge

PREFIX: Final = "idpass"


class Metrics:
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
        key = (method, code)
        counter = self._calls_by_key.get(key)
        if counter is None:
            counter = self._calls_by_key[key] = self._calls.labels(method, code.name)
        counter.inc()

    def gauge(self, name: str, help_text: str, value: Callable[[], int]) -> None:
        """Adds a figure that is read when it is asked for."""
        Gauge(f"{PREFIX}_{name}", help_text, registry=self.registry).set_function(value)
