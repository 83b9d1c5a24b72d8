"""What every call has in common, whatever its method.

That is its reference, caller and permission, the limits on rates and on calls in flight, errors,
the log line, metrics, and draining. `methods` applies it.
"""

import asyncio
import contextlib
import functools
import math
import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn

import grpc
import structlog

from idpass_server.api import errors, rate_fields
from idpass_server.api.call_log import CallLog, CallRecord
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

if TYPE_CHECKING:
    from idpass_server.api.spans import Spans  # an extra may be missing

REFERENCE_KEY: Final = "idpass-reference"
"""Metadata key of the call's reference: initial for streams; trailing for unary calls whose answer
does not have it, or has that of the call whose answer it repeats."""

HISTORY_KEY: Final = "idpass-history"
"""Initial metadata key of the history that a stream's events belong to."""

REFUSING_S: Final = 0.1
"""How long a draining server refuses calls before it looks for a lull, seconds. Callers that retry
learn in that time that nothing was changed."""
STOPPING_RETRY_MS: Final = 100
"""Retry delay that a stopping server suggests, milliseconds: another may answer already."""
QUIET_S: Final = 0.001
"""Length of a lull after which every received call has been handed over, seconds."""
FINISHED_S: Final = 0.01
"""Interval between two looks at the calls in flight while the server stops, seconds."""
NOISY_S: Final = 0.25
"""Longest wait for a lull, seconds."""

REFUSALS_PER_S: Final = 100
"""Refusals for rate that one caller is sent, per second."""
REFUSALS_AT_ONCE: Final = 20
"""Burst of refusals for rate that one caller is sent."""

MAX_HELD: Final = 1_000
"""Number of refusals per caller that may wait; further ones go out at once."""

BYTES_PER_CALL: Final = 2_500
"""Size for which a request costs one more token, bytes: about that of the longest cancellation."""

NOBODY: Final = ""
"""Name under which the rate of unauthenticated calls is counted."""

log = structlog.get_logger()


def _admitted() -> None:
    """A unary call is admitted once; what has begun is finished."""


class Call(NamedTuple):
    """What a method knows of its call beside the request.

    Attributes:
        caller: who makes it.
        reference: UUID of the call.
        record: what the log will say of it; the method adds which pass it is about.
        deadline_s: on time.monotonic(); infinite if the call has none.
        count_as: raises what the call costs to that of a number of calls, in the caller's rate.
        still_admitted: raises Unauthenticated or NotPermitted if a stream's caller may no longer
            make the call.
    """

    caller: Caller
    reference: str
    record: CallRecord
    deadline_s: float
    count_as: Callable[[int], None]
    still_admitted: Callable[[], None] = _admitted


