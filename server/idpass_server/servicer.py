"""IdPassService: each method takes a request in, makes one call, and puts an answer out.

`_unary` and `_stream` hold what every call has in common: its reference, the caller and the
permission, the limit on calls in flight, errors, the log line and the metrics.
"""

import asyncio
import contextlib
import functools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, NamedTuple, NoReturn, TypeVar

import grpc
import structlog
from google.rpc import status_pb2

from idpass.v1 import id_pass_pb2 as pb
from idpass.v1 import id_pass_service_pb2 as service_pb
from idpass.v1.id_pass_service_pb2_grpc import IdPassServiceServicer
from idpass_server import errors, requests, responses
from idpass_server.clock import Clock
from idpass_server.engine import Engine
from idpass_server.identity import Caller, Identity, Permission
from idpass_server.metrics import Metrics
from idpass_server.records import (
    Account,
    Advance,
    Advanced,
    Answer,
    Cancelled,
    Command,
    Expire,
    Outcome,
    Registered,
    Status,
    new_uuid,
)
from idpass_server.refusals import (
    InternalFault,
    InvalidRequest,
    NotPermitted,
    Overloaded,
    PassEnded,
    PassNotFound,
    Refusal,
    StoreUnavailable,
)
from idpass_server.store import Store
from idpass_server.sweeper import Sweeper
from idpass_server.watch import Watchers

REFERENCE_KEY: Final = "idpass-reference"
"""Metadata that carries the call's reference: trailing for unary calls, initial for streams."""

QUIET_S: Final = 0.1
"""For so long no call may have come before a draining server hangs up."""

log = structlog.get_logger()


class Call(NamedTuple):
    """What a method knows of its call beside the request."""

    caller: Caller
    reference: str
    deadline_s: float


Request = TypeVar("Request")
Response = TypeVar("Response")


def _unary(
    permission: Permission,
) -> Callable[
    [Callable[["IdPassServicer", Request, Call], Awaitable[Response]]],
    Callable[["IdPassServicer", Request, Any], Awaitable[Response]],
]:
    """Makes a method of request and Call into one of request and gRPC context."""

    def decorate(
        method: Callable[["IdPassServicer", Request, Call], Awaitable[Response]],
    ) -> Callable[["IdPassServicer", Request, Any], Awaitable[Response]]:
        @functools.wraps(method)
        async def handle(self: "IdPassServicer", request: Request, context: Any) -> Response:
            record = _Record(method.__name__)
            self._calls_in_flight += 1
            self._calls_begun += 1
            try:
                if self._draining:
                    raise StoreUnavailable("the server is stopping; nothing was changed")
                if self._calls_in_flight > self._max_calls:
                    raise Overloaded("too many calls are in flight")
                call = self._admit(record, permission, context)
                context.set_trailing_metadata(((REFERENCE_KEY, record.reference),))
                return await method(self, request, call)
            except asyncio.CancelledError:
                record.code = grpc.StatusCode.CANCELLED
                raise
            except Exception as exception:  # noqa: BLE001 every fault is answered and logged
                return await self._abort(record, exception, context)
            finally:
                self._calls_in_flight -= 1
                self._finish(record)

        return handle

    return decorate


def _stream(
    permission: Permission,
) -> Callable[
    [Callable[["IdPassServicer", Request, Call], AsyncIterator[Response]]],
    Callable[["IdPassServicer", Request, Any], AsyncIterator[Response]],
]:
    """As `_unary`, for a method that answers with a stream."""

    def decorate(
        method: Callable[["IdPassServicer", Request, Call], AsyncIterator[Response]],
    ) -> Callable[["IdPassServicer", Request, Any], AsyncIterator[Response]]:
        @functools.wraps(method)
        async def handle(
            self: "IdPassServicer", request: Request, context: Any
        ) -> AsyncIterator[Response]:
            record = _Record(method.__name__)
            try:
                call = self._admit(record, permission, context)
                await context.send_initial_metadata(((REFERENCE_KEY, record.reference),))
                async for response in method(self, request, call):
                    yield response
            except asyncio.CancelledError:
                record.code = grpc.StatusCode.CANCELLED
                raise
            except Exception as exception:  # noqa: BLE001 every fault is answered and logged
                await self._abort(record, exception, context)
            finally:
                self._finish(record)

        return handle

    return decorate


