"""IdPassService: each method translates a request, asks the engine once, and translates the answer.

`methods` registers them with gRPC and admits their calls. The generated base class is not used: its
methods would take parsed requests, and requests are parsed after a call is admitted.
"""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Iterable
from typing import Final, TypeVar

from google.rpc import status_pb2

from idpass.v1 import id_pass_pb2 as pb
from idpass.v1 import id_pass_service_pb2 as service_pb
from idpass_server.api import errors, requests, responses
from idpass_server.api.calls import Call
from idpass_server.api.identity import Permission
from idpass_server.api.methods import rpc
from idpass_server.api.metrics import Metrics
from idpass_server.api.watch import Watchers
from idpass_server.engine.reads import Reads
from idpass_server.engine.writes import Engine
from idpass_server.rules.commands import (
    Advance,
    Advanced,
    Answer,
    Cancel,
    Cancelled,
    Command,
    Outcome,
    Registered,
)
from idpass_server.rules.positions import Positions
from idpass_server.rules.records import Account, Pass, Status
from idpass_server.rules.refusals import (
    AccountDisabled,
    HistoryLost,
    InvalidRequest,
    PassEnded,
    PassNotFound,
    Refusal,
)

Item = TypeVar("Item")

ITEMS_PER_TURN: Final = 100
"""Number of items of a request after which other calls have their turn."""

PASSES_PER_CALL: Final = 25
"""Number of passes in a page that count as one call: they take about as long."""


