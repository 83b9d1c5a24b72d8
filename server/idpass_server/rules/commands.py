"""Commands, which calls ask of the rules, and outcomes, which the rules answer.

A command's fields are valid: `api.requests` checks them. Units are those of `records`. What all
commands share:

    account         name of the account that the caller acts for
    caller          name of the caller
    reference       UUID of the call
    request_id      idempotency key, unique within the account; None for none
    id              UUID of the pass that is changed or, by Register, made
    subject         UUID of the existing pass that the command needs; None for none
    digest()        fingerprint of the content, compared when a request_id comes again
"""

import hashlib
from typing import Final, NamedTuple

from idpass_server.rules.records import Event, Pass, Reason, Status
from idpass_server.rules.refusals import Refusal

DEFAULT_LINK_VALIDITY_DAYS: Final = 7
SWEEPER: Final = "sweeper"
OPERATOR: Final = "operator"
"""The caller of a change that an operator makes on the command line."""


class Cancel(NamedTuple):
    """Cancel a pass in flight.

    Attributes:
        reason: why; never affects the refund.
        note: free text for people.
        expected_status: refuse with PassChanged in any other status; None accepts all.
        require_refund: refuse with RefundNotAvailable where no refund is due.
        validate_only: run every check and answer as usual, but change nothing.
    """

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
        """UUID of the existing pass that the command needs."""
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
    """Create a pass, in place of another if `supersedes` names one.

    Attributes:
        link_validity_days: days until the pass expires.
        applicant_reference: the business's own name for the applicant, or "".
        supersedes: UUID of the pass to cancel in the same transaction, or None.
    """

    account: str
    caller: str
    reference: str
    request_id: str | None
    id: str
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
    """Move a pass along its lifecycle.

    Attributes:
        to_status: where to; any status but CANCELLED.
        expected_status: refuse with PassChanged in any other status; None accepts all.
    """

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
    """Expire a pass if it is overdue: the sweeper's command, never a caller's."""

    account: str
    reference: str
    id: str
    caller: str = SWEEPER
    request_id: None = None

    @property
    def subject(self) -> str:
        return self.id


class Erase(NamedTuple):
    """Blank what a pass says of its applicant: an operator's command, never a caller's."""

    account: str
    reference: str
    id: str
    caller: str = OPERATOR
    request_id: None = None

    @property
    def subject(self) -> str:
        return self.id


Step = Cancel | Register | Advance | Expire
"""A command that the lifecycle decides."""
Command = Step | Erase


class Cancelled(NamedTuple):
    """A pass is cancelled.

    Attributes:
        event: the cancellation.
        replayed: true when this is the first answer again and nothing was changed now.
    """

    event: Event
    replayed: bool = False


class Registered(NamedTuple):
    """A pass is registered.

    Attributes:
        id_pass: as it was when it was registered.
        superseded: the cancellation of the pass that it replaces, or None.
        reference: UUID of the call that registered it.
        replayed: true when this is the first answer again and nothing was changed now.
    """

    id_pass: Pass
    superseded: Cancelled | None
    reference: str
    replayed: bool = False


class Advanced(NamedTuple):
    """A pass has moved.

    Attributes:
        id_pass: as it was right after the move.
        reference: UUID of the call that moved it.
        replayed: true when this is the first answer again and nothing was changed now.
    """

    id_pass: Pass
    reference: str
    replayed: bool = False


class Settled(NamedTuple):
    """The answer to Expire: if the pass was overdue, it has expired."""


class Erased(NamedTuple):
    """The answer to Erase.

    Attributes:
        event: the erasure; None if there was nothing to erase.
    """

    event: Event | None


Answer = Cancelled | Registered | Advanced | Settled | Erased
Outcome = Answer | Refusal


def _digest(method: str, **fields: object) -> str:
    """Fingerprint of a request: its method and the named fields that are set.

    Unset fields are left out, so that a field added later does not change the digest of requests
    that do not use it. Protobuf bytes would not do: they are not canonical.
    """
    content = [(name, str(value)) for name, value in fields.items() if value]
    text = ascii((method, content))  # repr would depend on the Unicode version
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
