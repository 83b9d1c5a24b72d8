"""The words of the domain: what is stored, what is asked, what is answered.

Times are in microseconds since the epoch in UTC, money is in micros (millionths of the
currency's unit). Everything is a NamedTuple: a store makes them from rows by the thousand
(`Pass._make(row)`), and the field order of Account, Pass and Event is the column order of
their tables.
"""

import hashlib
from enum import StrEnum
from typing import Final, NamedTuple

import uuid_utils

from idpass_server.refusals import Refusal

DEFAULT_LINK_VALIDITY_DAYS: Final = 7
SWEEPER: Final = "sweeper"


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


class Cancel(NamedTuple):
    account: str
    caller: str
    reference: str
    request_id: str | None
    id: str
    reason: Reason = Reason.UNSPECIFIED
    note: str = ""
    expected_status: Status | None = None
    require_refund: bool = False
    validate_only: bool = False

    @property
    def subject(self) -> str:
        """The id of the existing pass that the command is about."""
        return self.id

    def digest(self) -> str:
        return _digest(
            "cancel",
            id=self.id,
            reason=self.reason,
            note=self.note,
            expected_status=self.expected_status,
            require_refund=self.require_refund,
        )


class Register(NamedTuple):
    account: str
    caller: str
    reference: str
    request_id: str | None
    id: str  # of the pass to be made
    link_validity_days: int = DEFAULT_LINK_VALIDITY_DAYS
    applicant_reference: str = ""
    supersedes: str | None = None

    @property
    def subject(self) -> str | None:
        return self.supersedes

    def digest(self) -> str:
        return _digest(
            "register",
            link_validity_days=self.link_validity_days,
            applicant_reference=self.applicant_reference,
            supersedes=self.supersedes,
        )


class Advance(NamedTuple):
    account: str
    caller: str
    reference: str
    request_id: str | None
    id: str
    to_status: Status
    expected_status: Status | None = None

    @property
    def subject(self) -> str:
        return self.id

    def digest(self) -> str:
        return _digest(
            "advance", id=self.id, to_status=self.to_status, expected_status=self.expected_status
        )


class Expire(NamedTuple):
    """Let a pass expire if it is overdue; not a caller's command but time's."""

    account: str
    reference: str
    id: str
    caller: str = SWEEPER
    request_id: None = None

    @property
    def subject(self) -> str:
        return self.id


Command = Cancel | Register | Advance | Expire


class Cancelled(NamedTuple):
    event: Event
    replayed: bool = False


class Registered(NamedTuple):
    id_pass: Pass
    superseded: Cancelled | None
    reference: str
    replayed: bool = False


class Advanced(NamedTuple):
    id_pass: Pass
    reference: str
    replayed: bool = False


class Settled(NamedTuple):
    """The pass is expired if it was overdue; there is nothing else to say."""


Answer = Cancelled | Registered | Advanced | Settled
Outcome = Answer | Refusal


def _digest(method: str, **fields: object) -> str:
    """What a request_id stands for: the method and the named fields that are set.

    Unset fields are left out, so that a field added later does not change the digest of
    requests that do not use it. Not the protobuf bytes, which are not canonical.
    """
    content = [(name, str(value)) for name, value in fields.items() if value]
    text = ascii((method, content))  # and not repr, which differs between Unicode versions
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def new_uuid() -> str:
    """A UUIDv7: ids made one after the other lie together in an index."""
    return str(uuid_utils.uuid7())
