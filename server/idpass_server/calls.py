"""What every call has in common, whatever its method.

Its reference, who makes it and whether that is allowed, the limit on calls in flight, errors,
the log line, the metrics, and the end of all that when the server stops.
"""

import asyncio
import contextlib
import functools
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, NamedTuple, NoReturn, Protocol, TypeVar

import grpc
import structlog

from idpass_server import errors, wire
from idpass_server.call_log import CallLog, Record
from idpass_server.identity import Caller, Identity, Permission
from idpass_server.metrics import Metrics
from idpass_server.rate import Rate
from idpass_server.refusals import (
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

SHARE: Final = 8
"""How many times as many calls as there is still room for one caller may have in flight."""

NOBODY: Final = ""
"""Has the bucket of all who do not say who they are."""

log = structlog.get_logger()


def _once() -> None:
    """A unary call is admitted once; what has begun is finished."""


class Call(NamedTuple):
    """What a method knows of its call beside the request.

    Args:
        still_admitted: raises Unauthenticated or NotPermitted from the moment on at which a stream
            would not be admitted any more.
    """

    caller: Caller
    reference: str
    deadline_s: float
    still_admitted: Callable[[], None] = _once


class Calls:
    """
    Args:
        identity: tells who calls.
        metrics: counts.
        max_calls: how many unary calls may be in flight; one more is refused as Overloaded.
        rate: of each caller; one who calls more often is refused as Overloaded.
    """

    def __init__(self, identity: Identity, metrics: Metrics, *, max_calls: int, rate: Rate) -> None:
        self._identity = identity
        self._metrics = metrics
        self._max_calls = max_calls
        self._rate = rate
        self._refusals = Rate(REFUSALS_PER_S, REFUSALS_AT_ONCE)
        self._begun = 0
        self._held: Counter[str] = Counter()
        self._in_flight_of: dict[str, int] = {}
        self._draining = asyncio.Event()
        self.in_flight = 0
        self.log = CallLog()

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

    def admit(self, record: Record, permission: Permission, context: Any) -> Call:
        """The only place where it is decided that a caller may call a method.

        Raises:
            StoreUnavailable: the server is stopping.
            Unauthenticated, NotPermitted: it may not.
            Overloaded: it calls too often.
        """
        self._begun += 1
        if self._draining.is_set():
            raise StoreUnavailable("the server is stopping; nothing was changed")
        try:
            record.caller = caller = self._identity.caller(context)
        except Unauthenticated:
            record.over_rate = not self._rate.take(NOBODY, record.started_s)
            raise
        if not self._rate.take(caller.name, record.started_s):
            record.over_rate = True
            raise Overloaded(f"this caller makes more than {self._rate.per_s:g} calls a second")
        if permission not in caller.permissions:
            raise NotPermitted(permission)
        remaining_s = context.time_remaining()
        deadline_s = float("inf") if remaining_s is None else record.started_s + remaining_s
        return Call(caller, record.reference, deadline_s)

    def count_as(self, calls: int, caller: Caller) -> None:
        """Has a call of the caller's count as so many."""
        self._rate.owe(caller.name, calls - 1)

    def enter(self, record: Record, caller: Caller) -> None:
        """Counts a unary call in; `finish` counts it out.

        A caller may have `SHARE` times as many in flight as are left free then: alone nearly
        all, beside others less and less, and whoever comes next still finds room.

        Raises:
            Overloaded: too many are in flight.
        """
        mine = self._in_flight_of.get(caller.name, 0)
        if mine >= SHARE * (self._max_calls - self.in_flight):
            raise Overloaded("too many calls are in flight")
        self._in_flight_of[caller.name] = mine + 1
        self.in_flight += 1
        record.in_flight = True

    def admit_stream(self, record: Record, permission: Permission, context: Any) -> Call:
        """As `admit`; and whenever others may call, looks whether this caller still may."""
        call = self.admit(record, permission, context)
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
                wait_s = self._rate.wait_s(record.caller.name, time.monotonic())
                exception.retry_ms = math.ceil(wait_s * 1000)
        if isinstance(exception, TimeoutError):
            record.code = grpc.StatusCode.DEADLINE_EXCEEDED
            await context.abort(record.code, str(exception))
        if not isinstance(exception, Refusal):
            log.error("fault", method=record.method, reference=record.reference, exc_info=exception)
            exception = InternalFault()
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
        if record.in_flight and record.caller:
            self.in_flight -= 1
            name = record.caller.name
            left = self._in_flight_of[name] - 1
            if left:
                self._in_flight_of[name] = left
            else:
                del self._in_flight_of[name]
        record.ended_s = time.monotonic()
        self._metrics.call(record.method, record.code)
        self.log.add(record)


class _HasCalls(Protocol):
    calls: Calls


Self = TypeVar("Self", bound=_HasCalls)
Request = TypeVar("Request")
Response = TypeVar("Response")


def unary(
    permission: Permission,
) -> Callable[
    [Callable[[Self, Request, Call], Awaitable[Response]]],
    Callable[[Self, Request, Any], Awaitable[Response]],
]:
    """Makes a servicer's method of request and gRPC context from one of request and Call."""

    def decorate(
        method: Callable[[Self, Request, Call], Awaitable[Response]],
    ) -> Callable[[Self, Request, Any], Awaitable[Response]]:
        name = method.__name__

        @functools.wraps(method)
        async def handle(self: Self, request: Request, context: Any) -> Response:
            calls = self.calls
            record = Record(name)
            try:
                call = calls.admit(record, permission, context)
                calls.enter(record, call.caller)
                wire.check_readable(request, name)
                context.set_trailing_metadata(((REFERENCE_KEY, record.reference),))
                return await method(self, request, call)
            except asyncio.CancelledError:
                record.code = grpc.StatusCode.CANCELLED
                raise
            except Exception as exception:  # noqa: BLE001 every fault is answered and logged
                return await calls.abort(record, exception, context)
            finally:
                calls.finish(record)

        handle.permission = permission  # type: ignore[attr-defined]
        return handle

    return decorate


def stream(
    permission: Permission,
) -> Callable[
    [Callable[[Self, Request, Call], AsyncIterator[Response]]],
    Callable[[Self, Request, Any], AsyncIterator[Response]],
]:
    """As `unary`, for a method that answers with a stream."""

    def decorate(
        method: Callable[[Self, Request, Call], AsyncIterator[Response]],
    ) -> Callable[[Self, Request, Any], AsyncIterator[Response]]:
        name = method.__name__

        @functools.wraps(method)
        async def handle(self: Self, request: Request, context: Any) -> AsyncIterator[Response]:
            record = Record(name)
            try:
                call = self.calls.admit_stream(record, permission, context)
                wire.check_readable(request, name)
                await context.send_initial_metadata(((REFERENCE_KEY, record.reference),))
                async for response in method(self, request, call):
                    yield response
            except asyncio.CancelledError:
                record.code = grpc.StatusCode.CANCELLED
                raise
            except Exception as exception:  # noqa: BLE001 every fault is answered and logged
                await self.calls.abort(record, exception, context)
            finally:
                self.calls.finish(record)

        handle.permission = permission  # type: ignore[attr-defined]
        return handle

    return decorate