class _Record:
    """What the log will say of one call."""

    __slots__ = ("caller", "code", "method", "reason", "reference", "started_s")

    def __init__(self, method: str) -> None:
        self.method = method
        self.reference = new_uuid()
        self.started_s = time.monotonic()
        self.caller: Caller | None = None
        self.code = grpc.StatusCode.OK
        self.reason: str | None = None


class IdPassServicer(IdPassServiceServicer):
    """
    Args:
        identity: tells who calls.
        engine: takes every change.
        store: is read from.
        read: runs one of the store's reading methods off the event loop.
        max_calls: how many unary calls may be in flight; one more is refused as Overloaded.
    """

    def __init__(
        self,
        *,
        identity: Identity,
        engine: Engine,
        store: Store,
        read: Callable[..., Awaitable[Any]],
        clock: Clock,
        sweeper: Sweeper,
        metrics: Metrics,
        max_calls: int,
        max_watchers: int,
    ) -> None:
        self._identity = identity
        self._engine = engine
        self._store = store
        self._read = read
        self._clock = clock
        self._sweeper = sweeper
        self._metrics = metrics
        self._max_calls = max_calls
        self._calls_in_flight = 0
        self._calls_begun = 0
        self._draining = False
        self.watchers = Watchers(
            read, store, max_watchers=max_watchers, busy=lambda: self._calls_in_flight > 0
        )
        metrics.gauge("calls_in_flight", "Unary calls in flight", lambda: self._calls_in_flight)
        metrics.gauge("watchers", "Streams open", lambda: self.watchers.open)
        metrics.gauge("pending_commands", "Changes waiting", lambda: engine.pending)

    @_unary(Permission.CANCEL)
    async def CancelIdPass(
        self, request: service_pb.CancelRequest, call: Call
    ) -> service_pb.CancelResponse:
        command = requests.cancel(request, call.caller, call.reference)
        return responses.cancel_response(_expect(Cancelled, await self._change(command, call)))

    @_unary(Permission.CANCEL)
    async def BatchCancelIdPasses(
        self, request: service_pb.BatchCancelRequest, call: Call
    ) -> service_pb.BatchCancelResponse:
        results: list[Outcome | None] = []
        commands: list[Command] = []
        for item in requests.batch_requests(request):
            try:
                commands.append(requests.cancel(item, call.caller, call.reference))
                results.append(None)
            except InvalidRequest as refusal:
                results.append(refusal)
        decided = iter(await self._engine.submit(commands, call.deadline_s) if commands else ())
        return responses.batch_cancel_response(
            _result(next(decided) if result is None else result, call.reference)
            for result in results
        )

    @_unary(Permission.REGISTER)
    async def RegisterIdPass(
        self, request: service_pb.RegisterRequest, call: Call
    ) -> service_pb.RegisterResponse:
        command = requests.register(request, call.caller, call.reference)
        return responses.register_response(_expect(Registered, await self._change(command, call)))

    @_unary(Permission.ADVANCE)
    async def AdvanceIdPass(
        self, request: service_pb.AdvanceRequest, call: Call
    ) -> service_pb.AdvanceResponse:
        command = requests.advance(request, call.caller, call.reference)
        return responses.advance_response(_expect(Advanced, await self._change(command, call)))

    @_unary(Permission.READ)
    async def GetIdPass(self, request: service_pb.GetRequest, call: Call) -> service_pb.GetResponse:
        key = (call.caller.account, requests.pass_id(request))
        id_pass = await self._read(self._store.get_pass, *key)
        if id_pass is not None and id_pass.overdue(self._clock.now_us()):
            await self._change(Expire(key[0], call.reference, key[1]), call)
            id_pass = await self._read(self._store.get_pass, *key)
        if id_pass is None:
            raise PassNotFound(key[1])
        return service_pb.GetResponse(id_pass=responses.id_pass(id_pass), reference=call.reference)

    @_unary(Permission.READ)
    async def ListIdPasses(
        self, request: service_pb.ListRequest, call: Call
    ) -> service_pb.ListResponse:
        query = requests.list_query(request, call.caller)
        await self._sweeper.sweep(query.account)
        page = await self._read(self._store.list_passes, query)
        next_page_token = ""
        if page.next_before_id is not None:
            next_page_token = requests.page_token(query, page.next_before_id)
        return service_pb.ListResponse(
            id_passes=map(responses.id_pass, page.passes), next_page_token=next_page_token
        )

    @_unary(Permission.READ)
    async def GetAccount(
        self,
        request: service_pb.GetAccountRequest,  # noqa: ARG002 there is nothing in it
        call: Call,
    ) -> pb.Account:
        await self._sweeper.sweep(call.caller.account)
        return responses.account(await self._account(call))

    @_stream(Permission.WATCH)
    async def WatchIdPasses(
        self, request: service_pb.WatchRequest, call: Call
    ) -> AsyncIterator[pb.IdPassEvent]:
        after_sequence, pass_id = requests.watch(request)
        account = await self._account(call)
        if pass_id is not None:
            id_pass = await self._read(self._store.get_pass, account.name, pass_id)
            if id_pass is None:
                raise PassNotFound(pass_id)
            if id_pass.end_time_us is not None and id_pass.event_sequence <= after_sequence:
                return
        events = self.watchers.follow(account.name, after_sequence, account.last_sequence, pass_id)
        async with contextlib.aclosing(events):
            async for event in events:
                yield event

    async def drain(self) -> None:
        """Refuses what comes from now on; returns when nothing is in flight, nor comes any more.

        gRPC drops a call that it has received and not handed over when it stops: such calls are
        taken here first, and told that nothing was changed.
        """
        self._draining = True
        self.watchers.close()
        begun = -1
        while self._calls_in_flight or self._calls_begun != begun:
            begun = self._calls_begun
            await asyncio.sleep(QUIET_S)

    async def _change(self, command: Command, call: Call) -> Answer:
        """Commits one command; raises what it was refused for."""
        (outcome,) = await self._engine.submit([command], call.deadline_s)
        if isinstance(outcome, Refusal):
            if _late_result(command, outcome):
                self._metrics.late_results.inc()
            raise outcome
        return outcome

    async def _account(self, call: Call) -> Account:
        account: Account | None = await self._read(self._store.get_account, call.caller.account)
        if account is None:
            raise LookupError(f"the caller's account {call.caller.account} does not exist")
        return account

    def _admit(self, record: _Record, permission: Permission, context: Any) -> Call:
        """The only place where it is decided that a caller may call a method."""
        record.caller = caller = self._identity.caller(context)
        if permission not in caller.permissions:
            raise NotPermitted(permission)
        remaining_s = context.time_remaining()
        deadline_s = float("inf") if remaining_s is None else record.started_s + remaining_s
        return Call(caller, record.reference, deadline_s)

    async def _abort(self, record: _Record, exception: Exception, context: Any) -> NoReturn:
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

    def _finish(self, record: _Record) -> None:
        self._metrics.call(record.method, record.code)
        log.info(
            "call",
            method=record.method,
            code=record.code.name,
            reason=record.reason,
            reference=record.reference,
            caller=record.caller.name if record.caller else None,
            duration_ms=round((time.monotonic() - record.started_s) * 1000, 3),
        )


def _late_result(command: Command, refusal: Refusal) -> bool:
    """Whether a verification tried to go on after its pass was cancelled."""
    return (
        isinstance(command, Advance)
        and isinstance(refusal, PassEnded)
        and refusal.id_pass.status == Status.CANCELLED
    )


Expected = TypeVar("Expected")


def _expect(kind: type[Expected], answer: Answer) -> Expected:
    if not isinstance(answer, kind):
        raise TypeError(f"{kind.__name__} expected, not {type(answer).__name__}")
    return answer


def _result(outcome: Outcome, reference: str) -> Cancelled | status_pb2.Status:
    if isinstance(outcome, Refusal):
        return errors.tell(outcome, reference).status
    return _expect(Cancelled, outcome)
