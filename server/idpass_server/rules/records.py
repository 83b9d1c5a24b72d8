"""What is stored: accounts, passes and events.

Times (`_us`) are in microseconds since the epoch, UTC; amounts (`_micros`) are in millionths of the
currency's unit. Records are NamedTuples because stores build them from rows by the thousand
(`Pass._make(row)`). The field order of Account, Pass and Event is the column order of their tables.
"""

from enum import StrEnum
from typing import NamedTuple


class Status(StrEnum):
    """Where a pass stands. `domain.TRANSITIONS` says which statuses follow which."""

    NEW = "new"
    OPENED = "opened"
    IN_PROGRESS = "in_progress"
    COMPLETE = "complete"
    EXPIRED = "expired"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Reason(StrEnum):
    """Why a pass was cancelled. For people and reports: it never affects the refund."""

    UNSPECIFIED = ""
    ABANDONED = "abandoned"
    SUPERSEDED = "superseded"
    DUPLICATE = "duplicate"
    REQUESTED_BY_APPLICANT = "requested_by_applicant"
    FRAUD_SUSPECTED = "fraud_suspected"
    OTHER = "other"


class Money(NamedTuple):
    """An amount in one currency.

    Attributes:
        currency: ISO 4217 code, such as "AUD".
        micros: millionths of the currency's unit.
    """

    currency: str
    micros: int


class Account(NamedTuple):
    """The tenant that owns passes.

    Attributes:
        name: unique, as the callers file gives it.
        slot_limit: number of passes that may be in flight.
        slots_in_use: number of passes in flight.
        currency: ISO 4217 code of all its amounts.
        fee_micros: what registering a pass costs now.
        charged_micros: sum of all fees ever charged.
        refunded_micros: sum of all fees ever given back.
        last_sequence: sequence number of its newest event, or where its events begin: 0, or more
            in the history of a restored backup.
        registrations_per_day: quota of registrations in a UTC day; 0 for none.
        registration_day: UTC day of its newest registration, in days since the epoch.
        registrations_of_day: number of passes registered in that day.
        disabled: 1 while its passes may only expire, else 0.
    """

    name: str
    slot_limit: int
    slots_in_use: int
    currency: str
    fee_micros: int
    charged_micros: int
    refunded_micros: int
    last_sequence: int
    registrations_per_day: int = 0
    registration_day: int = 0
    registrations_of_day: int = 0
    disabled: int = 0


class Pass(NamedTuple):
    """One ID Pass.

    Attributes:
        account: name of the account that owns it.
        id: UUID in lower case.
        status: a Status; a plain string when it comes from a row.
        currency: ISO 4217 code of the fee.
        fee_micros: what registering it cost.
        fee_refunded: 1 when the fee was given back, else 0.
        applicant_reference: the business's own name for the applicant, or "".
        supersedes: UUID of the pass that this one replaced, or None.
        superseded_by: UUID of the pass that replaced this one, or None.
        create_time_us: when it was registered.
        update_time_us: when `status` last changed.
        expire_time_us: when the link stops being valid.
        consent_time_us: when IN_PROGRESS was entered, or None.
        end_time_us: when it became terminal; None in flight.
        cancel_reason: a Reason; None unless it is cancelled.
        cancel_note: free text; None unless it is cancelled.
        caller: who made the latest change of status.
        event_sequence: sequence number of that change's event.
    """

    account: str
    id: str
    status: str
    currency: str
    fee_micros: int
    fee_refunded: int
    applicant_reference: str
    supersedes: str | None
    superseded_by: str | None
    create_time_us: int
    update_time_us: int
    expire_time_us: int
    consent_time_us: int | None
    end_time_us: int | None
    cancel_reason: str | None
    cancel_note: str | None
    caller: str
    event_sequence: int

    def overdue(self, due_us: int) -> bool:
        """Whether the pass is in flight with an expire_time up to `due_us`."""
        return self.end_time_us is None and self.expire_time_us <= due_us


class Event(NamedTuple):
    """The durable record of one change of status: audit trail, outbox and, by request_id, receipt.

    An erasure is recorded as well: it goes from the pass's status to the same status.

    Attributes:
        account: name of the account that owns the pass.
        sequence: 1, 2, 3, … within the account, in commit order, without gaps but those of
            `positions`.
        id_pass_id: UUID of the pass.
        from_status: None when the pass was registered.
        to_status: the status entered.
        event_time_us: when the change was decided.
        caller: who made it; `commands.SWEEPER` where an overdue pass expired by itself.
        request_id: idempotency key of the call, or None.
        request_digest: fingerprint of the call's content; None without a request_id, and
            `erasure.ERASED` where the content told of the applicant and was erased.
        reference: UUID of the call.
        currency: ISO 4217 code of the amounts.
        charge_micros: fee charged by a registration; None for any other change.
        refund_micros: fee given back, or None.
        reason: a Reason; "" unless the pass was cancelled.
        previous_sequence: of the previous event of the same pass; None for a registration.
        erased: 1 when what the pass said of its applicant was blanked, else 0.
    """

    account: str
    sequence: int
    id_pass_id: str
    from_status: str | None
    to_status: str
    event_time_us: int
    caller: str
    request_id: str | None
    request_digest: str | None
    reference: str
    currency: str
    charge_micros: int | None
    refund_micros: int | None
    reason: str
    previous_sequence: int | None
    erased: int = 0
