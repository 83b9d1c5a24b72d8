"""What every call has in common, whatever its method.

Its reference, who makes it and whether that is allowed, the limit on calls in flight, errors,
the log line, the metrics, and the end of all that when the server stops.
"""

import asyncio
import functools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, NamedTuple, NoReturn, Protocol, TypeVar

import grpc
import structlog

from idpass_server import errors
from idpass_server.identity import Caller, Identity, Permission
from idpass_server.metrics import Metrics
from idpass_server.records import new_uuid
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

QUIET_S: Final = 0.1
"""For so long no call may have come before a draining server hangs up."""

LOG_WITHIN_S: Final = 0.05
"""So long after a call has finished its line is written at the latest."""

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


class _Record:
    """What the log will say of one call."""

    __slots__ = ("caller", "code", "ended_s", "method", "reason", "reference", "started_s")

    def __init__(self, method: str) -> None:
        self.method = method
        self.reference = new_uuid()
        self.started_s = self.ended_s = time.monotonic()
        self.caller: Caller | None = None
        self.code = grpc.StatusCode.OK
        self.reason: str | None = None


class Calls:
    """
    Args:
        identity: tells who calls.
        metrics: counts.
        max_calls: how many unary calls may be in flight; one more is refused as Overloaded.
    """

    def __init__(self, identity: Identity, metrics: Metrics, *, max_calls: int) -> None:
        self._identity = identity
        self._metrics = metrics
        self._max_calls = max_calls
        self._begun = 0
        self._draining = False
        self._finished: list[_Record] = []
        self.in_flight = 0

    async def drain(self) -> None:
        """Refuses what comes from now on; returns when nothing is in flight, nor comes any more.

        gRPC drops a call that it has received and not handed over when it stops: such calls are
        taken here first, and told that nothing was changed.
        """
        self._draining = True
        begun = -1
        while self.in_flight or self._begun != begun:
            begun = self._begun
            await asyncio.sleep(QUIET_S)

    def begin(self) -> None:
        """Counts a unary call in; every one counted in must be counted out.

        Raises:
            Overloaded: too many are in flight.
            StoreUnavailable: the server is stopping.
        """
        self.in_flight += 1
        self._begun += 1
        if self._draining:
            raise StoreUnavailable("the server is stopping; nothing was changed")
        if self.in_flight > self._max_calls:
            raise Overloaded("too many calls are in flight")

    def admit(self, record: _Record, permission: Permission, context: Any) -> Call:
        """The only place where it is decided that a caller may call a method.

        Raises:
            Unauthenticated, NotPermitted: it may not.
        """
        record.caller = caller = self._identity.caller(context)
        if permission not in caller.permissions:
            raise NotPermitted(permission)
        remaining_s = context.time_remaining()
        deadline_s = float("inf") if remaining_s is None else record.started_s + remaining_s
        return Call(caller, record.reference, deadline_s)

    def admit_stream(self, record: _Record, permission: Permission, context: Any) -> Call:
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

    async def abort(self, record: _Record, exception: Exception, context: Any) -> NoReturn:
        """Ends a call with what an exception means for its caller."""
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

    def finish(self, record: _Record) -> None:
        """Counts a call, and has its line written soon.

        Lines are made many at a time: among the work of calls each took three times as long.
        """
        record.ended_s = time.monotonic()
        self._metrics.call(record.method, record.code)
        if not self._finished:
            asyncio.get_running_loop().call_later(LOG_WITHIN_S, self.write_log)
        self._finished.append(record)

    def write_log(self) -> None:
        """Writes the lines of the calls that are finished."""
        epoch_s = time.time() - time.monotonic()
        for record in self._finished:
            log.info(
                "call",
                method=record.method,
                code=record.code.name,
                reason=record.reason,
                reference=record.reference,
                caller=record.caller.name if record.caller else None,
                duration_ms=round((record.ended_s - record.started_s) * 1000, 3),
                time_s=epoch_s + record.ended_s,
            )
        self._finished.clear()


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
            record = _Record(name)
            try:
                calls.begin()
                call = calls.admit(record, permission, context)
                context.set_trailing_metadata(((REFERENCE_KEY, record.reference),))
                return await method(self, request, call)
            except asyncio.CancelledError:
                record.code = grpc.StatusCode.CANCELLED
                raise
            except Exception as exception:  # noqa: BLE001 every fault is answered and logged
                return await calls.abort(record, exception, context)
            finally:
                calls.in_flight -= 1
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
            record = _Record(name)
            try:
                call = self.calls.admit_stream(record, permission, context)
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
