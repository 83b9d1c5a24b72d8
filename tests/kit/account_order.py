"""Whether all that an account's callers saw fits the order of its events and real time.

Every call has a position in that order: a change the one of its own event, everything else one at
which its answer was true. Whoever calls after an answer came must not be told of an earlier
position than that answer had. The earliest position that a call may have is as good as any other:
it leaves the most to those that follow. So one pass through time, each call given the earliest,
decides it.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from google.protobuf.message import Message

from idpass.v1 import id_pass_pb2 as pb
from idpass.v1 import id_pass_service_pb2 as service_pb
from kit.event_log import NAME, EventLog, as_told_by_events, micros
from kit.pass_rules import ENDED, NEXT, REFUNDED
from kit.recorded import Item, Made, Refused, items

Fits = Callable[[int], bool]


class Delivery(NamedTuple):
    """An event as a watcher got it.

    Attributes:
        at: nanoseconds on the clock of all callers.
    """

    at: int
    event: pb.IdPassEvent


@dataclass
class Stream:
    """One stream of a watcher.

    Attributes:
        request: how it was opened.
        began: when.
        got: in order.
        complete: whether the server ended it with OK.
    """

    request: service_pb.WatchRequest
    began: int
    got: list[Delivery]
    complete: bool = False


class _Placed(NamedTuple):
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


def problems(log: EventLog, calls: Sequence[Made], streams: Iterable[Stream]) -> list[str]:
    """What does not fit.

    Args:
        log: of the account, as long as it got.
        calls: all that were made.
        streams: of all watchers.
    """
    return _Order(log, calls, list(streams)).check()


class _Order:
    def __init__(self, log: EventLog, calls: Sequence[Made], streams: list[Stream]) -> None:
        self._log = log
        self._calls = calls
        self._streams = streams
        self._wrong = list(log.wrong)
        self._owned: set[int] = set()

    def check(self) -> list[str]:
        placed = [self._place(made) for made in self._calls if made.settled]
        placed += self._unanswered()
        for stream in self._streams:
            self._check_stream(stream)
        self._check_time(placed)
        return self._wrong

    # -- what an answer says of its position

    def _place(self, made: Made) -> _Placed:
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
        return _Placed(made, fits=fits)

    def _place_registration(
        self,
        made: Made,
        request: service_pb.RegisterRequest,
        answer: service_pb.RegisterResponse,
    ) -> _Placed:
        tests = [self._leads_to(answer.id_pass)]
        if request.supersedes:
            prior = service_pb.CancelRequest(id=request.supersedes)
            tests.insert(0, self._is_cancellation(Item(prior, answer.superseded)))
        return self._own(made, answer.reference, tests)

    def _place_batch(self, made: Made) -> _Placed:
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
            return _Placed(made, fits=lambda position: all(each(position) for each in fits))
        placed = self._own(made, reference, tests)
        within = range(placed.first - 1, placed.last + 1)
        if placed.first and not all(any(map(each, within)) for each in fits):
            self._tell(made, "is refused in part for what was not so", within)
        return placed

    def _own(self, made: Made, reference: str, tests: list[Fits]) -> _Placed:
        """A change: it is where its events are."""
        sequences = self._log.calls.get(reference, [])
        if len(sequences) != len(tests):
            self._tell(made, f"was answered, and has the events {sequences}")
            return _Placed(made)
        if not all(test(each) for test, each in zip(tests, sequences, strict=True)):
            self._tell(made, "was answered otherwise than its events say", sequences)
        self._owned.update(sequences)
        request_id = getattr(made.request, "request_id", "")
        if request_id and self._log.receipts.get(request_id) != sequences[-1]:
            self._tell(made, "has left no receipt", sequences)
        return _Placed(made, sequences[0], sequences[-1])

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

    # -- what nobody was told

    def _unanswered(self) -> list[_Placed]:
        """Events whose calls got no answer, each with the first call that may have made it."""
        found = []
        for sequence, event in enumerate(self._log.events, start=1):
            if sequence in self._owned or sequence in self._log.inner:
                continue
            first = self._log.calls[event.reference][0]
            makers = [made for made in self._calls if not made.ended and _may_make(made, event)]
            if makers:
                maker = min(makers, key=lambda made: made.began)
                found.append(_Placed(maker, first, sequence))
            else:
                self._wrong.append(f"nobody has asked for event {sequence}: {event}")
        return found

    # -- watchers

    def _check_stream(self, stream: Stream) -> None:
        asked = stream.request
        expected = [
            event
            for event in self._log.events[asked.after_sequence :]
            if not asked.id or event.id_pass_id == asked.id
        ]
        got = [each.event for each in stream.got]
        if got != expected[: len(got)]:
            sequences = [event.sequence for event in got]
            self._wrong.append(f"a watcher after {asked} got {sequences}")
        ended = bool(asked.id) and self._log.status(asked.id, self._log.newest) in ENDED
        if stream.complete and not (ended and len(got) == len(expected)):
            self._wrong.append(f"a stream after {asked} ended after {len(got)} events")

    # -- real time

    def _check_time(self, placed: list[_Placed]) -> None:
        """Goes through time with the position that everyone must be beyond by then."""
        moments: list[tuple[int, int, int, _Placed | None]] = []
        for number, each in enumerate(placed):
            moments.append((each.made.began, 0, number, each))
            if each.made.ended is not None:
                moments.append((each.made.ended, 1, number, each))
        for stream in self._streams:
            moments += [(each.at, 2, each.event.sequence, None) for each in stream.got]
        moments.sort(key=lambda moment: moment[:3])
        reached = 0
        floors: dict[int, int] = {}
        for _, kind, number, place in moments:
            if place is None:
                reached = max(reached, number)
            elif kind == 0:
                floors[number] = reached
                if place.first and reached >= place.first:
                    self._tell(place.made, f"made event {place.first} after {reached} was seen")
            else:
                reached = max(reached, self._earliest(place, floors[number]))

    def _earliest(self, placed: _Placed, floor: int) -> int:
        if placed.fits is None:
            return placed.last
        for position in range(floor, self._log.newest + 1):
            if position not in self._log.inner and placed.fits(position):
                return position
        before = [
            position
            for position in range(floor)
            if position not in self._log.inner and placed.fits(position)
        ]
        inner = [position for position in self._log.inner if placed.fits(position)]
        why = "fits no position"
        if inner:
            why = f"saw the half of a change, at {inner}"
        elif before:
            why = f"was true at {before[-1]} and came after {floor} was seen"
        self._tell(placed.made, why)
        return floor

    def _tell(self, made: Made, what: str, where: Iterable[int] = ()) -> None:
        at = f" {list(where)}" if where else ""
        told = type(made.request).__name__, made.request, made.answer
        self._wrong.append(f"{what}{at}: {told}")


def _may_make(made: Made, event: pb.IdPassEvent) -> bool:
    """Whether a call that got no answer may have made an event."""
    request = made.request
    if isinstance(request, service_pb.RegisterRequest):
        return request.request_id == event.request_id and NAME[event.to_status] == "new"
    if isinstance(request, service_pb.AdvanceRequest):
        moves = request.id == event.id_pass_id and request.to_status == event.to_status
        return moves and request.request_id == event.request_id
    return NAME[event.to_status] == "cancelled" and any(
        (item.request.id, item.request.request_id) == (event.id_pass_id, event.request_id)
        for item in items(made)
    )
