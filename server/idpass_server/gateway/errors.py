"""Errors over HTTP: a google.rpc.Status in JSON, with the HTTP status of its code.

The service's refusals are passed on unchanged. What the gateway cannot read is refused in the same
form, as INVALID_ARGUMENT with the reason INVALID_REQUEST; where HTTP has a more exact status
(403, 404, 405, 408, 413, 415, 421, 431, 505), that one is sent.
"""

import json
import math
import uuid
from collections.abc import Sequence
from typing import Any, Final

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from idpass_server.gateway import messages, passed_on
from idpass_server.gateway.codes import HTTP_STATUS
from idpass_server.gateway.folding import Folded
from idpass_server.gateway.messages import Violations
from idpass_server.gateway.pace import Pace

DOMAIN: Final = "idpass.v1"
DETAILS_KEY: Final = "grpc-status-details-bin"
RETRY_S: Final = 1
"""Delay that callers are told to retry after, seconds."""

_TOO_LARGE: Final = "message larger than max"
"""gRPC's words for a message over its limit; no retry will help."""
_LOST: Final = {code_pb2.UNAVAILABLE, code_pb2.DEADLINE_EXCEEDED, code_pb2.CANCELLED}

_log: Final = Folded()
_PACE: Final = Pace()


class HttpError(Exception):
    """An error to answer a request with.

    Args:
        http_status: of the response.
        status: its body.
        headers: in addition to those that follow from the status.
        own: whether the gateway itself refuses; the service paces its own refusals.
    """

    def __init__(
        self,
        http_status: int,
        status: status_pb2.Status,
        headers: Sequence[tuple[str, str]] = (),
        *,
        own: bool = False,
    ) -> None:
        super().__init__(status.message)
        self.own = own
        self.http_status = http_status
        self.status = status
        self.headers = [*headers, *_headers(http_status, status)]

    async def turn(self) -> None:
        """Waits for its turn, if the gateway itself refuses."""
        if self.own:
            await _PACE.turn()

    def body(self) -> bytes:
        return json.dumps(messages.status(self.status), separators=(",", ":")).encode()


def _headers(http_status: int, status: status_pb2.Status) -> list[tuple[str, str]]:
    headers = []
    if http_status == 401:  # noqa: PLR2004 RFC 9110 requires the header
        headers.append(("www-authenticate", "Bearer"))
    retry_info, request_info = error_details_pb2.RetryInfo(), error_details_pb2.RequestInfo()
    for detail in status.details:
        if detail.Unpack(retry_info):
            seconds = retry_info.retry_delay.ToNanoseconds() / 1e9
            headers.append(("retry-after", str(math.ceil(seconds))))
        elif detail.Unpack(request_info):
            headers.append(("idpass-reference", request_info.request_id))
    return headers


def unreadable(
    description: str,
    *,
    http_status: int = 400,
    violations: Violations | None = None,
    headers: Sequence[tuple[str, str]] = (),
) -> HttpError:
    """The error for a request that the gateway itself refuses and the service never sees.

    Args:
        description: what is wrong, and what would do.
        http_status: of the response.
        violations: of fields, also listed in the details.
        headers: further ones.
    """
    reference = str(uuid.uuid4())
    _log.info("unreadable", http_status=http_status, reference=reference, why=description[:200])
    details: list[Message] = [
        error_details_pb2.ErrorInfo(reason="INVALID_REQUEST", domain=DOMAIN),
        error_details_pb2.RequestInfo(request_id=reference),
    ]
    if violations:
        fields = [
            error_details_pb2.BadRequest.FieldViolation(field=v.field, description=v.description)
            for v in violations.first
        ]
        details.append(error_details_pb2.BadRequest(field_violations=fields))
    status = _status(code_pb2.INVALID_ARGUMENT, f"The request is not valid: {description}", details)
    return HttpError(http_status, status, headers, own=True)


def invalid(violations: Violations) -> HttpError:
    """The error for fields that are wrong; those beyond MAX_VIOLATIONS are only counted."""
    text = "; ".join(f"{v.field}: {v.description}" for v in violations.first)
    if violations.more:
        text += f"; and {violations.more} more"
    return unreadable(text, violations=violations)


