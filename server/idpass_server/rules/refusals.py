"""Reasons to refuse a call: one type for each, raised or returned.

    Refusal
    ├── InvalidRequest         a field is missing or malformed
    ├── RequestIdReused        the request_id was used for another request
    ├── Unauthenticated        no or unknown credentials
    ├── NotPermitted           the caller lacks the permission
    ├── PassNotFound           the account has no such pass
    ├── AccountDisabled        the account may change nothing
    ├── PassEnded              the pass is terminal
    ├── TransitionNotAllowed   in flight, but the lifecycle has no such transition
    ├── RefundNotAvailable     a refund was required and none is due
    ├── HistoryLost            a position or page token is not of this history
    ├── PassChanged            the pass is not in the expected status
    ├── NoFreeSlot             the account's slots are all in use
    ├── DailyQuotaExhausted    the account has registered as many passes today as it may
    ├── Overloaded             the server or the caller's rate limit has no room
    ├── WebhooksDisabled       the server has no webhook key
    ├── WebhookNotFound        the account has no such webhook
    ├── TooManyWebhooks        the account has as many webhooks as it may
    ├── StoreUnavailable       the store cannot answer now
    └── InternalFault          a bug; its text stays in the log

They hold facts. `api.errors.TABLE` turns them into what a caller sees.
"""

from collections.abc import Sequence
from typing import NamedTuple

from idpass_server.failures import OperatorError
from idpass_server.rules.records import Pass, Status


class Refusal(Exception):
    """Base of all refusals."""


class Violation(NamedTuple):
    """One thing wrong with a request.

    Attributes:
        field: its path, such as "statuses[2]"; "" for the request as a whole.
        description: what is wrong, to be read after the field's name.
    """

    field: str
    description: str


class InvalidRequest(Refusal):
    """A field is missing or malformed.

    Args:
        violations: all that were found; `api.errors` limits how many a caller sees.
    """

    def __init__(self, violations: Sequence[Violation]) -> None:
        super().__init__(
            "; ".join(
                f"{v.field}: {v.description}" if v.field else v.description for v in violations
            )
        )
        self.violations = tuple(violations)


class RequestIdReused(Refusal):
    """The request_id was used for another request."""

    def __init__(self, request_id: str) -> None:
        super().__init__(request_id)
        self.request_id = request_id


class Unauthenticated(Refusal):
    """The call has no credentials, or unknown ones.

    Args:
        kind: `missing` without any, or what was not known: `token` or `certificate`.
    """

    def __init__(self, kind: str = "missing") -> None:
        super().__init__(kind)
        self.kind = kind


class NotPermitted(Refusal):
    """The caller lacks the permission."""

    def __init__(self, permission: str) -> None:
        super().__init__(permission)
        self.permission = permission


class PassNotFound(Refusal):
    """The account has no pass with that id."""

    def __init__(self, pass_id: str) -> None:
        super().__init__(pass_id)
        self.pass_id = pass_id


class AccountDisabled(Refusal):
    """The account is disabled, or was deleted while its callers are still known."""

    def __init__(self, account: str) -> None:
        super().__init__(account)
        self.account = account


class _AboutPass(Refusal):
    def __init__(self, id_pass: Pass) -> None:
        super().__init__(id_pass.id, id_pass.status)
        self.id_pass = id_pass


class PassEnded(_AboutPass):
    """The pass is in a terminal status."""


class RefundNotAvailable(_AboutPass):
    """A refund was required and none is due."""


class TransitionNotAllowed(_AboutPass):
    """The lifecycle has no transition from the pass's status to `to_status`.

    Args:
        id_pass: the pass as it is.
        to_status: the status asked for.
        allowed: the statuses that may follow.
    """

    def __init__(self, id_pass: Pass, to_status: Status, allowed: Sequence[Status]) -> None:
        super().__init__(id_pass)
        self.to_status = to_status
        self.allowed = tuple(allowed)


class HistoryLost(Refusal):
    """A position, or a page token, is from a history that is no longer there.

    Args:
        history: id of the one that is.
        after_sequence: the position; None for a page token.
        oldest_sequence: the oldest position that can be resumed from; None for a page token.
    """

    def __init__(
        self, history: str, after_sequence: int | None = None, oldest_sequence: int | None = None
    ) -> None:
        super().__init__(history, after_sequence)
        self.history = history
        self.after_sequence = after_sequence
        self.oldest_sequence = oldest_sequence


class PassChanged(_AboutPass):
    """The pass is not in the status that the caller expected."""

    def __init__(self, id_pass: Pass, expected_status: Status) -> None:
        super().__init__(id_pass)
        self.expected_status = expected_status


class NoFreeSlot(Refusal):
    """All of the account's slots are in use."""

    def __init__(self, account: str, slot_limit: int) -> None:
        super().__init__(account, slot_limit)
        self.account = account
        self.slot_limit = slot_limit


class DailyQuotaExhausted(Refusal):
    """The account has registered as many passes today as it may.

    Args:
        reset_time_us: when the next day begins.
    """

    def __init__(self, account: str, registrations_per_day: int, reset_time_us: int) -> None:
        super().__init__(account, registrations_per_day)
        self.account = account
        self.registrations_per_day = registrations_per_day
        self.reset_time_us = reset_time_us


class Overloaded(Refusal):
    """There is no room for the call.

    Args:
        message: what is full, for the caller.
        retry_ms: delay after which there will be room, milliseconds; None if not known.

    Attributes:
        cause: "server" when all callers together ask for too much, "rate" when this caller exceeds
            its rate limit.
    """

    def __init__(self, message: str, *, retry_ms: int | None = None) -> None:
        super().__init__(message)
        self.retry_ms = retry_ms
        self.cause = "server"


class WebhooksDisabled(Refusal):
    """The server has no webhook key."""


class WebhookNotFound(Refusal):
    """The account has no webhook with that id."""

    def __init__(self, webhook_id: str) -> None:
        super().__init__(webhook_id)
        self.webhook_id = webhook_id


class TooManyWebhooks(Refusal):
    """The account has as many webhooks as it may."""

    def __init__(self, account: str, limit: int) -> None:
        super().__init__(account, limit)
        self.account = account
        self.limit = limit


class StoreUnavailable(Refusal, OperatorError):
    """The store cannot answer now.

    Args:
        message: why, for the caller.
        outcome_unknown: whether the change may be on disk all the same.
        retry_ms: delay before another try, milliseconds; None for the usual one.
    """

    def __init__(
        self, message: str, *, outcome_unknown: bool = False, retry_ms: int | None = None
    ) -> None:
        super().__init__(message)
        self.outcome_unknown = outcome_unknown
        self.retry_ms = retry_ms


class InternalFault(Refusal):
    """A bug; its text stays in the log."""
