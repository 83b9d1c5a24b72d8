"""The fake service of `idpass.testing`: the lifecycle, its receipts and refunds, in memory.

It is written from the contract and not from the server, which a client cannot import; a test holds
it against the real one, step by step.
"""

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

from idpass import _fake_refusals as refusals
from idpass._arguments import new_request_id
from idpass._fake_ledger import (
    ACCOUNT,
    CANCELLED,
    REFUNDED,
    TRANSITIONS,
    Ledger,
    copy_of,
    money_message,
)
from idpass._fake_refusals import Fields, Refused
from idpass._records import Money
from idpass._words import CancelReason
from idpass.v1 import id_pass_pb2 as pb
from idpass.v1 import id_pass_service_pb2 as service_pb

DEFAULT_DAYS: Final = 7
MAX_DAYS: Final = 14


class Fake:
    """One account. `answer` may be called from any thread.

    Attributes:
        lock: held while a call is carried out.
        watchers: called after each change.
    """

    def __init__(self, slot_limit: int, fee: Money) -> None:
        self.lock = threading.RLock()
        self.watchers: set[Callable[[], None]] = set()
        self._ledger = Ledger(slot_limit, fee)

    def answer(self, method: str, request: Any) -> Any:
        """
        Args:
            method: name of the rpc.

        Raises:
            Refused: the real service would refuse it too.
        """
        with self.lock:
            self._ledger.reference = new_request_id()
            self._ledger.expire_overdue()
            before = len(self._ledger.events)
            try:
                return _METHODS.get(method, _no_webhooks)(self, request)
            finally:
                if len(self._ledger.events) > before:
                    self.tell()

    @property
    def history(self) -> str:
        """Id of the history that the events belong to."""
        return self._ledger.history

    def move_clock(self, by: timedelta) -> None:
        with self.lock:
            self._ledger.clock_offset += by
        self.tell()

    def tell(self) -> None:
        """Has the watchers look for what is new."""
        for told in list(self.watchers):
            told()

    def cancel(self, request: service_pb.CancelRequest) -> service_pb.CancelResponse:
        fields = Fields()
        fields.request_id(request.request_id)
        pass_id = fields.uuid("id", request.id)
        fields.reason(request.reason)
        fields.text("note", request.note, 500)
        fields.statuses("expected_status", [request.expected_status])
        fields.check()
        conditions = (request.expected_status, request.require_refund)
        content = ("cancel", pass_id, request.reason, request.note, conditions)
        id_pass = self._ledger.found(pass_id)
        if first := self._ledger.first(request.request_id, content, service_pb.CancelResponse):
            return first
        self._ledger.check_open(id_pass, request.expected_status)
        if request.require_refund and id_pass.status not in REFUNDED:
            raise refusals.no_refund(id_pass)
        if request.validate_only:
            id_pass = copy_of(id_pass)  # which nobody else sees
        before = id_pass.status
        self._ledger.cancelled(id_pass, request.reason, request.note)
        answer = _receipt(id_pass, before, self._ledger.reference)
        if not request.validate_only:
            self._ledger.record(id_pass, before, request.request_id)
            self._ledger.keep(request.request_id, content, answer)
        return answer

    def batch_cancel(
        self, request: service_pb.BatchCancelRequest
    ) -> service_pb.BatchCancelResponse:
        answer = service_pb.BatchCancelResponse()
        for each in request.requests:
            self._add_result(answer, each)
        return answer

    def _add_result(
        self, answer: service_pb.BatchCancelResponse, item: service_pb.CancelRequest
    ) -> None:
        try:
            answer.results.add(response=self.cancel(item))
        except Refused as refused:
            answer.results.add(error=refused.status)

    def register(self, request: service_pb.RegisterRequest) -> service_pb.RegisterResponse:
        fields, days = Fields(), request.link_validity_days
        fields.request_id(request.request_id)
        if not 0 <= days <= MAX_DAYS:
            fields.wrong("link_validity_days", f"{days} is not 1 to {MAX_DAYS}, nor 0")
        fields.text("applicant_reference", request.applicant_reference, 128, line=True)
        prior_id = fields.uuid("supersedes", request.supersedes) if request.supersedes else ""
        fields.check()
        days = days or DEFAULT_DAYS
        content = ("register", days, request.applicant_reference, prior_id)
        prior = self._ledger.found(prior_id) if prior_id else None
        if first := self._ledger.first(request.request_id, content, service_pb.RegisterResponse):
            return first
        if prior:
            self._ledger.check_open(prior)
        elif self._ledger.slots_in_use() >= self._ledger.slot_limit:
            raise refusals.no_free_slot(self._ledger.slot_limit)
        id_pass = self._ledger.made(days, request.applicant_reference, prior_id)
        answer = service_pb.RegisterResponse(reference=self._ledger.reference)
        if prior:
            before = prior.status
            prior.superseded_by = id_pass.id
            self._ledger.cancelled(prior, CancelReason.SUPERSEDED.number, "")
            self._ledger.record(prior, before)
            answer.superseded.CopyFrom(_receipt(prior, before, self._ledger.reference))
        self._ledger.passes[id_pass.id] = id_pass
        self._ledger.charged += self._ledger.fee.amount
        self._ledger.record(id_pass, 0, request.request_id)
        answer.id_pass.CopyFrom(id_pass)
        self._ledger.keep(request.request_id, content, answer)
        return answer

    def advance(self, request: service_pb.AdvanceRequest) -> service_pb.AdvanceResponse:
        fields, to_status = Fields(), request.to_status
        fields.statuses("to_status", [to_status])
        if to_status in {0, CANCELLED}:
            fields.wrong("to_status", "is required, and cancelling is another call")
        fields.request_id(request.request_id)
        pass_id = fields.uuid("id", request.id)
        fields.statuses("expected_status", [request.expected_status])
        fields.check()
        content = ("advance", pass_id, to_status, request.expected_status)
        id_pass = self._ledger.found(pass_id)
        if first := self._ledger.first(request.request_id, content, service_pb.AdvanceResponse):
            return first
        self._ledger.check_open(id_pass, request.expected_status)
        before = id_pass.status
        if to_status not in TRANSITIONS[before]:
            raise refusals.no_transition(id_pass, to_status, TRANSITIONS[before])
        self._ledger.move(id_pass, to_status)
        answer = service_pb.AdvanceResponse(id_pass=id_pass, reference=self._ledger.reference)
        self._ledger.record(id_pass, before, request.request_id)
        self._ledger.keep(request.request_id, content, answer)
        return answer

    def get(self, request: service_pb.GetRequest) -> service_pb.GetResponse:
        fields = Fields()
        pass_id = fields.uuid("id", request.id)
        fields.check()
        return service_pb.GetResponse(
            id_pass=self._ledger.found(pass_id), reference=self._ledger.reference
        )

    def account(self, _request: service_pb.GetAccountRequest) -> pb.Account:
        return pb.Account(
            id=ACCOUNT,
            slot_limit=self._ledger.slot_limit,
            slots_in_use=self._ledger.slots_in_use(),
            fee=money_message(self._ledger.fee),
            fees_charged=money_message(Money(self._ledger.fee.currency, self._ledger.charged)),
            fees_refunded=money_message(Money(self._ledger.fee.currency, self._ledger.refunded)),
            last_sequence=len(self._ledger.events),
            history=self._ledger.history,
        )

    def list_(self, request: service_pb.ListRequest) -> service_pb.ListResponse:
        fields = Fields()
        fields.statuses("statuses", request.statuses)
        fields.text("applicant_reference", request.applicant_reference, 128, line=True)
        newest_first = list(reversed(self._ledger.passes.values()))
        start = 0
        if request.page_token:
            ids = [id_pass.id for id_pass in newest_first]
            if request.page_token not in ids:
                fields.wrong("page_token", "is not a next_page_token")
            else:
                start = ids.index(request.page_token) + 1
        fields.check()
        found = [each for each in newest_first[start:] if _matches(each, request)]
        page = found[: request.page_size]
        more = len(found) > len(page)
        return service_pb.ListResponse(
            id_passes=page, next_page_token=page[-1].id if more and page else ""
        )

    def watch(self, request: service_pb.WatchRequest) -> tuple[list[pb.IdPassEvent], bool]:
        """The events after a position, and whether there will be no more."""
        with self.lock:
            self._ledger.expire_overdue()
            found = self._ledger.events[request.after_sequence :]
            if not request.id:
                return found, False
            own = [event for event in found if event.id_pass_id == request.id.lower()]
            return own, self._ledger.passes[request.id.lower()].status not in TRANSITIONS

    def check_watch(self, request: service_pb.WatchRequest) -> None:
        """
        Raises:
            Refused: the watch is not begun.
        """
        fields, position = Fields(), request.after_sequence
        if position < 0:
            fields.wrong("after_sequence", f"{position} is negative")
        if request.id:
            fields.uuid("id", request.id)
        if request.history:
            fields.uuid("history", request.history)
        fields.check()
        with self.lock:
            if request.id:
                self._ledger.found(request.id.lower())
            if position and request.history not in {"", self._ledger.history}:
                raise refusals.history_lost(self._ledger.history, position)
            if position > len(self._ledger.events):
                fields.wrong("after_sequence", f"{position} is ahead of the newest event")
                fields.check()


