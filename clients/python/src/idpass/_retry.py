"""Which failed attempts are retried, when, and what is raised in the end. No I/O in here.

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
from collections.abc import Callable
from typing import Any, NoReturn

import grpc

from idpass import _reach, _status
from idpass._calls import Call
from idpass.errors import (
    DailyQuotaExhausted,
    IdPassError,
    NoFreeSlot,
    OutcomeUnknown,
    Overloaded,
    Unavailable,
)

Explain = Callable[[str], str]

INITIAL_BACKOFF_S = 0.1
MAX_BACKOFF_S = 2.0
MULTIPLIER = 2.0
# A stream that lasts this long was accepted: refusals come at once. Seconds.
OPEN_S = 1.0

DROPPED = (
    "The server dropped the call without an answer (CANCELLED): it is overloaded, or it was just "
    "stopping."
)
REFUSED = (
    "The server refused the call before it looked at it: too many are open. Nothing was changed."
)
# Details of a bare CANCELLED: gRPC fills them in with the name of the code.
_SAYS_NOTHING = frozenset({None, "", "CANCELLED"})
CLOSED = "The client was closed before the call was answered."

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

    def __init__(self) -> None:
        self._next_s = INITIAL_BACKOFF_S

    def next_s(self) -> float:
        delay_s = self._next_s * random.uniform(0.5, 1.0)  # noqa: S311 spreads, keeps no secret
        self._next_s = min(self._next_s * MULTIPLIER, MAX_BACKOFF_S)
        return delay_s


class Attempts:
    """The attempts of one unary call, within one overall deadline.

    Made only after the first attempt has failed, since most succeed.

    Args:
        timeout_s: for all attempts and the pauses between them.
        started_s: monotonic time of the first attempt.
        explain: turns gRPC's words for a failed connection into a message for people.
        patient: whether the timeout starts over after each delay that an overloaded server asks
            for, however many there are.

    Attributes:
        unconnected: whether the next attempt has to wait for a connection.
    """

    def __init__(
        self,
        call: Call[Any],
        timeout_s: float,
        started_s: float,
        throttle: Throttle,
        explain: Explain,
        *,
        patient: bool = False,
    ) -> None:
        self._call = call
        self._timeout_s = timeout_s
        self._deadline_s = started_s + timeout_s
        self._throttle = throttle
        self._explain = explain
        self._patient = patient
        self._backoff = Backoff()
        self._maybe_made = False
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
        if self._maybe_made:
            raise self._unknown(self._waited_for, closed=closed)
        raise self._waited_for

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
        error, sent = _read(rpc_error, self._call.request_id, self._explain, closed=closed)
        if self._call.changes and sent and _may_have_been_made(error):
            self._maybe_made = True
        self.unconnected = error.reason is None
        if isinstance(error, Unavailable):
            self._waited_for = error
            may_retry = not closed and (_turned_away(error) or self._throttle.failed())
            delay_s = _delay_s(error, rpc_error, self._backoff)
            if may_retry and 0 <= delay_s < self._deadline_s - now_s:
                return delay_s
        elif isinstance(error, Overloaded) and not closed:
            self._waited_for = error
            delay_s = _delay_s(error, rpc_error, self._backoff)
            if self._patient and delay_s >= 0:
                self._deadline_s = now_s + delay_s + self._timeout_s
            if 0 <= delay_s < self._deadline_s - now_s:
                return delay_s
        elif isinstance(error, NoFreeSlot | DailyQuotaExhausted) or error.code in _SETTLING_CODES:
            self._throttle.succeeded()
            raise error
        if self._maybe_made:
            raise self._unknown(error, closed=closed) from rpc_error
        if error.code is grpc.StatusCode.DEADLINE_EXCEEDED and self._waited_for:
            error = self._waited_for  # says what the time was spent on
        raise error

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


class Reconnects:
    """When a broken stream is opened again.

    An overloaded server is waited for only once a stream has been open. A watcher refused from
    the start learns of it at once: there may be too many streams, and for long.

    Args:
        patience_s: how long there may be no stream before that is an error.
        now_s: monotonic.
        explain: as for `Attempts`.
    """

    def __init__(self, patience_s: float, now_s: float, explain: Explain) -> None:
        self._patience_s = patience_s
        self._explain = explain
        self._give_up_s = now_s + patience_s
        self._backoff = Backoff()
        self._connected = False
        self._was_open = False
        self._waited_for: IdPassError | None = None

    @property
    def waiting(self) -> bool:
        """Whether the next stream has to wait for a connection first."""
        return self._waited_for is not None

    def remaining_s(self, now_s: float) -> float:
        """How long to go on without a stream."""
        return max(self._give_up_s - now_s, 0.0)

    def connected(self) -> None:
        if not self._connected:
            self._connected = True
            self._waited_for = None
            self._backoff = Backoff()

    def gave_up(self) -> NoReturn:
        """The stream was cancelled here, because the server did not begin to answer in time.

        Raises:
            IdPassError: that of the last stream.
        """
        assert self._waited_for  # noqa: S101 nothing else has a time limit
        raise self._waited_for

    def failed(self, rpc_error: Any, now_s: float) -> float:
        """As for `Attempts`."""
        error, _ = _read(rpc_error, None, self._explain)
        overloaded = isinstance(error, Overloaded)
        # The server begins its answer before it counts the streams: one that is refused as
        # Overloaded was connected, and never open.
        if self._connected and not overloaded:
            self._was_open = True
            self._give_up_s = now_s + self._patience_s
        self._connected = False
        if isinstance(error, Unavailable) or (overloaded and self._was_open):
            self._waited_for = error
            delay_s = _delay_s(error, rpc_error, self._backoff)
            if 0 <= delay_s < self._give_up_s - now_s:
                return delay_s
        raise error


def _read(
    rpc_error: Any, request_id: str | None, explain: Explain, *, closed: bool = False
) -> tuple[IdPassError, bool]:
    """What is raised for a failed attempt, and whether that may have been sent.

    Args:
        closed: whether the client has been closed: CANCELLED then comes from this side.
    """
    error = _status.from_rpc_error(rpc_error, request_id)
    refused = _reach.refused(rpc_error)
    sent = not (refused or _reach.never_sent(rpc_error))
    if refused:
        error = Unavailable(REFUSED, code=error.code, request_id=request_id)
    elif not sent:
        error = Unavailable(explain(error.message), code=error.code, request_id=request_id)
    elif error.code is grpc.StatusCode.CANCELLED and error.reason is None:
        if closed:
            error = IdPassError(CLOSED, code=error.code, request_id=request_id)
        else:
            details = rpc_error.details()
            said = f" It said: {details}" if details not in _SAYS_NOTHING else ""
            error = Unavailable(DROPPED + said, code=error.code, request_id=request_id)
    error.__cause__ = rpc_error
    return error, sent


def _turned_away(error: IdPassError) -> bool:
    """Whether a live server had no room for the call, as far as that can be told."""
    return error.code is grpc.StatusCode.CANCELLED or error.message == REFUSED


def _may_have_been_made(error: IdPassError) -> bool:
    if error.reason is None:  # not from the service: from gRPC here, or a proxy on the way
        return error.code in _LOST_CODES
    return error.metadata.get("outcome") == "unknown"


def _delay_s(error: IdPassError, rpc_error: Any, backoff: Backoff) -> float:
    """Seconds to wait before another attempt; negative for no other.

    A delay that the server asks for is kept. After Overloaded a growing backoff comes on top: all
    refused callers were given the same moment, and some would be refused again.
    """
    pushback_s = _pushback_s(rpc_error)
    if not isinstance(error, Overloaded):
        return backoff.next_s() if pushback_s is None else pushback_s
    asked_s = error.retry_after if pushback_s is None else pushback_s
    return -1.0 if asked_s is None or asked_s < 0 else asked_s + backoff.next_s()


def _pushback_s(rpc_error: Any) -> float | None:
    """Seconds after which the server allows a retry; negative for never (gRFC A6)."""
    for key, value in rpc_error.trailing_metadata() or ():
        if key == "grpc-retry-pushback-ms":
            try:
                return int(value) / 1000
            except ValueError:
                return -1.0
    return None