class Calls:
    """All calls of a server.

    Args:
        identity: tells who makes a call.
        metrics: counts calls.
        max_calls: largest number of unary calls in flight; more are refused as Overloaded.
        max_streams_per_account: largest number of open streams per account.
        limit: rate of each caller without its own; calls over it are refused as Overloaded.
        logged: which calls have a line in the log, as CallLog.
        spans: traces calls; None for no tracing.

    Attributes:
        log: of the calls that have ended.
    """

    def __init__(
        self,
        identity: Identity,
        metrics: Metrics,
        *,
        max_calls: int,
        max_streams_per_account: int,
        limit: Limit,
        logged: str = "all",
        spans: "Spans | None" = None,
    ) -> None:
        self._identity = identity
        self._metrics = metrics
        self._spans = spans
        self._room = Room(max_calls)
        self._max_streams_per_account = max_streams_per_account
        self._streams: dict[str, Room] = {}
        self._rate = Rate(limit)
        self._refusals = Rate(Limit(REFUSALS_PER_S, REFUSALS_AT_ONCE))
        self._begun = 0
        self._held: Counter[str] = Counter()
        self._draining = asyncio.Event()
        self.log = CallLog(logged)

    @property
    def in_flight(self) -> int:
        """Number of unary calls that were admitted and have not ended."""
        return self._room.taken

    async def drain(self, *, refuse: bool = True) -> None:
        """Refuses new calls; returns at a good moment to close the connections.

        When gRPC closes a connection it ends calls that it has received and not yet handed over as
        CANCELLED, which leaves their callers guessing. So first, callers that retry are told that
        nothing was changed, and back off; then a lull is waited for.

        Args:
            refuse: false where another server answers already: calls are then answered up to the
                lull.
        """
        if refuse:
            self._draining.set()
            await asyncio.sleep(REFUSING_S)
        give_up_s = time.monotonic() + NOISY_S
        begun = -1
        while self._begun != begun and time.monotonic() < give_up_s:
            begun = self._begun
            await asyncio.sleep(QUIET_S)
        self._draining.set()

    async def finished(self) -> None:
        """Waits until no unary call is in flight."""
        while self.in_flight or self._held.total():  # noqa: ASYNC110 only when the server stops
            await asyncio.sleep(FINISHED_S)

    def begin(self, method: str, context: Any, service: str) -> CallRecord:
        """Begins the record of a call.

        Args:
            method: name of the rpc.
            context: gRPC's, of the call.
            service: full name of the rpc's service.
        """
        record = CallRecord(method, service)
        record.come_from(context)
        if self._spans is not None:
            self._spans.begin(record)
        return record

    def admit(self, record: CallRecord, permission: Permission, size: int, context: Any) -> Call:
        """Decides whether a caller may make a call; the only place that does.

        It takes the same time for a request of any size.

        Args:
            record: of the call; gets its caller.
            permission: what the method requires.
            size: of the request, bytes.
            context: gRPC's, of the call.

        Raises:
            StoreUnavailable: the server is stopping.
            Unauthenticated: the credentials are missing or unknown.
            NotPermitted: the caller lacks the permission.
            Overloaded: the caller is over its rate.
            TimeoutError: the deadline passed before the call was handed over.
        """
        self._begun += 1
        self._metrics.started(record.method)
        if self._draining.is_set():
            raise StoreUnavailable(
                "the server is stopping; nothing was changed", retry_ms=STOPPING_RETRY_MS
            )
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
        if remaining_s is not None and remaining_s <= 0:
            raise TimeoutError("the deadline passed before it was started")
        deadline_s = math.inf if remaining_s is None else record.started_s + remaining_s
        count_as = functools.partial(self._count_as, caller, tokens)
        return Call(caller, record.reference, record, deadline_s, count_as)

    def _count_as(self, caller: Caller, taken: int, calls: int) -> None:
        """Charges a caller for a call that costs as much as `calls`, less the tokens taken."""
        self._rate.owe(caller.name, calls - taken, self._limit(caller))

    def _limit(self, caller: Caller) -> Limit:
        return self._rate.limit(caller.rate_per_s, caller.burst)

    def rate_fields(self, record: CallRecord) -> tuple[tuple[str, str], ...]:
        """Metadata that says what is left of the caller's rate, if the call asks for that."""
        if not record.asks_rate or record.caller is None:
            return ()
        limit = self._limit(record.caller)
        if not limit.per_s:
            return ()
        left = self._rate.left(record.caller.name, time.monotonic(), limit)
        return rate_fields.fields(limit, left)

    def enter(self, record: CallRecord, caller: Caller) -> None:
        """Gives a unary call a place, which `finish` frees.

        Raises:
            Overloaded: too many are in flight.
        """
        if not self._room.enter(caller.name):
            raise Overloaded("too many calls are in flight")
        record.room = self._room

    def enter_stream(self, record: CallRecord, caller: Caller) -> None:
        """Gives a stream a place, which `finish` frees.

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

    def admit_stream(
        self, record: CallRecord, permission: Permission, size: int, context: Any
    ) -> Call:
        """Admits a stream as `admit` does; its `still_admitted` follows changes of the callers."""
        call = self.admit(record, permission, size, context)
        version = self._identity.version

        def still_admitted() -> None:
            nonlocal version
            if version == self._identity.version:
                return
            caller = self._identity.caller(context)
            if caller.account != call.caller.account:
                raise Unauthenticated("token")
            if permission not in caller.permissions:
                raise NotPermitted(permission)
            version = self._identity.version

        return call._replace(still_admitted=still_admitted)

    async def abort(self, record: CallRecord, exception: Exception, context: Any) -> NoReturn:
        """Ends a call with the error that an exception means for its caller."""
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
        if isinstance(exception, Unauthenticated):
            record.unauthenticated = exception.kind
        error = errors.tell(exception, record.reference)
        record.code, record.reason = error.code, error.reason
        metadata = (*error.trailing_metadata, *self.rate_fields(record))
        await context.abort(error.code, error.status.message, metadata)
        raise AssertionError("abort raises")

    async def _hold(self, name: str) -> None:
        """Delays the refusal of a caller that is over its rate.

        A refusal takes nearly as long as an answer. A caller that keeps many calls in flight, come
        what may, would keep the server busy with refusals; delayed, they are limited too.
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

    def finish(self, record: CallRecord) -> None:
        """Frees the call's place, and counts and logs it."""
        room, caller = record.room, record.caller
        if room is not None and caller is not None:
            room.leave(caller.name)
            if not room.taken and self._streams.get(caller.account) is room:
                del self._streams[caller.account]
        record.ended_s = time.monotonic()
        self._metrics.ended(record)
        if self._spans is not None:
            self._spans.end(record)
        self.log.add(record)
