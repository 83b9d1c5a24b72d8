"""What the fake service remembers: passes, events, receipts, sums. See `_fake`."""

from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, Final, TypeVar

from google.type import money_pb2

from idpass import _fake_refusals as refusals
from idpass._arguments import new_request_id
from idpass._records import Money
from idpass._words import Status
from idpass.v1 import id_pass_pb2 as pb
from idpass.v1 import id_pass_service_pb2 as service_pb

ACCOUNT: Final = "demo"
CALLER: Final = "demo"
SWEEPER: Final = "sweeper"

NEW, OPENED, IN_PROGRESS, COMPLETE, EXPIRED, FAILED, CANCELLED = (word.number for word in Status)
TRANSITIONS: Final = {
    NEW: (OPENED, EXPIRED, CANCELLED),
    OPENED: (IN_PROGRESS, EXPIRED, CANCELLED),
    IN_PROGRESS: (COMPLETE, FAILED, EXPIRED, CANCELLED),
}
REFUNDED: Final = frozenset({NEW, OPENED})

Answer = TypeVar(
    "Answer", service_pb.CancelResponse, service_pb.RegisterResponse, service_pb.AdvanceResponse
)


class Ledger:
    """One account.

    Attributes:
        history: id of the history that the events belong to.
        reference: of the call under way.
        clock_offset: of its time to the machine's.
        passes: by id, the oldest first.
        events: all of them, in order.
    """

    def __init__(self, slot_limit: int, fee: Money) -> None:
        self.slot_limit = slot_limit
        self.fee = fee
        self.history = new_request_id()
        self.reference = ""
        self.clock_offset = timedelta()
        self.passes: dict[str, pb.IdPass] = {}
        self.events: list[pb.IdPassEvent] = []
        self.charged = self.refunded = Decimal()
        self._receipts: dict[str, tuple[object, Any]] = {}

    def found(self, pass_id: str) -> pb.IdPass:
        if pass_id not in self.passes:
            raise refusals.not_found(pass_id)
        return self.passes[pass_id]

    def first(self, request_id: str, content: object, kind: type[Answer]) -> Answer | None:
        """The first answer to a request_id, marked as that; None if there is none."""
        if request_id not in self._receipts:
            return None
        first_content, first = self._receipts[request_id]
        if first_content != content:
            raise refusals.request_id_reused(request_id)
        again = kind()
        again.CopyFrom(first)
        again.replayed = True
        return again

    def keep(self, request_id: str, content: object, answer: Any) -> None:
        if request_id:
            self._receipts[request_id] = (content, copy_of(answer))

    @staticmethod
    def check_open(id_pass: pb.IdPass, expected: int = 0) -> None:
        if id_pass.status not in TRANSITIONS:
            raise refusals.ended(id_pass)
        if expected and expected != id_pass.status:
            raise refusals.pass_changed(id_pass, expected)

    def made(self, days: int, applicant_reference: str, supersedes: str) -> pb.IdPass:
        now = self.now()
        made = pb.IdPass(
            id=new_request_id(),
            account=ACCOUNT,
            status=pb.ID_PASS_STATUS_NEW,
            fee=money_message(self.fee),
            applicant_reference=applicant_reference,
            supersedes=supersedes,
            caller=CALLER,
        )
        made.create_time.FromDatetime(now)
        made.update_time.FromDatetime(now)
        made.expire_time.FromDatetime(now + timedelta(days=days))
        return made

    def cancelled(self, id_pass: pb.IdPass, reason: int, note: str) -> None:
        id_pass.fee_refunded = id_pass.status in REFUNDED
        self.move(id_pass, CANCELLED)
        how = id_pass.cancellation
        how.reason, how.note, how.caller = reason, note, CALLER  # type: ignore[assignment]
        how.cancel_time.CopyFrom(id_pass.end_time)

    def move(self, id_pass: pb.IdPass, to_status: int, caller: str = CALLER) -> None:
        id_pass.status = to_status  # type: ignore[assignment]
        id_pass.caller = caller
        id_pass.update_time.FromDatetime(self.now())
        if to_status == IN_PROGRESS:
            id_pass.consent_time.CopyFrom(id_pass.update_time)
        if to_status not in TRANSITIONS:
            id_pass.end_time.CopyFrom(id_pass.update_time)

    def record(self, id_pass: pb.IdPass, before: int, request_id: str = "") -> None:
        event = pb.IdPassEvent(
            sequence=len(self.events) + 1,
            id_pass_id=id_pass.id,
            from_status=before,  # type: ignore[arg-type]
            to_status=id_pass.status,
            event_time=id_pass.update_time,
            caller=id_pass.caller,
            request_id=request_id,
            reason=id_pass.cancellation.reason,
            reference=self.reference,
        )
        if id_pass.fee_refunded:
            event.refund.CopyFrom(id_pass.fee)
            self.refunded += self.fee.amount
        self.events.append(event)

    def expire_overdue(self) -> None:
        now = self.now()
        for id_pass in self.passes.values():
            before = id_pass.status
            if before in TRANSITIONS and id_pass.expire_time.ToDatetime(timezone.utc) <= now:
                self.move(id_pass, EXPIRED, SWEEPER)
                id_pass.end_time.CopyFrom(id_pass.expire_time)
                self.record(id_pass, before)

    def slots_in_use(self) -> int:
        return sum(id_pass.status in TRANSITIONS for id_pass in self.passes.values())

    def now(self) -> datetime:
        return datetime.now(timezone.utc) + self.clock_offset


def copy_of(message: Any) -> Any:
    made = type(message)()
    made.CopyFrom(message)
    return made


def money_message(money: Money) -> money_pb2.Money:
    units = int(money.amount)
    nanos = int((money.amount - units) * 1_000_000_000)
    return money_pb2.Money(currency_code=money.currency, units=units, nanos=nanos)