def overloaded(limit: int) -> HttpError:
    """The error for a connection beyond the limit. Args: limit: of open connections."""
    reference = str(uuid.uuid4())
    connections_full(limit, reference=reference)
    details = [
        error_details_pb2.ErrorInfo(
            reason="OVERLOADED", domain=DOMAIN, metadata={"cause": "server"}
        ),
        error_details_pb2.RequestInfo(request_id=reference),
        error_details_pb2.RetryInfo(retry_delay=Duration(seconds=RETRY_S)),
    ]
    message = "The server is overloaded: too many HTTP connections are open. Nothing was changed."
    return HttpError(503, _status(code_pb2.RESOURCE_EXHAUSTED, message, details))


def busy(message: str) -> HttpError:
    """The error for what only one may have at a time. Args: message: says what, and what to do."""
    details = [
        error_details_pb2.ErrorInfo(
            reason="OVERLOADED", domain=DOMAIN, metadata={"cause": "server"}
        ),
        error_details_pb2.RequestInfo(request_id=str(uuid.uuid4())),
        error_details_pb2.RetryInfo(retry_delay=Duration(seconds=RETRY_S)),
    ]
    return HttpError(429, _status(code_pb2.RESOURCE_EXHAUSTED, message, details), own=True)


def connections_full(limit: int, **values: str) -> None:
    """Logs that a connection was refused, or another closed to make room for it."""
    _log.info("http_connections_full", limit=limit, **values)


def from_rpc(error: grpc.aio.AioRpcError) -> HttpError:
    """The error for a refusal of the service, or of gRPC on the way to it."""
    code = error.code().value[0]
    status = status_pb2.Status()
    metadata = list(error.trailing_metadata() or ())
    for key, value in metadata:
        if key == DETAILS_KEY and isinstance(value, bytes):
            try:
                status = status_pb2.Status.FromString(value)
            except DecodeError:
                break
    if status.details:
        headers = passed_on.headers(metadata)
        return HttpError(HTTP_STATUS.get(status.code, 500), status, headers)
    return _from_grpc_itself(code, error.details() or "")


def no_answer() -> HttpError:
    """The error for a call that the service did not answer in time."""
    return _from_grpc_itself(code_pb2.DEADLINE_EXCEEDED, "no answer in time")


def fault() -> HttpError:
    """The error for a bug of the gateway."""
    return _from_grpc_itself(code_pb2.INTERNAL, "a fault of the gateway")


def _from_grpc_itself(code: int, text: str) -> HttpError:
    """An error without details is not the service's: the call was lost, or gRPC refused it."""
    reference = str(uuid.uuid4())
    _log.warning("not_answered", code=code_pb2.Code.Name(code), reference=reference, error=text)
    http_status = HTTP_STATUS.get(code, 500)
    metadata, retry = {}, True
    if code in _LOST:
        reason = "STORE_UNAVAILABLE"
        message = (
            "The service gave no answer; whether anything was changed is not known. Retry with "
            "the same request_id to learn it."
        )
        metadata = {"outcome": "unknown"}
        if code == code_pb2.CANCELLED:
            http_status = 503  # the service shed the call; it was not the client who cancelled
    elif code == code_pb2.RESOURCE_EXHAUSTED and _TOO_LARGE in text:
        reason, retry, http_status = "INVALID_REQUEST", False, 413
        message = "The request is larger than the service takes; send fewer or shorter values."
    elif code == code_pb2.RESOURCE_EXHAUSTED:
        reason, metadata = "OVERLOADED", {"cause": "server"}
        message = "The service is overloaded; nothing was changed."
    else:
        reason, retry, http_status, code = "INTERNAL", False, 500, code_pb2.INTERNAL
        message = "The service has a fault; report the reference."
    details: list[Message] = [
        error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata=metadata),
        error_details_pb2.RequestInfo(request_id=reference),
    ]
    if retry:
        details.append(error_details_pb2.RetryInfo(retry_delay=Duration(seconds=RETRY_S)))
    return HttpError(http_status, _status(code, message, details))


def _status(code: int, message: str, details: Sequence[Message]) -> status_pb2.Status:
    status = status_pb2.Status(code=code, message=message)
    for detail in details:
        packed: Any = status.details.add()
        packed.Pack(detail)
    return status
