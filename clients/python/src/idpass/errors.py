"""What the client raises.

    IdPassError                   every error of a call
    ├── InvalidRequest            a field is missing or malformed
    │   └── RequestIdReused       the request_id stands for something else
    ├── Unauthenticated           no or unknown credentials
    ├── PermissionDenied          known credentials that may not do this
    ├── NotFound                  the account has no such pass
    ├── FailedPrecondition        the pass is in no state for it
    │   ├── PassEnded             its status can no longer change
    │   │   ├── AlreadyCancelled  and here is with what outcome
    │   │   ├── Complete
    │   │   ├── Expired
    │   │   └── Failed
    │   ├── TransitionNotAllowed  no arrow leads there
    │   └── RefundNotAvailable    require_refund was set and none is due
    ├── Aborted                   something changed meanwhile
    │   └── PassChanged           the pass is not in expected_status
    ├── ResourceExhausted         a limit is reached
    │   ├── NoFreeSlot            of the account
    │   ├── DailyQuotaExhausted   of the account
    │   └── Overloaded            of the server; nothing was changed
    ├── Unavailable               no server answered; nothing was changed
    ├── DeadlineExceeded          the time ran out; nothing was changed
    ├── OutcomeUnknown            the change may or may not have been made: ask again
    └── Internal                  a fault of the service

A class is chosen by the ErrorInfo's reason; one that this version does not know falls back to
the class of the error's code. Messages are for people and may change.
"""

import copy
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import NamedTuple

import grpc

from idpass._records import CancelReason, Status

_NOTHING: Mapping[str, str] = {}


class Violation(NamedTuple):
    """What is wrong with one field of a request."""

    field: str
    description: str


class IdPassError(Exception):
    """A call was refused or failed. The grpc.RpcError, where there is one, is its cause.

    Attributes:
        code: of gRPC.
        message: for people.
        reason: a name of idpass.v1.ErrorReason without its prefix, for programs; None where
            the error does not come from the service itself.
        metadata: the facts that belong to the reason.
        reference: UUID of the call, to be given with a report; None where no server answered.
        request_id: that a changing call was sent with, given by the caller or made up here;
            calling again with it is safe. None for calls that change nothing.
        violations: of an InvalidRequest, every one.
        retry_after: seconds after which the server asks to be called again, or None.
    """

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode = grpc.StatusCode.UNKNOWN,
        reason: str | None = None,
        metadata: Mapping[str, str] = _NOTHING,
        reference: str | None = None,
        request_id: str | None = None,
        violations: Iterable[Violation] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.reason = reason
        self.metadata = dict(metadata)
        self.reference = reference
        self.request_id = request_id
        self.violations = tuple(violations)
        self.retry_after = retry_after

    def __str__(self) -> str:
        where = f" (reference {self.reference})" if self.reference else ""
        return f"{self.message}{where}"

    def with_request_id(self, request_id: str) -> "IdPassError":
        """The same error for one of several items that failed together."""
        error = copy.copy(self)
        error.request_id = request_id
        error.__cause__ = self.__cause__
        return error

    @property
    def status(self) -> Status | None:
        """Where the pass stands, if the error says so."""
        return _status(self.metadata.get("status", ""))


class InvalidRequest(IdPassError):
    """A field is missing or malformed; see `violations`."""


class RequestIdReused(InvalidRequest):
    """The request_id was used before, for something else."""


class Unauthenticated(IdPassError):
    """The credentials are missing or not known."""


class PermissionDenied(IdPassError):
    """The caller is known and may not do this."""

    @property
    def permission(self) -> str | None:
        """What the caller lacks."""
        return self.metadata.get("permission")


class NotFound(IdPassError):
    """The caller's account has no such pass."""


class FailedPrecondition(IdPassError):
    """The pass is in no state for it."""


class PassEnded(FailedPrecondition):
    """The pass is terminal: its status can no longer change."""

    @property
    def end_time(self) -> datetime | None:
        """When it became so, in UTC."""
        return _time(self.metadata.get("endTime"))


class AlreadyCancelled(PassEnded):
    """The pass was cancelled before, with the outcome told here."""

    @property
    def fee_refunded(self) -> bool:
        """Whether that cancellation gave the fee back."""
        return self.metadata.get("feeRefunded") == "true"

    @property
    def cancel_time(self) -> datetime | None:
        """When it was decided, in UTC."""
        return _time(self.metadata.get("cancelTime"))

    @property
    def cancel_reason(self) -> CancelReason:
        """Why."""
        try:
            return CancelReason(self.metadata.get("reason", ""))
        except ValueError:
            return CancelReason.UNSPECIFIED

    @property
    def superseded_by(self) -> str | None:
        """The pass that took its place, if one did."""
        return self.metadata.get("supersededBy") or None


class Complete(PassEnded):
    """The verification is complete."""


class Expired(PassEnded):
    """The link's validity ran out."""


class Failed(PassEnded):
    """The pass's status is `failed`: its verification came to a negative end."""


class TransitionNotAllowed(FailedPrecondition):
    """The pass is in flight, but no arrow leads from its status to the one asked for."""

    @property
    def allowed(self) -> tuple[Status, ...]:
        """Where it may go."""
        words = self.metadata.get("allowed", "").split(",")
        return tuple(filter(None, map(_status, words)))


class RefundNotAvailable(FailedPrecondition):
    """`require_refund` was set and no fee would come back. Nothing was changed."""


class Aborted(IdPassError):
    """Something changed meanwhile; read and decide anew."""


class PassChanged(Aborted):
    """The pass is not in `expected_status` but in `status`. Nothing was changed."""


class ResourceExhausted(IdPassError):
    """A limit is reached."""


class NoFreeSlot(ResourceExhausted):
    """Every slot of the account is in use."""

    @property
    def slot_limit(self) -> int | None:
        """How many there are."""
        limit = self.metadata.get("slotLimit", "")
        return int(limit) if limit.isdecimal() else None


class DailyQuotaExhausted(ResourceExhausted):
    """The account has registered as many passes today as it may. Nothing was changed."""

    @property
    def registrations_per_day(self) -> int | None:
        """How many it may."""
        quota = self.metadata.get("registrationsPerDay", "")
        return int(quota) if quota.isdecimal() else None

    @property
    def reset_time(self) -> datetime | None:
        """When the next day begins, in UTC."""
        return _time(self.metadata.get("resetTime"))


class Overloaded(ResourceExhausted):
    """The server has too much to do, or this caller calls too often; nothing was changed.

    The call was made again as often as its time allowed; `retry_after` is more than was left.
    """


class Unavailable(IdPassError):
    """No server could answer in time. If the call changes anything, it did not."""


class DeadlineExceeded(IdPassError):
    """The time ran out on a call that changes nothing."""


class OutcomeUnknown(IdPassError):
    """The change may or may not have been made, and no answer came in time.

    Calling again with `request_id` and the same arguments settles it: it makes the change, or
    gives the first answer if it was made already.
    """


class Internal(IdPassError):
    """A fault of the service; report it with `reference`."""


def _status(word: str) -> Status | None:
    try:
        return Status(word)
    except ValueError:
        return None


def _time(text: str | None) -> datetime | None:
    try:
        # Python 3.10 does not know the Z.
        return datetime.fromisoformat((text or "").replace("Z", "+00:00"))
    except ValueError:
        return None
