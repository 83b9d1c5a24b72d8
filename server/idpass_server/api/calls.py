"""What every call has in common, whatever its method.

Its reference, who makes it and whether that is allowed, the limit on calls in flight, errors,
the log line, the metrics, and the end of all that when the server stops. `methods` applies it.
"""

import asyncio
import contextlib
import math
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Final, NamedTuple, NoReturn

import grpc
import structlog

from idpass_server.api import errors
from idpass_server.api.call_log import CallLog, Record
from idpass_server.api.identity import Caller, Identity, Permission
from idpass_server.api.metrics import Metrics
from idpass_server.api.rate import Limit, Rate, Room
from idpass_server.rules.refusals import (
    InternalFault,
    NotPermitted,
    Overloaded,
    Refusal,
    StoreUnavailable,
    Unauthenticated,
)

REFERENCE_KEY: Final = "idpass-reference"
"""Metadata that carries the call's reference: trailing for unary calls, initial for streams."""

REFUSING_S: Final = 0.1
"""Time for callers that try again to hear that the server is stopping, seconds."""
QUIET_S: Final = 0.001
"""A lull of this length means that all that was received has been taken, seconds."""
FINISHED_S: Final = 0.01
"""Interval at which calls in flight are looked at while the server stops, seconds."""
NOISY_S: Final = 0.25
"""Time after which such a lull is no longer waited for, seconds."""

REFUSALS_PER_S: Final = 100
REFUSALS_AT_ONCE: Final = 20
"""How often a caller that calls too often is told so."""

MAX_HELD: Final = 1_000
"""So many of one caller's refusals wait for their turn; more go out at once."""

BYTES_PER_CALL: Final = 2_500
"""Size at which a request counts as a further call: about that of the longest cancellation."""

NOBODY: Final = ""
"""Has the bucket of all who do not say who they are."""

log = structlog.get_logger()


def _once() -> None:
    """A unary call is admitted once; what has begun is finished."""


class Call(NamedTuple):
    """What a method knows of its call beside the request.

    Args:
        counted_as: calls that it has counted as for the caller's rate.
        still_admitted: raises Unauthenticated or NotPermitted from the moment on at which a stream
            would not be admitted any more.
    """

    caller: Caller
    reference: str
    deadline_s: float
    counted_as: int = 1
    still_admitted: Callable[[], None] = _once


