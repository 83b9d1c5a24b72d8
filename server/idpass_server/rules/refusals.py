"""Why a call is refused: one type for each case, raised or returned, never half an answer.

    Refusal
    ├── InvalidRequest         a field is missing or malformed
    ├── RequestIdReused        the request_id stands for something else
    ├── Unauthenticated        no or unknown credentials
    ├── NotPermitted           the caller lacks the permission
    ├── PassNotFound           the account has no such pass
    ├── PassEnded              the pass is terminal
    ├── TransitionNotAllowed   in flight, but no arrow leads there
    ├── RefundNotAvailable     a refund was required and none is due
    ├── PassChanged            not in the expected status
    ├── NoFreeSlot             the account's slots are all in use
    ├── Overloaded             too much is waiting already
    ├── StoreUnavailable       the disk cannot take it now
    └── InternalFault          a bug; its text stays in the log

They hold facts. What a caller gets to see of them is the table in `errors`.
"""

from collections.abc import Sequence
from typing import NamedTuple

from idpass_server.failures import OperatorError
from idpass_server.rules.records import Pass, Status


class Refusal(Exception):
    """Base of all refusals."""


class Violation(NamedTuple):
    field: str  # empty: the request as a whole
    description: str


class InvalidRequest(Refusal):
    """
    Args:
        violations: all that were found; however many, what a caller is told of them is bounded.
    """

    def __init__(self, violations: Sequence[Violation]) -> None:
        super().__init__(
            "; ".join(
                f"{v.field}: {v.description}" if v.field else v.description for v in violations
            )
        )
        self.violations = tuple(violations)


class RequestIdReused(Refusal):
    def __init__(self, request_id: str) -> None:
        super().__init__(request_id)
        self.request_id = request_id


class Unauthenticated(Refusal):
    pass


class NotPermitted(Refusal):
    def __init__(self, permission: str) -> None:
        super().__init__(permission)
        self.permission = permission


class PassNotFound(Refusal):
    def __init__(self, pass_id: str) -> None:
        super().__init__(pass_id)
        self.pass_id = pass_id


class _AboutPass(Refusal):
    def __init__(self, id_pass: Pass) -> None:
        super().__init__(id_pass.id, id_pass.status)
        self.id_pass = id_pass


class PassEnded(_AboutPass):
    pass


class RefundNotAvailable(_AboutPass):
    pass


class TransitionNotAllowed(_AboutPass):
    def __init__(self, id_pass: Pass, to_status: Status, allowed: Sequence[Status]) -> None:
        super().__init__(id_pass)
        self.to_status = to_status
        self.allowed = tuple(allowed)


class PassChanged(_AboutPass):
    def __init__(self, id_pass: Pass, expected_status: Status) -> None:
        super().__init__(id_pass)
        self.expected_status = expected_status


class NoFreeSlot(Refusal):
    def __init__(self, account: str, slot_limit: int) -> None:
        super().__init__(account, slot_limit)
        self.account = account
        self.slot_limit = slot_limit


class Overloaded(Refusal):
    """
    Args:
        message: what is full, in a caller's words.
        retry_ms: when there will be room again, where that is known.

    Attributes:
        cause: "server" where too much is asked of it by all together, "rate" where this caller
            calls more often than it may.
    """

    def __init__(self, message: str, *, retry_ms: int | None = None) -> None:
        super().__init__(message)
        self.retry_ms = retry_ms
        self.cause = "server"


class StoreUnavailable(Refusal, OperatorError):
    """The store cannot answer.

    Args:
        message: what a caller may know of it.
        outcome_unknown: true where the change may be on disk all the same.
    """

    def __init__(self, message: str, *, outcome_unknown: bool = False) -> None:
        super().__init__(message)
        self.outcome_unknown = outcome_unknown


class InternalFault(Refusal):
    pass
