"""What the client raises.

    IdPassError                   every error of a call
    ├── InvalidRequest            a field is missing or malformed
    │   └── RequestIdReused       the request_id was used with different content
    ├── Unauthenticated           missing or unknown credentials
    ├── PermissionDenied          the credentials do not permit this
    │   └── AccountDisabled       nothing of the account can be changed
    ├── NotFound                  the account has no such pass or webhook
    ├── FailedPrecondition        the state of the pass, the server or the history does not allow it
    │   ├── PassEnded             its status can no longer change
    │   │   ├── AlreadyCancelled  with the outcome of the cancellation
    │   │   ├── Complete
    │   │   ├── Expired
    │   │   └── Failed
    │   ├── TransitionNotAllowed  its status does not lead to the requested one
    │   ├── RefundNotAvailable    require_refund was set and no refund is due
    │   ├── HistoryLost           the database was restored or purged: events may be missing
    │   └── WebhooksDisabled      the server sends no webhooks
    ├── Aborted                   something changed meanwhile
    │   └── PassChanged           the pass is not in expected_status
    ├── ResourceExhausted         a limit is reached
    │   ├── NoFreeSlot            the account's slots are all in use
    │   ├── DailyQuotaExhausted   the account has registered as many passes today as it may
    │   ├── TooManyWebhooks       the account has as many webhooks as it may
    │   └── Overloaded            the server is too busy, or the caller too fast; nothing changed
    ├── Unavailable               no server answered; nothing was changed
    ├── DeadlineExceeded          a call that changes nothing ran out of time
    ├── OutcomeUnknown            the change may or may not have been made: ask again
    ├── BadAnswer                 what came is no answer of the service: a proxy's page, or garbled
    ├── Unimplemented             the service is too old for the method, or is another one
    └── Internal                  a bug in the service

The class follows from the ErrorInfo's reason. A reason that this version does not know falls back
to the class of the status code. Messages are for people and may change.
"""

import copy
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import NamedTuple

import grpc

from idpass import _facts
from idpass._words import CancelReason, Status

_NOTHING: Mapping[str, str] = {}


class Violation(NamedTuple):
    """What is wrong with one field of a request."""

    field: str
    description: str


class IdPassError(Exception):
    """A call was refused or failed. Its cause is the grpc.RpcError, if there is one.

    Attributes:
        code: gRPC status code.
        message: for people.
        reason: a name of idpass.v1.ErrorReason without its prefix, for programs; None if the
            error does not come from the service itself.
        metadata: the facts that belong to the reason.
        reference: UUID of the call, to be quoted in a report; None if no server answered.
        request_id: what a changing call was sent with, given by the caller or generated;
            calling again with it is safe. None for calls that change nothing.
        violations: all that is wrong with an invalid request, up to 20.
        retry_after: delay after which the server asks to be called again, seconds, or None.
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

    def __repr__(self) -> str:
        facts = {
            "reason": self.reason,
            "reference": self.reference,
            "request_id": self.request_id,
            "retry_after": self.retry_after,
        }
        told = [f", {name}={value!r}" for name, value in facts.items() if value is not None]
        return f"{type(self).__name__}({self.message!r}, code={self.code.name}{''.join(told)})"

    def with_request_id(self, request_id: str) -> "IdPassError":
        """A copy of the error for one of several items that failed together."""
        error = copy.copy(self)
        error.request_id = request_id
        error.__cause__ = self.__cause__
        return error

    @property
    def status(self) -> Status | None:
        """The status of the pass, if the error says so."""
        return _facts.status(self.metadata.get("status", ""))


class InvalidRequest(IdPassError):
    """A field is missing or malformed; see `violations`."""


class RequestIdReused(InvalidRequest):
    """The request_id was used before with different content."""


class Unauthenticated(IdPassError):
    """The credentials are missing or unknown."""


class PermissionDenied(IdPassError):
    """The caller is known but not permitted to do this."""

    @property
    def permission(self) -> str | None:
        """The permission that the caller lacks."""
        return self.metadata.get("permission")


class AccountDisabled(PermissionDenied):
    """The service's operator has disabled the account: it can be read, not changed."""


class NotFound(IdPassError):
    """The caller's account has no such pass, or no such webhook."""


class FailedPrecondition(IdPassError):
    """The state of the pass, of the server, or of the database's history does not allow it."""


class PassEnded(FailedPrecondition):
    """The pass is terminal: its status can no longer change."""

    @property
    def end_time(self) -> datetime | None:
        """When the pass ended, in UTC."""
        return _facts.time(self.metadata.get("endTime"))