class Calls:
    """
    Args:
        identity: tells who calls.
        metrics: counts.
        max_calls: how many unary calls may be in flight; one more is refused as Overloaded.
        max_streams_per_account: how many streams may be open on one account.
        limit: of each caller's rate, unless the caller has its own; one who calls more often is
            refused as Overloaded.
    """

    def __init__(
        self,
        identity: Identity,
        metrics: Metrics,
        *,
        max_calls: int,
        max_streams_per_account: int,
        limit: Limit,
    ) -> None:
        self._identity = identity
        self._metrics = metrics
        self._room = Room(max_calls)
        self._max_streams_per_account = max_streams_per_account
        self._streams: dict[str, Room] = {}
        self._rate = Rate(limit)
        self._refusals = Rate(Limit(REFUSALS_PER_S, REFUSALS_AT_ONCE))
        self._begun = 0
        self._held: Counter[str] = Counter()
        self._draining = asyncio.Event()
        self.log = CallLog()

    @property
    def in_flight(self) -> int:
        """Unary calls that were admitted and have not ended."""
        return self._room.taken

    async def drain(self) -> None:
        """Refuses what comes from now on; returns at a good moment to hang up.

        gRPC drops a call that it has received and not handed over when it hangs up, and says
        CANCELLED, which leaves callers to guess. Hence not at once: those who try again are told
        first that nothing was changed, and pause. Hence in a lull.
        """
        self._draining.set()
        await asyncio.sleep(REFUSING_S)
        give_up_s = time.monotonic() + NOISY_S
        begun = -1
        while self._begun != begun and time.monotonic() < give_up_s:
            begun = self._begun
            await asyncio.sleep(QUIET_S)

    async def finished(self) -> None:
        """Returns when no unary call is in flight."""
        while self.in_flight or self._held.total():  # noqa: ASYNC110 only when the server stops
            await asyncio.sleep(FINISHED_S)

    def admit(self, record: Record, permission: Permission, size: int, context: Any) -> Call:
        """The only place where it is decided that a caller may call a method.

        Nothing before it takes longer for a larger request.

        Args:
            size: of the request, in bytes.

        Raises:
            StoreUnavailable: the server is stopping.
            Unauthenticated, NotPermitted: it may not.
            Overloaded: it calls too often.
            TimeoutError: the deadline has passed while the call waited for its turn.
        """
        self._begun += 1
        if self._draining.is_set():
            raise StoreUnavailable("the server is stopping; nothing was changed")
        tokens = 1 + size // BYTES_PER_CALL
        try:
            record.caller = caller = self._identity.caller(context)
        except Unauthenticated:
            record.over_rate = not self._rate.take(NOBODY, record.started_s, tokens=tokens)
            raise
        limit = self._limit(caller)
        if not self._rate.take(caller.name, record.started_s, limit, tokens=tokens):
            record.over_rate = True
            raise Overloaded(f"this caller makes more than {limit.per_s:g} calls a second")
        if permission not in caller.permissions:
            raise NotPermitted(permission)
        remaining_s = context.time_remaining()
        if remaining_s is None:
            return Call(caller, record.reference, float("inf"), tokens)
        if remaining_s <= 0:
            raise TimeoutError("the deadline passed before it was started")
        return Call(caller, record.reference, record.started_s + remaining_s, tokens)

    def count_as(self, calls: int, call: Call) -> None:
        """Has a call count as so many for its caller's rate, if it does not yet."""
        self._rate.owe(call.caller.name, calls - call.counted_as, self._limit(call.caller))

    def _limit(self, caller: Caller) -> Limit:
        return self._rate.limit(caller.rate_per_s, caller.burst)

    def enter(self, record: Record, caller: Caller) -> None:
        """Counts a unary call in; `finish` counts it out.

        Raises:
            Overloaded: too many are in flight.
        """
        if not self._room.enter(caller.name):
            raise Overloaded("too many calls are in flight")
        record.room = self._room

    def enter_stream(self, record: Record, caller: Caller) -> None:
        """As `enter`, for a stream.

        Raises:
            Overloaded: the caller has too many of its account's streams.
        """
        room = self._streams.get(caller.account)
        if room is None:
            room = self._streams[caller.account] = Room(self._max_streams_per_account)
        if not room.enter(caller.name):
            raise Overloaded(
                f"the account may have {self._max_streams_per_account} streams open, and no caller "
                "all of them"
            )
        record.room = room

    def admit_stream(self, record: Record, permission: Permission, size: int, context: Any) -> Call:
        """As `admit`; and whenever others may call, looks whether this caller still may."""
        call = self.admit(record, permission, size, context)
        version = self._identity.version

        def still_admitted() -> None:
            nonlocal version
            if version == self._identity.version:
                return
            caller = self._identity.caller(context)
            if caller.account != call.caller.account:
                raise Unauthenticated
            if permission not in caller.permissions:
                raise NotPermitted(permission)
            version = self._identity.version

        return call._replace(still_admitted=still_admitted)

    async def abort(self, record: Record, exception: Exception, context: Any) -> NoReturn:
        """Ends a call with what an exception means for its caller."""
        if record.over_rate:
            await self._hold(record.caller_name or NOBODY)
            if isinstance(exception, Overloaded) and record.caller:
                wait_s = self._rate.wait_s(
                    record.caller.name, time.monotonic(), self._limit(record.caller)
                )
                exception.retry_ms = math.ceil(wait_s * 1000)
                exception.cause = "rate"
        if isinstance(exception, TimeoutError):
            record.code = grpc.StatusCode.DEADLINE_EXCEEDED
            await context.abort(record.code, str(exception))
        if not isinstance(exception, Refusal):
            log.error("fault", method=record.method, reference=record.reference, exc_info=exception)
            exception = InternalFault()
        record.overloaded = isinstance(exception, Overloaded)
        error = errors.tell(exception, record.reference)
        record.code, record.reason = error.code, error.reason
        await context.abort(error.code, error.status.message, error.trailing_metadata)
        raise AssertionError("abort raises")

    async def _hold(self, name: str) -> None:
        """Lets a caller that calls too often wait for its turn to be refused.

        Refusing takes most of the time that answering takes. Whoever keeps many calls in flight
        whatever comes back would keep the server busy with refusals; this way they are as few as
        its calls.
        """
        if self._held[name] >= MAX_HELD:
            return
        self._held[name] += 1
        try:
            wait_s = self._refusals.reserve(name, time.monotonic())
            if wait_s:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._draining.wait(), wait_s)
        finally:
            self._held[name] -= 1

    def finish(self, record: Record) -> None:
        """Counts a call out."""
        room, caller = record.room, record.caller
        if room is not None and caller is not None:
            room.leave(caller.name)
            if not room.taken and self._streams.get(caller.account) is room:
                del self._streams[caller.account]
        record.ended_s = time.monotonic()
        self._metrics.call(record.method, record.code)
        self.log.add(record)