class IdPassServicer:
    """The methods of the service, one for each rpc.

    Args:
        engine: commits changes.
        reads: reads the store.
        watchers: follow an account's events.
        metrics: counts late results, and refused items of batches.
    """

    def __init__(
        self, *, engine: Engine, reads: Reads, watchers: Watchers, metrics: Metrics
    ) -> None:
        self._engine = engine
        self._reads = reads
        self._watchers = watchers
        self._metrics = metrics

    @rpc(Permission.CANCEL)
    async def CancelIdPass(
        self, request: service_pb.CancelRequest, call: Call
    ) -> service_pb.CancelResponse:
        command = requests.cancel(request, call.caller, call.reference)
        return responses.cancel_response(_expect(Cancelled, await self._change(command, call)))

    @rpc(Permission.CANCEL)
    async def BatchCancelIdPasses(
        self, request: service_pb.BatchCancelRequest, call: Call
    ) -> service_pb.BatchCancelResponse:
        items = requests.batch_requests(request)
        call.count_as(len(items))
        call.record.passes = len(items)
        asked = [_cancel_or_refusal(item, call) async for item in _in_turns(items)]
        commands = [each for each in asked if isinstance(each, Cancel)]
        decided = iter(await self._engine.submit(commands, call.deadline_s) if commands else ())
        outcomes = [next(decided) if isinstance(each, Cancel) else each for each in asked]
        return responses.batch_cancel_response(
            [self._result(outcome, call) async for outcome in _in_turns(outcomes)]
        )

    @rpc(Permission.REGISTER)
    async def RegisterIdPass(
        self, request: service_pb.RegisterRequest, call: Call
    ) -> service_pb.RegisterResponse:
        command = requests.register(request, call.caller, call.reference)
        answer = _expect(Registered, await self._change(command, call))
        call.record.id_pass = answer.id_pass.id
        return responses.register_response(answer)

    @rpc(Permission.ADVANCE)
    async def AdvanceIdPass(
        self, request: service_pb.AdvanceRequest, call: Call
    ) -> service_pb.AdvanceResponse:
        command = requests.advance(request, call.caller, call.reference)
        return responses.advance_response(_expect(Advanced, await self._change(command, call)))

    @rpc(Permission.READ)
    async def GetIdPass(self, request: service_pb.GetRequest, call: Call) -> service_pb.GetResponse:
        id_pass = await self._pass(call, requests.pass_id(request))
        return service_pb.GetResponse(id_pass=responses.id_pass(id_pass), reference=call.reference)

    @rpc(Permission.READ)
    async def ListIdPasses(
        self, request: service_pb.ListRequest, call: Call
    ) -> service_pb.ListResponse:
        query, token_history = requests.list_query(request, call.caller)
        page, history = await self._reads.list_passes(query)
        if token_history not in ("", history):
            raise HistoryLost(history)
        call.record.passes = len(page.passes)
        call.count_as(math.ceil(len(page.passes) / PASSES_PER_CALL))
        next_page_token = ""
        if page.next_before_id is not None:
            next_page_token = requests.page_token(query, page.next_before_id, history)
        return service_pb.ListResponse(
            id_passes=map(responses.id_pass, page.passes), next_page_token=next_page_token
        )

    @rpc(Permission.READ)
    async def GetAccount(
        self,
        request: service_pb.GetAccountRequest,  # noqa: ARG002 it has no fields
        call: Call,
    ) -> pb.Account:
        return responses.account(*await self._account(call))

    @rpc(Permission.WATCH)
    async def WatchIdPasses(
        self, request: service_pb.WatchRequest, call: Call
    ) -> AsyncIterator[pb.IdPassEvent]:
        asked = requests.watch(request)
        account, positions = await self._account(call)
        id_pass = None if asked.pass_id is None else await self._pass(call, asked.pass_id)
        if id_pass is not None:
            positions = positions.of_pass()
        positions.check(asked.after_sequence, asked.history)
        if (
            id_pass is not None
            and id_pass.end_time_us is not None
            and id_pass.event_sequence <= asked.after_sequence
        ):
            return
        events = self._watchers.follow(
            account.name,
            asked.after_sequence,
            account.last_sequence,
            asked.pass_id,
            call.still_admitted,
            gaps=positions.gaps,
        )
        async with contextlib.aclosing(events):
            async for event in events:
                yield event

    async def _change(self, command: Command, call: Call) -> Answer:
        """Commits one command.

        Raises:
            Refusal: the outcome, if it is one.
        """
        call.record.id_pass = command.subject
        (outcome,) = await self._engine.submit([command], call.deadline_s)
        if isinstance(outcome, Refusal):
            if _late_result(command, outcome):
                self._metrics.late_results.inc()
            raise outcome
        if isinstance(outcome, Cancelled | Registered | Advanced):  # others are no caller's
            call.record.replayed = outcome.replayed
        return outcome

    def _result(self, outcome: Outcome, call: Call) -> Cancelled | status_pb2.Status:
        """The result of one item of a batch, which is counted where it is a refusal."""
        if not isinstance(outcome, Refusal):
            return _expect(Cancelled, outcome)
        error = errors.tell(outcome, call.reference)
        self._metrics.refused("BatchCancelIdPasses", call.caller.name, error.reason)
        return error.status

    async def _pass(self, call: Call, pass_id: str) -> Pass:
        call.record.id_pass = pass_id
        id_pass = await self._reads.get_pass(call.caller.account, pass_id)
        if id_pass is None:
            raise PassNotFound(pass_id)
        return id_pass

    async def _account(self, call: Call) -> tuple[Account, Positions]:
        found = await self._reads.get_account(call.caller.account)
        if found is None:
            raise AccountDisabled(call.caller.account)
        return found


async def _in_turns(items: Iterable[Item]) -> AsyncIterator[Item]:
    """Yields the items, and to other calls after every ITEMS_PER_TURN."""
    for number, item in enumerate(items, start=1):
        yield item
        if number % ITEMS_PER_TURN == 0:
            await asyncio.sleep(0)


def _late_result(command: Command, refusal: Refusal) -> bool:
    """Whether a verification went on after its pass was cancelled."""
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


def _cancel_or_refusal(item: service_pb.CancelRequest, call: Call) -> Cancel | InvalidRequest:
    try:
        return requests.cancel(item, call.caller, call.reference)
    except InvalidRequest as refusal:
        return refusal
