"""Errors over HTTP: a google.rpc.Status in JSON, with the HTTP status of its code.

What the service refuses is passed on as it is. What the gateway cannot even read is told in the
same form, as INVALID_ARGUMENT with the reason INVALID_REQUEST; where HTTP has a more exact
status (404, 405, 413, 415, 421) that one is sent.
"""

import json
import math
import uuid
from collections.abc import Sequence
from typing import Any, Final

import grpc
import structlog
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from idpass_server.gateway import messages
from idpass_server.gateway.messages import Violation

DOMAIN: Final = "idpass.v1"
DETAILS_KEY: Final = "grpc-status-details-bin"
RETRY_S: Final = 1

# google/rpc/code.proto says them, beside each code.
HTTP_STATUS: Final = {
    code_pb2.INVALID_ARGUMENT: 400,
    code_pb2.FAILED_PRECONDITION: 400,
    code_pb2.OUT_OF_RANGE: 400,
    code_pb2.UNAUTHENTICATED: 401,
    code_pb2.PERMISSION_DENIED: 403,
    code_pb2.NOT_FOUND: 404,
    code_pb2.ABORTED: 409,
    code_pb2.ALREADY_EXISTS: 409,
    code_pb2.RESOURCE_EXHAUSTED: 429,
    code_pb2.CANCELLED: 499,
    code_pb2.UNIMPLEMENTED: 501,
    code_pb2.UNAVAILABLE: 503,
    code_pb2.DEADLINE_EXCEEDED: 504,
}
_LOST: Final = {code_pb2.UNAVAILABLE, code_pb2.DEADLINE_EXCEEDED, code_pb2.CANCELLED}

log = structlog.get_logger()


class HttpError(Exception):
    """The end of a request that got no answer.

    Args:
        http_status: of the response.
        status: its body.
        headers: beside those that follow from the status.
    """

    def __init__(
        self,
        http_status: int,
        status: status_pb2.Status,
        headers: Sequence[tuple[str, str]] = (),
    ) -> None:
        super().__init__(status.message)
        self.http_status = http_status
        self.status = status
        self.headers = [*headers, *_headers(http_status, status)]

    def body(self) -> bytes:
        return json.dumps(messages.status(self.status), separators=(",", ":")).encode()


def _headers(http_status: int, status: status_pb2.Status) -> list[tuple[str, str]]:
    headers = []
    if http_status == 401:  # noqa: PLR2004 RFC 9110 wants it there
        headers.append(("www-authenticate", "Bearer"))
    for detail in status.details:
        retry_info = error_details_pb2.RetryInfo()
        if detail.Unpack(retry_info):
            seconds = retry_info.retry_delay.ToNanoseconds() / 1e9
            headers.append(("retry-after", str(math.ceil(seconds))))
    return headers


def unreadable(
    description: str,
    *,
    http_status: int = 400,
    violations: Sequence[Violation] = (),
    headers: Sequence[tuple[str, str]] = (),
) -> HttpError:
    """A request that the gateway refuses by itself; the service never hears of it.

    Args:
        description: what is wrong, and what would do.
        violations: of fields; gone through by the caller, all at once.
    """
    reference = str(uuid.uuid4())
    log.info("unreadable", http_status=http_status, reference=reference, why=description[:200])
    details: list[Message] = [
        error_details_pb2.ErrorInfo(reason="INVALID_REQUEST", domain=DOMAIN),
        error_details_pb2.RequestInfo(request_id=reference),
    ]
    if violations:
        fields = [
            error_details_pb2.BadRequest.FieldViolation(field=v.field, description=v.description)
            for v in violations
        ]
        details.append(error_details_pb2.BadRequest(field_violations=fields))
    status = _status(code_pb2.INVALID_ARGUMENT, f"The request is not valid: {description}", details)
    return HttpError(http_status, status, headers)


def invalid(violations: Sequence[Violation]) -> HttpError:
    """Fields that are wrong, all at once."""
    text = "; ".join(f"{v.field}: {v.description}" for v in violations)
    return unreadable(text, violations=violations)


def from_rpc(error: grpc.aio.AioRpcError) -> HttpError:
    """What the service, or gRPC on the way to it, refused."""
    code = error.code().value[0]
    status = status_pb2.Status()
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            try:
                status = status_pb2.Status.FromString(value)
            except DecodeError:
                break
    if not status.details:
        status = _from_grpc_itself(code, error.details() or "")
    return HttpError(HTTP_STATUS.get(status.code, 500), status)


def fault() -> HttpError:
    """The gateway's own."""
    return HttpError(500, _from_grpc_itself(code_pb2.INTERNAL, "a fault of the gateway"))


def _from_grpc_itself(code: int, text: str) -> status_pb2.Status:
    """An error without details is none of the service's: it was lost on the way, or turned away."""
    reference = str(uuid.uuid4())
    log.warning("not_answered", code=code_pb2.Code.Name(code), reference=reference, error=text)
    reason, message, metadata = "INTERNAL", "The service has a fault; report the reference.", {}
    if code in _LOST:
        reason = "STORE_UNAVAILABLE"
        message = (
            "The service gave no answer; whether anything was changed is not known. Retry with "
            "the same request_id to learn it."
        )
        metadata = {"outcome": "unknown"}
    elif code == code_pb2.RESOURCE_EXHAUSTED:
        reason, message = "OVERLOADED", "The service is overloaded; nothing was changed."
    details: list[Message] = [
        error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata=metadata),
        error_details_pb2.RequestInfo(request_id=reference),
    ]
    if reason != "INTERNAL":
        details.append(error_details_pb2.RetryInfo(retry_delay=Duration(seconds=RETRY_S)))
    return _status(code if reason != "INTERNAL" else code_pb2.INTERNAL, message, details)


def _status(code: int, message: str, details: Sequence[Message]) -> status_pb2.Status:
    status = status_pb2.Status(code=code, message=message)
    for detail in details:
        packed: Any = status.details.add()
        packed.Pack(detail)
    return status