class AlreadyCancelled(PassEnded):
    """The pass was already cancelled, with the outcome given here."""

    @property
    def fee_refunded(self) -> bool:
        """Whether that cancellation refunded the fee."""
        return self.metadata.get("feeRefunded") == "true"

    @property
    def cancel_time(self) -> datetime | None:
        """When that cancellation was decided, in UTC."""
        return _facts.time(self.metadata.get("cancelTime"))

    @property
    def cancel_reason(self) -> CancelReason:
        """The reason of that cancellation."""
        try:
            return CancelReason(self.metadata.get("reason", ""))
        except ValueError:
            return CancelReason.UNSPECIFIED

    @property
    def superseded_by(self) -> str | None:
        """The pass that replaced it, if any."""
        return self.metadata.get("supersededBy") or None


class Complete(PassEnded):
    """The verification is complete."""


class Expired(PassEnded):
    """The link has expired."""


class Failed(PassEnded):
    """The pass's status is `failed`: its verification failed."""


class TransitionNotAllowed(FailedPrecondition):
    """The pass is in flight, but its status does not lead to the requested one."""

    @property
    def allowed(self) -> tuple[Status, ...]:
        """The statuses that its status leads to."""
        words = self.metadata.get("allowed", "").split(",")
        return tuple(filter(None, map(_facts.status, words)))


class RefundNotAvailable(FailedPrecondition):
    """`require_refund` was set and no fee would be refunded. Nothing was changed."""


class HistoryLost(FailedPrecondition):
    """A watch's position, or a list's page, is from a history that is no longer there.

    The database was restored from an older backup, or old passes were purged. Events may be
    missing, and events that were seen may be undone. Call `account()`, then `list()` to learn where
    the passes stand, and watch on after that account's `last_sequence`.
    """

    @property
    def history(self) -> str | None:
        """Id of the history that is there."""
        return self.metadata.get("history")

    @property
    def after_sequence(self) -> int | None:
        """The position that was asked for; None for a page of a list."""
        return _facts.integer(self.metadata.get("afterSequence", ""))

    @property
    def oldest_sequence(self) -> int | None:
        """The smallest position after which no event is missing; None for a page of a list."""
        return _facts.integer(self.metadata.get("oldestSequence", ""))


class WebhooksDisabled(FailedPrecondition):
    """The server sends no webhooks: it has no key to sign them with."""


class Aborted(IdPassError):
    """Something changed meanwhile; read and decide again."""


class PassChanged(Aborted):
    """The pass is not in `expected_status` but in `status`. Nothing was changed."""


class ResourceExhausted(IdPassError):
    """A limit is reached."""


class NoFreeSlot(ResourceExhausted):
    """Every slot of the account is in use."""

    @property
    def slot_limit(self) -> int | None:
        """How many slots the account has."""
        return _facts.integer(self.metadata.get("slotLimit", ""))


class DailyQuotaExhausted(ResourceExhausted):
    """The account has registered as many passes today as it may. Nothing was changed."""

    @property
    def registrations_per_day(self) -> int | None:
        """How many it may."""
        return _facts.integer(self.metadata.get("registrationsPerDay", ""))

    @property
    def reset_time(self) -> datetime | None:
        """When the next day begins, in UTC."""
        return _facts.time(self.metadata.get("resetTime"))


class TooManyWebhooks(ResourceExhausted):
    """The account has as many webhooks as it may."""

    @property
    def webhook_limit(self) -> int | None:
        """How many it may have."""
        return _facts.integer(self.metadata.get("webhookLimit", ""))


class Overloaded(ResourceExhausted):
    """The server is overloaded, or this caller exceeds its rate; nothing was changed.

    The call was retried as often as its time allowed; `retry_after` is more than was left.
    """


class Unavailable(IdPassError):
    """No server answered in time. A call that would change something did not."""


class DeadlineExceeded(IdPassError):
    """A call that changes nothing ran out of time."""


class OutcomeUnknown(IdPassError):
    """The change may or may not have been made, and no answer came in time.

    Calling again with `request_id` and the same arguments settles it: the change is made, or the
    first answer is given again if it was made already.
    """


class BadAnswer(IdPassError):
    """What came is no answer of the service: it is garbled, or from something in between.

    After a change OutcomeUnknown is raised instead, since the service may have made it.
    """


class Unimplemented(IdPassError):
    """Nothing there knows the method: an older service than the client, or another one."""


class Internal(IdPassError):
    """A bug in the service; report it with `reference`."""
