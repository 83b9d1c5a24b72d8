"""What the client's methods return: small immutable records.

What is written about people is left out of a record's repr, which ends up in logs.
"""

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from idpass._words import CancelReason, Status
from idpass.errors import IdPassError


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
    """A pass has been cancelled, and its fee refunded or not.

    Attributes:
        id: UUID of the pass.
        status: always CANCELLED.
        fee_refunded: True if and only if the pass was NEW or OPENED.
        refund: the amount refunded, or None.
        previous_status: the status before the cancellation.
        cancel_time: when the cancellation was decided, in UTC.
        reference: UUID of the call that cancelled the pass; a replay has that of the first call.
        replayed: True if this repeats the first answer: this call changed nothing.
        request_id: gets the same answer again; "" if none was sent.
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
    """The result of one id given to `cancel_many`: either a receipt or an error.

    Attributes:
        id: the id as it was given.
        request_id: what this item was sent with.
        receipt: set if the pass has been cancelled.
        error: set if it has not, and says why.
    """

    id: str
    request_id: str
    receipt: Receipt | None
    error: IdPassError | None


@dataclass(frozen=True)
class Cancellation:
    """How a pass was cancelled.

    Attributes:
        note: free text of the caller; not part of the repr.
        cancel_time: when the cancellation was decided, in UTC.
        caller: name of the caller that cancelled.
    """

    reason: CancelReason
    note: str = field(repr=False)
    cancel_time: datetime
    caller: str


@dataclass(frozen=True)
class IdPass:
    """One ID Pass. Times are in UTC; None means not yet.

    Attributes:
        id: UUID in lower case.
        account: the account that owns the pass.
        fee: the fee for registering it.
        fee_refunded: True if and only if the fee was refunded.
        applicant_reference: the business's own name for the applicant, or ""; not part of the repr.
        supersedes: the pass that this one replaced, or None.
        superseded_by: the pass that replaced this one, or None.
        update_time: when `status` last changed.
        expire_time: when the link stops being valid.
        consent_time: when the pass entered IN_PROGRESS.
        end_time: when the pass became terminal.
        cancellation: set if and only if the pass is CANCELLED.
        caller: who brought the pass into its status; `sweeper` if the service itself expired it.
    """

    id: str
    account: str
    status: Status
    fee: Money
    fee_refunded: bool
    applicant_reference: str = field(repr=False)
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
    """A pass has been registered.

    Attributes:
        id_pass: the pass as it was when registered.
        superseded: the cancellation of the pass that it replaces, or None.
        reference: UUID of the call that registered it; a replay has that of the first call.
        replayed: True if this repeats the first answer: this call changed nothing.
        request_id: gets the same answer again.
    """

    id_pass: IdPass
    superseded: Receipt | None
    reference: str
    replayed: bool
    request_id: str


@dataclass(frozen=True)
class AdvanceReceipt:
    """A pass has advanced.

    Attributes:
        id_pass: the pass as it was right after the change.
        reference: UUID of the call that advanced it; a replay has that of the first call.
        replayed: True if this repeats the first answer: this call changed nothing.
        request_id: gets the same answer again.
    """

    id_pass: IdPass
    reference: str
    replayed: bool
    request_id: str


@dataclass(frozen=True)
class Event:
    """The durable record of one change of status, or of an erasure.

    Attributes:
        sequence: 1, 2, 3, … within the account, in commit order, without gaps. After a backup was
            restored it goes on with a larger number.
        id: UUID of the pass.
        from_status: None if the pass was registered.
        event_time: when the change was decided, in UTC.
        caller: who made the change; `sweeper` if the service itself expired or erased the pass,
            `operator` if its operator erased it.
        request_id: what the call that made the change was sent with, or "".
        refund: the amount refunded, or None.
        reason: why the pass was cancelled; None for any other change.
        erased: True if the operator erased the pass's `applicant_reference` and note; its status
            is the same before and after.
        reference: UUID of the call that made the change, as in its answer and in the service's
            log; "" from a service that does not tell it yet.
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
    erased: bool = False
    reference: str = ""


@dataclass(frozen=True)
class Account:
    """The tenant that owns the caller's passes.

    Attributes:
        slot_limit: how many passes may be in flight at once.
        slots_in_use: how many passes are in flight.
        fee: the current fee for registering a pass.
        fees_charged: the sum of all fees charged.
        fees_refunded: the sum of all fees refunded.
        last_sequence: sequence of the newest event; `watch(after_sequence=...)` with it yields
            only what happens from now on.
        history: id of the history that the events belong to; restoring the database from a backup
            begins another.
        oldest_sequence: the smallest position after which no event is missing; 0 unless old passes
            were purged.
    """

    id: str
    slot_limit: int
    slots_in_use: int
    fee: Money
    fees_charged: Money
    fees_refunded: Money
    last_sequence: int
    history: str = ""
    oldest_sequence: int = 0
