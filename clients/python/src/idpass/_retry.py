"""Which failed attempts are retried, when, and what is raised in the end. Does no I/O but logging.

gRPC's own retryPolicy is not used: it stops after five attempts however much time is left, and
it shows only the last attempt's error. A change whose first attempt got lost and whose second
was refused as Overloaded ("nothing was changed") may well have been made, and only code that saw
both can say so.

Three outcomes are retried. UNAVAILABLE: no server could answer; backoff is exponential. A bare
CANCELLED, one without a reason of ours, is treated the same: gRPC sends it before the service sees
the call, when a server is overloaded, and when a server hangs up; but gRPC also uses it for calls
that this side cancels, and those are never retried. OVERLOADED, told by its reason because other
limits share its code: the server refuses and says when to come back.

A change is never sent with wait_for_ready either: when its deadline passes, such a call does not
tell whether it was sent. A call that has lost its connection waits for a new one before it is sent.
"""

import random
from typing import Any, NoReturn

import grpc

from idpass import _failure, _log
from idpass._calls import Call
from idpass._failure import Explain
from idpass._policy import RetryPolicy
from idpass.errors import (
    BadAnswer,
    DailyQuotaExhausted,
    DeadlineExceeded,
    IdPassError,
    Internal,
    NoFreeSlot,
    OutcomeUnknown,
    Overloaded,
    Unavailable,
)

# Refusals decided after the service has looked up the request_id: it found no receipt, so no
# earlier attempt made the change.
_SETTLING_CODES = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.ABORTED,
    }
)
# Codes of an attempt whose request or answer got lost.
_LOST_CODES = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
    }
)
# Errors that say that no answer was had, and not what the answer was.
_UNANSWERED = (OutcomeUnknown, Unavailable, DeadlineExceeded, Overloaded, BadAnswer, Internal)


class Throttle:
    """Stops retries while most attempts fail: gRFC A6, with room for more calls.

    Every failure takes a token, every success gives back a tenth; retries are made while more
    than half of the tokens are left. One broken connection fails every call on it at once, which
    must not use up the budget for a server in trouble: hence a thousand tokens.

    A call that is turned away counts as neither: the server is there and does its work. A caller
    that is often over its rate, or that makes thousands of calls at once, must keep its retries for
    calls that get lost.
    """

    MAX_TOKENS = 1_000.0
    RATIO = 0.1

    def __init__(self) -> None:
        self._tokens = self.MAX_TOKENS

    def succeeded(self) -> None:
        if self._tokens < self.MAX_TOKENS:
            self._tokens = min(self._tokens + self.RATIO, self.MAX_TOKENS)

    def failed(self) -> bool:
        """Whether there may be a retry."""
        self._tokens = max(self._tokens - 1, 0.0)
        return self._tokens > self.MAX_TOKENS / 2


