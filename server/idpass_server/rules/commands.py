"""What is asked of the rules, and what they answer: commands and outcomes.

A command is valid when it gets here: requests are checked where they come in. Fields are in the
units of `records`.
"""

import hashlib
from typing import Final, NamedTuple

from idpass_server.rules.records import Event, Pass, Reason, Status
from idpass_server.rules.refusals import Refusal

DEFAULT_LINK_VALIDITY_DAYS: Final = 7
SWEEPER: Final = "sweeper"


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
