"""The body of an error for each reason, for the OpenAPI document; tests compare them with the
service's own.
"""

from collections.abc import Mapping
from typing import Any, Final, cast

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import code_pb2, status_pb2
from google.rpc import error_details_pb2 as details_pb2

from idpass_server.gateway import messages

Json = dict[str, Any]

DOMAIN: Final = "idpass.v1"
REFERENCE: Final = "01a207c4-5b12-7f90-8c3e-f0a1762d94b5"
_NO_UUID: Final = "'pass-7' is not a UUID"
_REUSED: Final = "was used before for a different request; use a new one"
_ENDED: Final = "its status can no longer change."

MESSAGES: Final = {
    "INVALID_REQUEST": f"The request is not valid: id: {_NO_UUID}",
    "REQUEST_ID_REUSED": f"request_id '{{requestId}}' {_REUSED}",
    "UNAUTHENTICATED_CALLER": (
        "The call has no credentials, or unknown ones. Send one token as metadata "
        "'authorization: Bearer TOKEN', or use a client certificate with one URI name."
    ),
    "METHOD_NOT_PERMITTED": "This caller lacks the permission '{permission}'.",
    "ACCOUNT_DISABLED": (
        "Account {account} is disabled, and nothing was changed; its passes can still be read. "
        "The service's operator can enable it."
    ),
    "PASS_NOT_FOUND": ("There is no ID Pass {id}; check the id and the account you call for."),
    "PASS_ALREADY_CANCELLED": f"ID Pass {{id}} was cancelled before ({{endTime}}); {_ENDED}",
    "PASS_COMPLETE": f"ID Pass {{id}} is complete ({{endTime}}); {_ENDED}",
    "PASS_EXPIRED": f"ID Pass {{id}} has expired ({{endTime}}); {_ENDED}",
    "PASS_FAILED": f"ID Pass {{id}} has failed ({{endTime}}); {_ENDED}",
    "TRANSITION_NOT_ALLOWED": (
        "ID Pass {id} is {status} and cannot become complete; it can become {allowed}."
    ),
    "REFUND_NOT_AVAILABLE": (
        "ID Pass {id} is {status}: verification has begun, so the fee would not be refunded. To "
        "cancel all the same, leave out require_refund."
    ),
    "HISTORY_LOST": (
        "Position {afterSequence} is from a history that is no longer there: the database was "
        "restored from an older backup, or old passes were purged. Call GetAccount, list the "
        "passes to learn where they stand, and go on after its last_sequence."
    ),
    "PASS_CHANGED": "ID Pass {id} is {status}, not new as expected; read it and decide again.",
    "NO_FREE_SLOT": (
        "All {slotLimit} slots of account acme are in use; cancel a pass or wait for one to end."
    ),
    "DAILY_QUOTA_EXHAUSTED": (
        "Account acme has registered the {registrationsPerDay} passes that it may in a day; the "
        "next day begins at {resetTime}."
    ),
    "WEBHOOKS_DISABLED": (
        "This server sends no webhooks: it has no key to sign with. Its operator can give it one "
        "with --webhook-key; WatchIdPasses streams the same events."
    ),
    "WEBHOOK_NOT_FOUND": "There is no webhook {id} in this account.",
    "TOO_MANY_WEBHOOKS": (
        "Account acme has {webhookLimit} webhooks, as many as it may; delete one."
    ),
    "OVERLOADED": (
        "The call is over the rate: this caller makes more than 100 calls a second. Nothing was "
        "changed; retry later."
    ),
    "STORE_UNAVAILABLE": "The service cannot answer now: the disk is full.",
    "INTERNAL": "The service failed; report the reference of this call.",
}
"""What each reason's message says, with names of its metadata."""
_PRECONDITIONS: Final = {
    "PASS_ALREADY_CANCELLED",
    "PASS_COMPLETE",
    "PASS_EXPIRED",
    "PASS_FAILED",
    "TRANSITION_NOT_ALLOWED",
    "REFUND_NOT_AVAILABLE",
}

