"""Where in the order of an account's events a call's answer is true."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from google.protobuf.message import Message

from idpass.v1 import id_pass_pb2 as pb
from idpass.v1 import id_pass_service_pb2 as service_pb
from kit.event_log import NAME, EventLog, as_told_by_events, micros
from kit.pass_rules import ENDED, NEXT, REFUNDED
from kit.recorded import Item, Made, Refused, items

Fits = Callable[[int], bool]


class Placed(NamedTuple):
    """What a call's answer says of its position.

    Attributes:
        made: the call.
        first, last: of its own events, if it has any.
        fits: for any other, whether the answer is true at a position.
    """

    made: Made
    first: int = 0
    last: int = 0
    fits: Fits | None = None


class Answers:
    """
    Args:
        log: of the account.

    Attributes:
        wrong: answers that the log contradicts.
        owned: sequences of the events that answers tell of.
    """

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self.wrong: list[str] = []
        self.owned: set[int] = set()

    def place(self, made: Made) -> Placed:
        request, answer = made.request, made.answer
        match request, answer:
            case service_pb.BatchCancelRequest(), service_pb.BatchCancelResponse():
                return self._place_batch(made)
            case service_pb.CancelRequest(), service_pb.CancelResponse():
                item = Item(request, answer)
                if not (request.validate_only or answer.replayed):
                    return self._own(made, answer.reference, [self._is_cancellation(item)])
                fits = self._cancelled(item)
            case service_pb.AdvanceRequest(), service_pb.AdvanceResponse():
                if not answer.replayed:
                    return self._own(made, answer.reference, [self._leads_to(answer.id_pass)])
                fits = self._repeats(request, answer.id_pass)
            case service_pb.RegisterRequest(), service_pb.RegisterResponse():
                if not answer.replayed:
                    return self._place_registration(made, request, answer)
                fits = self._repeats(request, answer.id_pass)
            case _, Refused():
                fits = self._refusal(request, answer)
            case _:
                fits = self._read(made)
        return Placed(made, fits=fits)

    def _place_registration(
        self,
        made: Made,
        request: service_pb.RegisterRequest,
        answer: service_pb.RegisterResponse,
    ) -> Placed:
        tests = [self._leads_to(answer.id_pass)]
        if request.supersedes:
            prior = service_pb.CancelRequest(id=request.supersedes)
            tests.insert(0, self._is_cancellation(Item(prior, answer.superseded)))
        return self._own(made, answer.reference, tests)

    def _place_batch(self, made: Made) -> Placed:
        fits: list[Fits] = []
        tests: list[Fits] = []
        reference = ""
        for item in items(made):
            if isinstance(item.answer, Refused):
                fits.append(self._refusal(item.request, item.answer))
            elif item.answer is not None and (item.answer.replayed or item.request.validate_only):
                fits.append(self._cancelled(item))
            elif item.answer is not None:
                tests.append(self._is_cancellation(item))
                reference = item.answer.reference
        if not tests:
            return Placed(made, fits=lambda position: all(each(position) for each in fits))
        placed = self._own(made, reference, tests)
        within = range(placed.first - 1, placed.last + 1)
        if placed.first and not all(any(map(each, within)) for each in fits):
            self._tell(made, "is refused in part for what was not so", within)
        return placed

    def _own(self, made: Made, reference: str, tests: list[Fits]) -> Placed:
        """A change: it is where its events are."""
        sequences = self._log.calls.get(reference, [])
        if len(sequences) != len(tests):
            self._tell(made, f"was answered, and has the events {sequences}")
            return Placed(made)
        if not all(test(each) for test, each in zip(tests, sequences, strict=True)):
            self._tell(made, "was answered otherwise than its events say", sequences)
        self.owned.update(sequences)
        request_id = getattr(made.request, "request_id", "")
        if request_id and self._log.receipts.get(request_id) != sequences[-1]:
            self._tell(made, "has left no receipt", sequences)
        return Placed(made, sequences[0], sequences[-1])

    def _is_cancellation(self, item: Item) -> Fits:
        answer = item.answer
        assert isinstance(answer, service_pb.CancelResponse)

        def fits(sequence: int) -> bool:
            event = self._log.events[sequence - 1]
            return (
                event.id_pass_id == item.request.id
                and NAME[event.to_status] == "cancelled"
                and event.from_status == answer.previous_status
                and event.refund == answer.refund
                and answer.fee_refunded == (NAME[event.from_status] in REFUNDED)
                and event.event_time == answer.cancel_time
                and event.reference == answer.reference
            )

        return fits

    def _leads_to(self, id_pass: pb.IdPass) -> Fits:
        def fits(sequence: int) -> bool:
            return self._log.view(id_pass.id, sequence) == as_told_by_events(id_pass)

        return fits

    def _cancelled(self, item: Item) -> Fits:
        """A cancellation that was tried only, or repeats an earlier answer."""
        request, answer = item
        assert isinstance(answer, service_pb.CancelResponse)
        if not answer.replayed:

            def would_be(position: int) -> bool:
                before = self._log.status(request.id, position)
                return (
                    before == NAME[answer.previous_status]
                    and "cancelled" in NEXT.get(before, ())
                    and answer.fee_refunded == (before in REFUNDED)
                )

            return would_be
        receipt = self._log.receipts.get(request.request_id, 0)
        true = bool(receipt) and self._is_cancellation(item)(receipt)
        return lambda position: true and position >= receipt

    def _repeats(
        self, request: service_pb.RegisterRequest | service_pb.AdvanceRequest, told: pb.IdPass
    ) -> Fits:
        receipt = self._log.receipts.get(request.request_id, 0)
        true = bool(receipt) and self._leads_to(told)(receipt)
        return lambda position: true and position >= receipt

    def _refusal(self, request: Message, refused: Refused) -> Fits:
        log, reason, metadata = self._log, refused.reason, refused.metadata
        request_id = getattr(request, "request_id", "")
        pass_id = getattr(request, "id", "") or getattr(request, "supersedes", "")
        if reason == "REQUEST_ID_REUSED":
            return lambda position: log.has_receipt(request_id, position)
        if reason == "NO_FREE_SLOT":
            limit = int(metadata["slotLimit"])
            return lambda position: log.totals[position].slots >= limit

        def fits(position: int) -> bool:
            status = log.status(pass_id, position)
            if reason == "PASS_NOT_FOUND":
                return not status
            if log.has_receipt(request_id, position) or status != metadata.get("status"):
                return False
            if reason == "TRANSITION_NOT_ALLOWED":
                assert isinstance(request, service_pb.AdvanceRequest)
                return NAME[request.to_status] not in NEXT[status]
            if reason == "PASS_CHANGED":
                assert isinstance(request, service_pb.AdvanceRequest | service_pb.CancelRequest)
                return NAME[request.expected_status] != status
            if reason == "REFUND_NOT_AVAILABLE":
                return status not in REFUNDED
            return ENDED.get(status) == reason

        return fits

    def _read(self, made: Made) -> Fits:
        log, answer = self._log, made.answer
        if isinstance(answer, service_pb.GetResponse):
            seen = as_told_by_events(answer.id_pass)
            return lambda position: log.view(seen.id, position) == seen
        if isinstance(answer, pb.Account):
            totals = (
                answer.slots_in_use,
                micros(answer.fees_charged),
                micros(answer.fees_refunded),
            )
            return lambda position: (
                position == answer.last_sequence and log.totals[position] == totals
            )
        assert isinstance(answer, service_pb.ListResponse)
        return self._page(made, answer)

    def _page(self, made: Made, answer: service_pb.ListResponse) -> Fits:
        """A page is one look at the passes that it could have."""
        request = made.request
        assert isinstance(request, service_pb.ListRequest)
        seen = list(map(as_told_by_events, answer.id_passes))
        end = answer.id_passes[-1].id if answer.next_page_token and seen else ""
        covered = [
            each
            for each in self._log.passes
            if (not made.above or each < made.above) and each >= end
        ]
        wanted = set(request.statuses)

        def fits(position: int) -> bool:
            views = (self._log.view(each, position) for each in covered)
            there = [view for view in views if view is not None]
            return seen == [view for view in there if not wanted or view.status in wanted]

        return fits

    def _tell(self, made: Made, what: str, where: Iterable[int] = ()) -> None:
        self.wrong.append(told(made, f"{what} {list(where)}"))


def told(made: Made, what: str) -> str:
    """Says what is wrong with a call."""
    return f"{what}: {type(made.request).__name__}, {made.request}, {made.answer}"