def _no_webhooks(_fake: Fake, _request: Any) -> Any:
    raise refusals.no_webhooks()


_METHODS: dict[str, Callable[[Fake, Any], Any]] = {
    "CancelIdPass": Fake.cancel,
    "BatchCancelIdPasses": Fake.batch_cancel,
    "RegisterIdPass": Fake.register,
    "AdvanceIdPass": Fake.advance,
    "GetIdPass": Fake.get,
    "GetAccount": Fake.account,
    "ListIdPasses": Fake.list_,
}


def _receipt(id_pass: pb.IdPass, before: int, reference: str) -> service_pb.CancelResponse:
    return service_pb.CancelResponse(
        status=pb.ID_PASS_STATUS_CANCELLED,
        fee_refunded=id_pass.fee_refunded,
        reference=reference,
        refund=id_pass.fee if id_pass.fee_refunded else None,
        previous_status=before,  # type: ignore[arg-type]
        cancel_time=id_pass.end_time,
    )


def _matches(id_pass: pb.IdPass, request: service_pb.ListRequest) -> bool:
    idle = not request.HasField("idle_before") or (
        id_pass.update_time.ToNanoseconds() < request.idle_before.ToNanoseconds()
    )
    wanted = request.applicant_reference in {"", id_pass.applicant_reference}
    return idle and wanted and (not request.statuses or id_pass.status in request.statuses)