UNKNOWN_OUTCOME: Final = (
    "The service gave no answer; whether anything was changed is not known. Retry with the same "
    "request_id to learn it."
)
OWN: Final = {
    408: "the body did not arrive within 30 s",
    413: "the body is longer than 16384 bytes; send fewer or shorter values",
    415: "the body has to be JSON in UTF-8; send Content-Type: application/json",
}
"""Why the gateway itself refuses a request, by the HTTP status for it."""


def example(code: int, reason: str, metadata: Mapping[str, str]) -> Json:
    """An error as the service tells it.

    Args:
        code: of google.rpc.Code.
        reason: name of an ErrorReason.
        metadata: of the ErrorInfo.
    """
    message = MESSAGES[reason].format_map(metadata)
    return body(code, reason, message, metadata, *_further(reason, message, metadata))


def body(
    code: int, reason: str, message: str, metadata: Mapping[str, str], *further: Message
) -> Json:
    """An error with ErrorInfo and RequestInfo. Args: further: details."""
    status = status_pb2.Status(code=code, message=message)
    info = details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata=metadata)
    for detail in (info, details_pb2.RequestInfo(request_id=REFERENCE), *further):
        cast("Any", status.details.add()).Pack(detail)
    shown = messages.status(status)
    if metadata:  # a map of protobuf has no order
        shown["details"][0]["metadata"] = dict(metadata)
    return shown


def _further(reason: str, message: str, metadata: Mapping[str, str]) -> list[Message]:
    """The details beside ErrorInfo and RequestInfo."""
    found: Message
    match reason:
        case "INVALID_REQUEST":
            found = _bad_request("id", _NO_UUID)
        case "REQUEST_ID_REUSED":
            found = _bad_request("request_id", _REUSED)
        case "PASS_NOT_FOUND" | "WEBHOOK_NOT_FOUND":
            kind = "IdPass" if reason.startswith("PASS") else "Webhook"
            found = details_pb2.ResourceInfo(
                resource_type=f"{DOMAIN}.{kind}", resource_name=metadata["id"], description=message
            )
        case "NO_FREE_SLOT" | "DAILY_QUOTA_EXHAUSTED" | "TOO_MANY_WEBHOOKS":
            violation = details_pb2.QuotaFailure.Violation(
                subject="accounts/acme", description=message
            )
            found = details_pb2.QuotaFailure(violations=[violation])
        case "OVERLOADED":
            found = retry_in(0.2)
        case "STORE_UNAVAILABLE":
            found = retry_in(1)
        case "HISTORY_LOST":
            found = _precondition(reason, f"histories/{metadata['history']}", message)
        case _ if reason in _PRECONDITIONS:
            found = _precondition(reason, f"idPasses/{metadata['id']}", message)
        case _:
            return []
    return [found]


def retry_in(delay_s: float) -> Message:
    """The detail that suggests when to retry."""
    delay = Duration()
    delay.FromMilliseconds(int(delay_s * 1_000))
    found: Message = details_pb2.RetryInfo(retry_delay=delay)
    return found


def unreadable(description: str) -> Json:
    """The error for a request that the gateway itself refuses."""
    message = f"The request is not valid: {description}"
    return body(code_pb2.INVALID_ARGUMENT, "INVALID_REQUEST", message, {})


def _bad_request(field: str, description: str) -> Message:
    violation = details_pb2.BadRequest.FieldViolation(field=field, description=description)
    found: Message = details_pb2.BadRequest(field_violations=[violation])
    return found


def _precondition(kind: str, subject: str, message: str) -> Message:
    violation = details_pb2.PreconditionFailure.Violation(
        type=kind, subject=subject, description=message
    )
    found: Message = details_pb2.PreconditionFailure(violations=[violation])
    return found
