"""Maps a google.rpc.Status to the error that the client raises, by one table."""

import contextlib
from collections.abc import Iterable, Mapping
from typing import Any, cast

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from idpass.errors import (
    Aborted,
    AccountDisabled,
    AlreadyCancelled,
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
    Overloaded,
    PassChanged,
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

DOMAIN = "idpass.v1"
_CODES = {code.value[0]: code for code in grpc.StatusCode}
_BY_REASON: "Mapping[str, type[IdPassError]]" = {
    "INVALID_REQUEST": InvalidRequest,
    "REQUEST_ID_REUSED": RequestIdReused,
    "UNAUTHENTICATED_CALLER": Unauthenticated,
    "METHOD_NOT_PERMITTED": PermissionDenied,
    "ACCOUNT_DISABLED": AccountDisabled,
    "PASS_NOT_FOUND": NotFound,
    "PASS_ALREADY_CANCELLED": AlreadyCancelled,
    "PASS_COMPLETE": Complete,
    "PASS_EXPIRED": Expired,
    "PASS_FAILED": Failed,
    "TRANSITION_NOT_ALLOWED": TransitionNotAllowed,
    "REFUND_NOT_AVAILABLE": RefundNotAvailable,
    "HISTORY_LOST": HistoryLost,
    "PASS_CHANGED": PassChanged,
    "NO_FREE_SLOT": NoFreeSlot,
    "DAILY_QUOTA_EXHAUSTED": DailyQuotaExhausted,
    "WEBHOOKS_DISABLED": WebhooksDisabled,
    "WEBHOOK_NOT_FOUND": NotFound,
    "TOO_MANY_WEBHOOKS": TooManyWebhooks,
    "OVERLOADED": Overloaded,
    "STORE_UNAVAILABLE": Unavailable,
    "INTERNAL": Internal,
}
_BY_CODE: "Mapping[grpc.StatusCode, type[IdPassError]]" = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPrecondition,
    grpc.StatusCode.ABORTED: Aborted,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhausted,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.INTERNAL: Internal,
    grpc.StatusCode.UNIMPLEMENTED: Unimplemented,
}


def from_rpc_error(error: Any, request_id: str | None) -> IdPassError:
    """The error for a grpc.RpcError, sync or async."""
    status = status_pb2.Status(code=code_of(error).value[0], message=details_of(error))
    for key, value in trailing_metadata_of(error):
        if key == "grpc-status-details-bin":
            try:
                status = status_pb2.Status.FromString(value)
            except DecodeError:
                continue
    return from_status(status, request_id)


def code_of(error: Any) -> grpc.StatusCode:
    """The code of a grpc.RpcError; UNKNOWN for a bare one, as an interceptor may raise."""
    code = error.code() if hasattr(error, "code") else None
    return code if isinstance(code, grpc.StatusCode) else grpc.StatusCode.UNKNOWN


def details_of(error: Any) -> str:
    return (error.details() if hasattr(error, "details") else None) or ""


def trailing_metadata_of(error: Any) -> Iterable[tuple[str, Any]]:
    found = error.trailing_metadata() if hasattr(error, "trailing_metadata") else None
    return cast("Iterable[tuple[str, Any]]", found or ())


def from_status(status: status_pb2.Status, request_id: str | None) -> IdPassError:
    """The error for the status of a call, or of one item of a batch."""
    code = _CODES.get(status.code, grpc.StatusCode.UNKNOWN)
    info = error_details_pb2.ErrorInfo()
    request_info = error_details_pb2.RequestInfo()
    bad_request = error_details_pb2.BadRequest()
    retry_info = error_details_pb2.RetryInfo()
    for detail in status.details:
        for known in (info, request_info, bad_request, retry_info):
            with contextlib.suppress(DecodeError):  # not worth losing the rest for
                detail.Unpack(known)
    ours = info.domain == DOMAIN
    kind = _BY_REASON.get(info.reason) if ours else None
    return (kind or _BY_CODE.get(code, IdPassError))(
        status.message or f"The call failed with {code.name}, and nothing was said of why.",
        code=code,
        reason=info.reason if ours else None,
        metadata=info.metadata if ours else {},
        reference=request_info.request_id or None,
        request_id=request_id,
        violations=[Violation(v.field, v.description) for v in bad_request.field_violations],
        retry_after=(
            retry_info.retry_delay.ToMilliseconds() / 1000
            if retry_info.HasField("retry_delay")
            else None
        ),
    )
