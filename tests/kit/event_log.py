"""What an account's events say of its passes and totals, at each position between two events.

The position after an event has that event's sequence. Events of one call are of one transaction,
so that nobody may see a position between two of them.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Final, NamedTuple

from google.type.money_pb2 import Money

from idpass.v1 import id_pass_pb2 as pb
from kit.pass_rules import ENDED, NEXT, REFUNDED
from kit.support import STATUS

NAME: Final = {number: name for name, number in STATUS.items()} | {0: ""}
FEE: Final = Money(currency_code="AUD", units=4, nanos=500_000_000)


def micros(money: Money) -> int:
    found: int = money.units * 1_000_000 + money.nanos // 1_000
    return found


class Totals(NamedTuple):
    """An account's, at one position; money in millionths."""

    slots: int = 0
    charged: int = 0
    refunded: int = 0


class EventLog:
    """
    Args:
        events: of an account, all.

    Attributes:
        events: as given.
        wrong: what no such log may have.
        totals: at each position.
        inner: positions within a transaction.
        receipts: the sequence of the event with each request_id.
        calls: sequences of the events of each call, by its reference.
    """

    def __init__(self, events: Sequence[pb.IdPassEvent]) -> None:
        self.events = list(events)
        self.wrong: list[str] = []
        self.totals = [Totals()]
        self.inner: set[int] = set()
        self.receipts: dict[str, int] = {}
        self.calls: dict[str, list[int]] = defaultdict(list)
        self._views: dict[str, list[tuple[int, pb.IdPass]]] = defaultdict(list)
        for number, event in enumerate(self.events, start=1):
            if event.sequence != number:
                self.wrong.append(f"event {event.sequence} stands where {number} should")
            self._add(number, event)
        self._link()

    @property
    def newest(self) -> int:
        return len(self.events)

    @property
    def passes(self) -> list[str]:
        """The ids of all passes, newest first."""
        return sorted(self._views, reverse=True)

    def view(self, pass_id: str, position: int) -> pb.IdPass | None:
        """A pass at a position; None if it is not there yet."""
        found = None
        for sequence, view in self._views.get(pass_id, ()):
            if sequence > position:
                break
            found = view
        return found

    def status(self, pass_id: str, position: int) -> str:
        """Its status, or "" if it is not there yet."""
        view = self.view(pass_id, position)
        return NAME[view.status] if view is not None else ""

    def has_receipt(self, request_id: str, position: int) -> bool:
        return 0 < self.receipts.get(request_id, 0) <= position

    def _add(self, sequence: int, event: pb.IdPassEvent) -> None:
        before = self.status(event.id_pass_id, sequence)
        after = NAME[event.to_status]
        if NAME[event.from_status] != before:
            self.wrong.append(f"event {sequence} does not follow {before!r}: {event}")
        if after not in NEXT.get(before, ("new",) if not before else ()):
            self.wrong.append(f"event {sequence} leaves {before!r} for {after!r}")
        refund = micros(FEE) if after == "cancelled" and before in REFUNDED else 0
        if micros(event.refund) != refund:
            self.wrong.append(f"event {sequence} refunds {micros(event.refund)}, not {refund}")
        if event.request_id:
            if event.request_id in self.receipts:
                self.wrong.append(f"event {sequence} uses {event.request_id} again")
            self.receipts[event.request_id] = sequence
        call = self.calls[event.reference]
        if call and call[-1] == sequence - 1:
            self.inner.add(sequence - 1)
        elif call:
            self.wrong.append(f"events {call} and {sequence} are of one call, others between them")
        call.append(sequence)
        slots, charged, refunded = self.totals[-1]
        slots += (after == "new") - (after in ENDED)
        charged += micros(FEE) if after == "new" else 0
        self.totals.append(Totals(slots, charged, refunded + micros(event.refund)))
        self._views[event.id_pass_id].append((sequence, self._as_it_is(sequence, event)))

    def _as_it_is(self, sequence: int, event: pb.IdPassEvent) -> pb.IdPass:
        """The pass after an event, as far as events tell."""
        view = pb.IdPass(id=event.id_pass_id, create_time=event.event_time)
        if (before := self.view(event.id_pass_id, sequence)) is not None:
            view.CopyFrom(before)
        view.status = event.to_status
        view.update_time.CopyFrom(event.event_time)
        view.caller = event.caller
        if NAME[event.to_status] == "in_progress":
            view.consent_time.CopyFrom(event.event_time)
        if NAME[event.to_status] in ENDED:
            view.end_time.CopyFrom(event.event_time)
        if NAME[event.to_status] == "cancelled":
            view.fee_refunded = event.HasField("refund")
            view.cancellation.reason = event.reason
            view.cancellation.cancel_time.CopyFrom(event.event_time)
            view.cancellation.caller = event.caller
        return view

    def _link(self) -> None:
        """Links each pass that supersedes another with that one: they are of one call."""
        for prior, new in zip(self.events, self.events[1:], strict=False):
            if prior.reference == new.reference and NAME[new.to_status] == "new":
                for _, view in self._views[new.id_pass_id]:
                    view.supersedes = prior.id_pass_id
                self._views[prior.id_pass_id][-1][1].superseded_by = new.id_pass_id


def as_told_by_events(id_pass: pb.IdPass) -> pb.IdPass:
    """A pass without what events do not tell."""
    told = pb.IdPass()
    told.CopyFrom(id_pass)
    for field in ("account", "fee", "applicant_reference", "expire_time"):
        told.ClearField(field)
    told.cancellation.ClearField("note")
    if not id_pass.HasField("cancellation"):
        told.ClearField("cancellation")
    return told
