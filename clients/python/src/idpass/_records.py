"""What the client's methods return: small immutable records and the words in them."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from idpass.errors import IdPassError


class Word(str, Enum):
    """A member is its lower-case word: in text, in JSON and in comparisons with strings.

    Attributes:
        number: of the contract's enum.
    """

    number: int

    def __new__(cls, word: str, number: int = 0) -> "Word":  # noqa: PYI034 as in IdPassClient
        member = str.__new__(cls, word)
        member._value_ = word
        member.number = number
        return member

    def __str__(self) -> str:
        return str(self.value)


class Status(Word):
    """Where a pass stands. The last four are terminal: nothing leaves them."""

    NEW = "new", 1
    OPENED = "opened", 2
    IN_PROGRESS = "in_progress", 3
    COMPLETE = "complete", 4
    EXPIRED = "expired", 5
    FAILED = "failed", 6
    CANCELLED = "cancelled", 7


class CancelReason(Word):
    """Why a pass is cancelled. For people and reports: it never affects the refund."""

    UNSPECIFIED = "unspecified", 0
    ABANDONED = "abandoned", 1
    SUPERSEDED = "superseded", 2
    DUPLICATE = "duplicate", 3
    REQUESTED_BY_APPLICANT = "requested_by_applicant", 4
    FRAUD_SUSPECTED = "fraud_suspected", 5
    OTHER = "other", 6


# The words of both, so that a type checker knows them as well.
AnyStatus = (
    Status | Literal["new", "opened", "in_progress", "complete", "expired", "failed", "cancelled"]
)
AnyReason = (
    CancelReason
    | Literal[
        "unspecified",
        "abandoned",
        "superseded",
        "duplicate",
        "requested_by_applicant",
        "fraud_suspected",
        "other",
    ]
)


@dataclass(frozen=True)
class Money:
    """An amount in one currency.

    Attributes:
        currency: ISO 4217 code, such as "AUD".
        amount: in units of the currency, exact, with at least two decimals.
    """

    currency: str
    amount: Decimal

    def __str__(self) -> str:
        return f"{self.currency} {self.amount}"


@dataclass(frozen=True)
class Receipt:
    """That a pass is cancelled, and what came of its fee.

    Attributes:
        id: UUID of the pass.
        status: always CANCELLED.
        fee_refunded: true exactly when the pass was NEW or OPENED.
        refund: the money given back, or None.
        previous_status: what the pass was cancelled from.
        cancel_time: when it was decided, in UTC.
        reference: UUID of the call that cancelled; a replay repeats the first call's.
        replayed: true when this is the first answer again and nothing was changed now.
        request_id: with which the same answer can be had again; "" if none was sent.
    """

    id: str
    status: Status
    fee_refunded: bool
    refund: Money | None
    previous_status: Status | None
    cancel_time: datetime
    reference: str
    replayed: bool
    request_id: str


@dataclass(frozen=True)
class CancelResult:
    """What became of one id given to `cancel_many`: either a receipt or an error.

    Attributes:
        id: as it was given.
        request_id: that this item was sent with.
        receipt: if the pass is cancelled, or None.
        error: why it is not, or None.
    """

    id: str
    request_id: str
    receipt: Receipt | None
    error: "IdPassError | None"


@dataclass(frozen=True)
class Cancellation:
    """How a pass came to be cancelled."""

    reason: CancelReason
    note: str
    cancel_time: datetime
    caller: str


@dataclass(frozen=True)
class IdPass:
    """One ID Pass. Times are in UTC; one that has not come is None.

    Attributes:
        id: UUID in lower case.
        account: that owns the pass.
        fee: what registering it cost.
        fee_refunded: true exactly when the fee was given back.
        applicant_reference: the business's own name for the applicant, or "".
        supersedes: the pass that this one replaced, or None.
        superseded_by: the pass that replaced this one, or None.
        update_time: when `status` last changed.
        expire_time: when the link stops being valid.
        consent_time: when IN_PROGRESS was entered.
        end_time: when the pass became terminal.
        cancellation: set exactly when the pass is CANCELLED.
        caller: who brought the pass into its status; `sweeper` where the service itself let it
            expire.
    """

    id: str
    account: str
    status: Status
    fee: Money
    fee_refunded: bool
    applicant_reference: str
    supersedes: str | None
    superseded_by: str | None
    create_time: datetime
    update_time: datetime
    expire_time: datetime
    consent_time: datetime | None
    end_time: datetime | None
    cancellation: Cancellation | None
    caller: str


@dataclass(frozen=True)
class RegisterReceipt:
    """That a pass is registered.

    Attributes:
        id_pass: as it was when it was registered.
        superseded: what became of the pass that it replaces, or None.
        reference: UUID of the call that registered; a replay repeats the first call's.
        replayed: true when this is the first answer again and nothing was changed now.
        request_id: with which the same answer can be had again.
    """

    id_pass: IdPass
    superseded: Receipt | None
    reference: str
    replayed: bool
    request_id: str


@dataclass(frozen=True)
class AdvanceReceipt:
    """That a pass is moved.

    Attributes:
        id_pass: as it was right after the move.
        reference: UUID of the call that moved; a replay repeats the first call's.
        replayed: true when this is the first answer again and nothing was changed now.
        request_id: with which the same answer can be had again.
    """

    id_pass: IdPass
    reference: str
    replayed: bool
    request_id: str


@dataclass(frozen=True)
class Event:
    """The durable record of one change of status.

    Attributes:
        sequence: 1, 2, 3, … within the account, without gaps, in commit order.
        id: UUID of the pass.
        from_status: None when the pass was registered.
        event_time: when it was decided, in UTC.
        caller: who made the change; `sweeper` where the service itself let a pass expire.
        request_id: of the call that made the change, or "".
        refund: the money given back, or None.
        reason: why the pass was cancelled; None for any other change.
    """

    sequence: int
    id: str
    from_status: Status | None
    to_status: Status
    event_time: datetime
    caller: str
    request_id: str
    refund: Money | None
    reason: CancelReason | None


@dataclass(frozen=True)
class Account:
    """The tenant that owns the caller's passes.

    Attributes:
        slot_limit: how many passes may be in flight at once.
        slots_in_use: how many are.
        fee: what registering a pass costs now.
        fees_charged: all fees ever charged.
        fees_refunded: all fees ever given back.
        last_sequence: of the newest event; `watch(after_sequence=...)` with it sees only news.
    """

    id: str
    slot_limit: int
    slots_in_use: int
    fee: Money
    fees_charged: Money
    fees_refunded: Money
    last_sequence: int
