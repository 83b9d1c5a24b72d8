"""Client of the ID Pass service: `IdPassClient` and `AsyncIdPassClient`.

`idpass.v1` holds the generated messages and stubs. Importing it loads nothing of the client: the
names below are loaded on first use.

The way of a call: `client` or `aio` check arguments and build a request (`_calls`, `_arguments`);
`_transport` or `_transport_aio` send it over a channel (`_channel`, `_endpoint`, `_interceptors`,
`_metadata`); what fails is read by `_failure` (`_status`, `_reach`) and judged by `_retry`, or by
`_reconnect` for streams; `_log` tells of it; `_read` turns the answer into a record.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from idpass._policy import RetryPolicy
    from idpass._records import (
        Account,
        AdvanceReceipt,
        Cancellation,
        CancelResult,
        Event,
        IdPass,
        Money,
        Receipt,
        RegisterReceipt,
    )
    from idpass._words import CancelReason, Status
    from idpass.aio import AsyncIdPassClient
    from idpass.client import IdPassClient
    from idpass.errors import (
        Aborted,
        AccountDisabled,
        AlreadyCancelled,
        BadAnswer,
        Complete,
        DailyQuotaExhausted,
        DeadlineExceeded,
        Expired,
        Failed,
        FailedPrecondition,
        HistoryLost,
        IdPassError,
        Internal,
        InvalidRequest,
        NoFreeSlot,
        NotFound,
        OutcomeUnknown,
        Overloaded,
        PassChanged,
        PassEnded,
        PermissionDenied,
        RefundNotAvailable,
        RequestIdReused,
        ResourceExhausted,
        TooManyWebhooks,
        TransitionNotAllowed,
        Unauthenticated,
        Unavailable,
        Unimplemented,
        Violation,
        WebhooksDisabled,
    )

__version__ = "0.1.0"

# The modules that define the public names, in the order they are searched.
_HOMES = ("_words", "_records", "_policy", "errors", "client", "aio")

__all__ = [
    "Aborted",
    "Account",
    "AccountDisabled",
    "AdvanceReceipt",
    "AlreadyCancelled",
    "AsyncIdPassClient",
    "BadAnswer",
    "CancelReason",
    "CancelResult",
    "Cancellation",
    "Complete",
    "DailyQuotaExhausted",
    "DeadlineExceeded",
    "Event",
    "Expired",
    "Failed",
    "FailedPrecondition",
    "HistoryLost",
    "IdPass",
    "IdPassClient",
    "IdPassError",
    "Internal",
    "InvalidRequest",
    "Money",
    "NoFreeSlot",
    "NotFound",
    "OutcomeUnknown",
    "Overloaded",
    "PassChanged",
    "PassEnded",
    "PermissionDenied",
    "Receipt",
    "RefundNotAvailable",
    "RegisterReceipt",
    "RequestIdReused",
    "ResourceExhausted",
    "RetryPolicy",
    "Status",
    "TooManyWebhooks",
    "TransitionNotAllowed",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "Violation",
    "WebhooksDisabled",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        for home in _HOMES:
            module = import_module(f"idpass.{home}")
            if hasattr(module, name):
                globals()[name] = getattr(module, name)
                return globals()[name]
    raise AttributeError(f"module 'idpass' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
