"""What is stored: accounts, passes and events.

Times are in microseconds since the epoch in UTC, money is in micros (millionths of the
currency's unit). Everything is a NamedTuple: a store makes them from rows by the thousand
(`Pass._make(row)`), and the field order of Account, Pass and Event is the column order of
their tables.
"""

from enum import StrEnum
from typing import NamedTuple


class Status(StrEnum):
    NEW = "new"
    OPENED = "opened"
    IN_PROGRESS = "in_progress"
    COMPLETE = "complete"
    EXPIRED = "expired"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Reason(StrEnum):
    """Why a pass was cancelled; never affects the refund."""

    UNSPECIFIED = ""
    ABANDONED = "abandoned"
    SUPERSEDED = "superseded"
    DUPLICATE = "duplicate"
    REQUESTED_BY_APPLICANT = "requested_by_applicant"
    FRAUD_SUSPECTED = "fraud_suspected"
    OTHER = "other"


class Money(NamedTuple):
    currency: str
    micros: int


class Account(NamedTuple):
    name: str
    slot_limit: int
    slots_in_use: int
    currency: str
    fee_micros: int
    charged_micros: int
    refunded_micros: int
    last_sequence: int
    registrations_per_day: int = 0  # the quota; 0 is none
    registration_day: int = 0  # of the newest registration, in UTC, days since the epoch
    registrations_of_day: int = 0


class Pass(NamedTuple):
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
    caller: str  # who brought the pass into its status
    event_sequence: int  # of the event that made the pass what it is

    def overdue(self, now_us: int) -> bool:
        return self.end_time_us is None and self.expire_time_us <= now_us


class Event(NamedTuple):
    """One change of status: the audit trail, the outbox and, by request_id, the receipt."""

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
    previous_sequence: int | None  # of the event before of the same pass
