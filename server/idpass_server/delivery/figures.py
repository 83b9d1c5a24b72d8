"""What delivery counts, for Prometheus."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from prometheus_client import CollectorRegistry, Counter

from idpass_server.rules.webhooks import Attempt

_OUTCOMES: Final = ("delivered", "refused", "unanswered")
"""2xx; any other status code; no answer at all."""


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

    Attributes:
        lags: of each endpoint, lately; read on any thread.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        attempts = Counter(
            "idpass_webhook_attempts",
            "Requests to webhooks, by outcome",
            ["outcome"],
            registry=registry,
        )
        self._attempts = {outcome: attempts.labels(outcome) for outcome in _OUTCOMES}
        self.lags: Sequence[Lag] = ()

    @property
    def lag_events_max(self) -> int:
        """Number of events that the active endpoint furthest behind has yet to take."""
        return max((lag.events for lag in self.lags if not lag.paused), default=0)

    @property
    def lag_seconds_max(self) -> float:
        """Age of the oldest event that was read and that an active endpoint has yet to take."""
        return max((lag.seconds for lag in self.lags if not lag.paused), default=0.0)

    @property
    def paused(self) -> int:
        """Number of endpoints that are paused."""
        return sum(lag.paused for lag in self.lags)

    def attempt(self, attempt: Attempt) -> None:
        """Counts an attempt."""
        if attempt.succeeded:
            outcome = "delivered"
        else:
            outcome = "unanswered" if attempt.status_code is None else "refused"
        self._attempts[outcome].inc()
