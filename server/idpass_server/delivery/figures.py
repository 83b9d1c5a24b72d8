"""What delivery counts, for Prometheus."""

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge

from idpass_server.rules.webhooks import Attempt

_OUTCOMES: Final = ("delivered", "refused", "unanswered")


class Lag(NamedTuple):
    """How far one endpoint is behind.

    Attributes:
        events: number of events that are not delivered or given up.
        seconds: age of the oldest of them that was read; 0 without one.
        paused: whether the endpoint is paused.
    """

    events: int
    seconds: float
    paused: bool


class Figures:
    """The metrics of one process; those of lag are zero where another process delivers.

    Args:
        registry: all of the server's.
        lags: returns the lag of each endpoint, on any thread.
    """

    def __init__(self, registry: CollectorRegistry, lags: Callable[[], Iterable[Lag]]) -> None:
        attempts = Counter(
            "idpass_webhook_attempts",
            "Requests to webhooks by outcome: delivered (2xx), refused (another code), unanswered",
            ["outcome"],
            registry=registry,
        )
        self._attempts = {outcome: attempts.labels(outcome) for outcome in _OUTCOMES}

        def gauge(name: str, help_text: str, value: Callable[[], float]) -> None:
            Gauge(f"idpass_webhook_{name}", help_text, registry=registry).set_function(value)

        gauge(
            "lag_events_max",
            "Events not delivered yet to the active webhook that has most of them",
            lambda: max((lag.events for lag in lags() if not lag.paused), default=0),
        )
        gauge(
            "lag_seconds_max",
            "Age of the oldest event that an active webhook has yet to take",
            lambda: max((lag.seconds for lag in lags() if not lag.paused), default=0.0),
        )
        gauge("paused", "Webhooks that are paused", lambda: sum(lag.paused for lag in lags()))

    def attempt(self, attempt: Attempt) -> None:
        """Counts an attempt."""
        if attempt.succeeded:
            outcome = "delivered"
        else:
            outcome = "unanswered" if attempt.status_code is None else "refused"
        self._attempts[outcome].inc()
