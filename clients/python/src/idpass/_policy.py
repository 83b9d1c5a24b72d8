"""How often and how patiently what failed is tried again, as callers set it."""

import math
from dataclasses import dataclass, replace


def _seconds(name: str, value: object, *, least: float = 0.0) -> float:
    """Checks a time in seconds; infinite is allowed.

    Raises:
        TypeError: it is not a number.
        ValueError: it is not a number of at least `least`.
    """
    return _number(name, value, least=least, unit=" seconds")


def _number(name: str, value: object, *, least: float, unit: str = "") -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"{name} is {value!r}; give a number{' of' + unit if unit else ''}")
    if math.isnan(value) or value < least:
        raise ValueError(f"{name} is {value!r}; {least:g}{unit} is the least")
    return float(value)


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """How calls that got no answer are retried, and broken streams are opened again.

    Which outcomes are retried is not a setting: only those after which another attempt does no
    harm. Every attempt stays within the call's `timeout`.

    Attributes:
        max_attempts: attempts of one call at most, the first one counted; None for as many as its
            timeout allows, 1 for no retries. A listing or `cancel_many` that waits at the server's
            pace counts anew after each delay that the server asks for.
        initial_backoff: longest pause before the first retry, seconds. The pause is drawn at random
            between half of it and all of it.
        multiplier: what that grows by with each further retry.
        max_backoff: longest pause before any retry, seconds. A delay that the server asks for is
            kept, however long.
        reconnect_for: how long `watch` may be without a stream before that is an error, seconds;
            0 for no reconnects.

    Raises:
        TypeError: a value is not a number.
        ValueError: a number is out of range.
    """

    max_attempts: int | None = None
    initial_backoff: float = 0.1
    multiplier: float = 2.0
    max_backoff: float = 2.0
    reconnect_for: float = 60.0

    def __post_init__(self) -> None:
        if self.max_attempts is not None:
            if not isinstance(self.max_attempts, int) or isinstance(self.max_attempts, bool):
                raise TypeError(f"max_attempts is {self.max_attempts!r}; give a whole number")
            if self.max_attempts < 1:
                raise ValueError(
                    f"max_attempts is {self.max_attempts}; the first attempt counts, so 1 is the "
                    "least, and means no retries"
                )
        _seconds("initial_backoff", self.initial_backoff)
        _seconds("max_backoff", self.max_backoff, least=self.initial_backoff)
        _seconds("reconnect_for", self.reconnect_for)
        _number("multiplier", self.multiplier, least=1.0)

    def with_reconnect_for(self, reconnect_for: float | None) -> "RetryPolicy":
        """The policy with another `reconnect_for`, seconds; itself if that is None."""
        return self if reconnect_for is None else replace(self, reconnect_for=reconnect_for)


DEFAULT = RetryPolicy()


def policy(retry: object) -> RetryPolicy:
    """
    Raises:
        TypeError: it is something else.
    """
    if not isinstance(retry, RetryPolicy):
        raise TypeError(
            f"retry is {retry!r}; give a RetryPolicy, such as RetryPolicy(max_attempts=3)"
        )
    return retry