class Backoff:
    """Exponential backoff with jitter: calls that failed together do not come back together."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._next_s = policy.initial_backoff

    def next_s(self) -> float:
        delay_s = self._next_s * random.uniform(0.5, 1.0)  # noqa: S311 spreads, keeps no secret
        self._next_s = min(self._next_s * self._policy.multiplier, self._policy.max_backoff)
        return delay_s


class Attempts:
    """The attempts of one unary call, within one overall deadline.

    Made only after the first attempt has failed, since most succeed.

    Args:
        timeout_s: for all attempts and the pauses between them.
        started_s: monotonic time of the first attempt.
        explain: turns gRPC's words for a failed connection into a message for people.
        patient: whether timeout and number of attempts start over after each delay that an
            overloaded server asks for, however many there are.

    Attributes:
        unconnected: whether the next attempt has to wait for a connection.
    """

    def __init__(
        self,
        call: Call[Any],
        timeout_s: float,
        started_s: float,
        *,
        policy: RetryPolicy,
        throttle: Throttle,
        explain: Explain,
        patient: bool = False,
    ) -> None:
        self._call = call
        self._timeout_s = timeout_s
        self._deadline_s = started_s + timeout_s
        self._max_attempts = policy.max_attempts
        self._throttle = throttle
        self._explain = explain
        self._patient = patient
        self._backoff = Backoff(policy)
        self._maybe_made = False
        self._made = 0
        self._counted = 0
        self._waited_for: IdPassError | None = None
        self.unconnected = False

    def remaining_s(self, now_s: float) -> float:
        return max(self._deadline_s - now_s, 0.0)

    def gave_up(self, *, closed: bool) -> NoReturn:
        """No further attempt can be made.

        Args:
            closed: whether that is because the client was closed, and not for want of a connection.

        Raises:
            IdPassError: that of the last attempt, or OutcomeUnknown.
        """
        assert self._waited_for  # noqa: S101 only such errors lead to another attempt
        error = self._waited_for
        raise self._told(self._unknown(error, closed=closed) if self._maybe_made else error)

    def failed(self, rpc_error: Any, now_s: float, *, closed: bool = False) -> float:
        """Takes note of a failed attempt.

        Args:
            rpc_error: a grpc.RpcError, sync or async.
            now_s: monotonic.
            closed: whether the client has been closed, which cancels its calls.

        Returns:
            the seconds to wait before the next attempt.

        Raises:
            IdPassError: there is no next attempt.
        """
        self._made += 1
        self._counted += 1
        call = self._call
        error, sent = _failure.read(
            rpc_error, call.method, call.request_id, self._explain, closed=closed
        )
        if call.changes and sent and _may_have_been_made(error):
            self._maybe_made = True
        self.unconnected = error.reason is None
        delay_s = self._next_s(error, rpc_error, now_s, closed=closed)
        if delay_s is not None:
            self._waited_for = error
            _log.retried(_log.RETRY, call.method, self._made, error, delay_s)
            return delay_s
        raise self._told(self._last(error, closed=closed)) from rpc_error

    def _next_s(
        self, error: IdPassError, rpc_error: Any, now_s: float, *, closed: bool
    ) -> float | None:
        """Seconds to wait before the next attempt; None if there is none."""
        if isinstance(error, Unavailable):
            may_retry = not closed and (_failure.turned_away(error) or self._throttle.failed())
        elif isinstance(error, Overloaded):
            may_retry = not closed
        else:
            if _settles(error):
                self._throttle.succeeded()
            return None
        if self._max_attempts is not None and self._counted >= self._max_attempts:
            may_retry = False
        delay_s = delay_before_next_s(error, rpc_error, self._backoff)
        if self._patient and may_retry and isinstance(error, Overloaded) and delay_s >= 0:
            self._deadline_s = now_s + delay_s + self._timeout_s
            self._counted = 0
        return delay_s if may_retry and 0 <= delay_s < self._deadline_s - now_s else None

    def _last(self, error: IdPassError, *, closed: bool) -> IdPassError:
        """What is raised after the last attempt, given that one's error."""
        if _settles(error):
            return error
        if self._maybe_made:
            return self._unknown(error, closed=closed)
        if error.code is grpc.StatusCode.DEADLINE_EXCEEDED and self._waited_for:
            return self._waited_for  # says what the time was spent on
        return error

    def _told(self, error: IdPassError) -> IdPassError:
        if isinstance(error, _UNANSWERED):
            _log.gave_up(_log.RETRY, self._call.method, self._made, error)
        return error

    def _unknown(self, error: IdPassError, *, closed: bool) -> OutcomeUnknown:
        again = "Call again"
        if self._call.request_id:
            again += f" with request_id={self._call.request_id!r}"
        last = f"{error.code.name}: {error.message}"
        if self._waited_for and self._waited_for is not error:
            last += f" (before: {self._waited_for.message})"
        when = " before the client was closed" if closed else ""
        return OutcomeUnknown(
            f"{self._call.method} got no answer{when} and may or may not have been carried out. "
            f"{again} to learn which. The last attempt: {last}",
            code=error.code,
            reason=error.reason,
            metadata=error.metadata,
            reference=error.reference,
            request_id=error.request_id,
            retry_after=error.retry_after,
        )


def delay_before_next_s(error: IdPassError, rpc_error: Any, backoff: Backoff) -> float:
    """Seconds to wait before another attempt; negative for no other.

    A delay that the server asks for is kept. After Overloaded a growing backoff comes on top: all
    refused callers were given the same moment, and some would be refused again.
    """
    pushback_s = _failure.pushback_s(rpc_error)
    if not isinstance(error, Overloaded):
        return backoff.next_s() if pushback_s is None else pushback_s
    asked_s = error.retry_after if pushback_s is None else pushback_s
    return -1.0 if asked_s is None or asked_s < 0 else asked_s + backoff.next_s()


def _settles(error: IdPassError) -> bool:
    return isinstance(error, NoFreeSlot | DailyQuotaExhausted) or error.code in _SETTLING_CODES


def _may_have_been_made(error: IdPassError) -> bool:
    if error.reason is None:  # not from the service: from gRPC here, or a proxy on the way
        return error.code in _LOST_CODES
    return error.metadata.get("outcome") == "unknown"
