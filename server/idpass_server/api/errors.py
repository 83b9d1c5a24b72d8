"""Refusals as callers see them: one table from a refusal's type to code, reason and details.

The only place that knows both. Refusals come in as facts; a google.rpc.Status goes out, with an
ErrorInfo (programs match its reason), a RequestInfo (the call's reference), and further details
that help. An exception that is not a refusal is a bug, and its text never gets here. The module is
long because the table is read as a whole.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2 as details_pb2
from google.rpc import status_pb2

from idpass_server.rules.records import Pass, Status
from idpass_server.rules.refusals import (
    AccountDisabled,
    DailyQuotaExhausted,
    HistoryLost,
    InternalFault,
    InvalidRequest,
    NoFreeSlot,
    NotPermitted,
    Overloaded,
    PassChanged,
    PassEnded,
    PassNotFound,
    RefundNotAvailable,
    Refusal,
    RequestIdReused,
    StoreUnavailable,
    TooManyWebhooks,
    TransitionNotAllowed,
    Unauthenticated,
    WebhookNotFound,
    WebhooksDisabled,
)

DOMAIN: Final = "idpass.v1"
RESOURCE_TYPE: Final = "idpass.v1.IdPass"
OVERLOADED_RETRY_MS: Final = 200
"""Shortest retry delay that OVERLOADED suggests, milliseconds."""
UNAVAILABLE_RETRY_MS: Final = 1_000
"""Retry delay that STORE_UNAVAILABLE suggests, milliseconds."""

# Clients reject trailers of more than 8 KB, some proxies of more than 4 KB. What depends on the
# request must stay below that, in base64 and beside the message.
MAX_VIOLATIONS: Final = 20
"""Largest number of violations in an error."""
MAX_VIOLATIONS_BYTES: Final = 1_100
"""Largest size of an error's violations, serialised, bytes."""
MAX_MESSAGE_BYTES: Final = 600
"""Largest size of the part of a message that depends on the request, as gRPC encodes it, bytes."""


class Told(NamedTuple):
    """A refusal for its caller, without code and reference.

    Attributes:
        reason: name of an ErrorReason.
        message: for people.
        metadata: of the ErrorInfo, for programs.
        details: further messages, of types in google.rpc.
        retry_ms: suggested retry delay, milliseconds; None for none.
    """

    reason: str
    message: str
    metadata: Mapping[str, str] = {}
    details: Sequence[Message] = ()
    retry_ms: int | None = None


def _invalid_request(refusal: InvalidRequest) -> Told:
    bad_request = details_pb2.BadRequest()
    lines: list[str] = []
    for field, description in refusal.violations[:MAX_VIOLATIONS]:
        bad_request.field_violations.add(field=field, description=description)
        if bad_request.ByteSize() > MAX_VIOLATIONS_BYTES:
            del bad_request.field_violations[-1]
            break
        lines.append(f"{field}: {description}" if field else description)
    shown = _as_fits(lines, MAX_MESSAGE_BYTES)
    message = f"The request is not valid: {'; '.join(lines[:shown])}"
    if more := len(refusal.violations) - shown:
        message += f"; and {more} more"
    return Told("INVALID_REQUEST", message, details=[bad_request])


def _as_fits(lines: Sequence[str], most: int) -> int:
    """Number of lines, at least one, that fit into `most` bytes of a grpc-message.

    gRPC encodes everything but printable ASCII as %XX.
    """
    sizes = (sum(1 if 0x20 <= byte < 0x7F else 3 for byte in line.encode()) + 2 for line in lines)  # noqa: PLR2004 ASCII
    return max(1, sum(total <= most for total in itertools.accumulate(sizes)))


def _request_id_reused(refusal: RequestIdReused) -> Told:
    description = "was used before for a different request; use a new one"
    violation = details_pb2.BadRequest.FieldViolation(field="request_id", description=description)
    return Told(
        "REQUEST_ID_REUSED",
        f"request_id {refusal.request_id!r} {description}",
        {"requestId": refusal.request_id},
        [details_pb2.BadRequest(field_violations=[violation])],
    )


def _pass_not_found(refusal: PassNotFound) -> Told:
    message = f"There is no ID Pass {refusal.pass_id}; check the id and the account you call for."
    return Told(
        "PASS_NOT_FOUND",
        message,
        {"id": refusal.pass_id},
        [
            details_pb2.ResourceInfo(
                resource_type=RESOURCE_TYPE, resource_name=refusal.pass_id, description=message
            )
        ],
    )


def _account_disabled(refusal: AccountDisabled) -> Told:
    return Told(
        "ACCOUNT_DISABLED",
        f"Account {refusal.account} is disabled, and nothing was changed; its passes can still be "
        "read. The service's operator can enable it.",
        {"account": refusal.account},
    )


_ENDED: Final = {
    Status.CANCELLED: ("PASS_ALREADY_CANCELLED", "was cancelled before"),
    Status.COMPLETE: ("PASS_COMPLETE", "is complete"),
    Status.EXPIRED: ("PASS_EXPIRED", "has expired"),
    Status.FAILED: ("PASS_FAILED", "has failed"),
}


def _pass_ended(refusal: PassEnded) -> Told:
    id_pass = refusal.id_pass
    reason, how = _ENDED[Status(id_pass.status)]
    end_time = rfc3339(id_pass.end_time_us or 0)
    metadata = {"id": id_pass.id, "status": str(id_pass.status), "endTime": end_time}
    if id_pass.status == Status.CANCELLED:
        metadata |= {
            "cancelTime": end_time,
            "feeRefunded": "true" if id_pass.fee_refunded else "false",
            "reason": id_pass.cancel_reason or "",
            "supersededBy": id_pass.superseded_by or "",
        }
    message = f"ID Pass {id_pass.id} {how} ({end_time}); its status can no longer change."
    return Told(reason, message, metadata, [_precondition(reason, id_pass, message)])


def _transition_not_allowed(refusal: TransitionNotAllowed) -> Told:
    id_pass, reason = refusal.id_pass, "TRANSITION_NOT_ALLOWED"
    allowed = ",".join(refusal.allowed)
    message = (
        f"ID Pass {id_pass.id} is {id_pass.status} and cannot become {refusal.to_status}; "
        f"it can become {allowed}."
    )
    return Told(
        reason,
        message,
        {"id": id_pass.id, "status": str(id_pass.status), "allowed": allowed},
        [_precondition(reason, id_pass, message)],
    )


def _refund_not_available(refusal: RefundNotAvailable) -> Told:
    id_pass, reason = refusal.id_pass, "REFUND_NOT_AVAILABLE"
    message = (
        f"ID Pass {id_pass.id} is {id_pass.status}: verification has begun, so the fee would not "
        "be refunded. To cancel all the same, leave out require_refund."
    )
    return Told(
        reason,
        message,
        {"id": id_pass.id, "status": str(id_pass.status)},
        [_precondition(reason, id_pass, message)],
    )


def _pass_changed(refusal: PassChanged) -> Told:
    id_pass = refusal.id_pass
    return Told(
        "PASS_CHANGED",
        f"ID Pass {id_pass.id} is {id_pass.status}, not {refusal.expected_status} as expected; "
        "read it and decide again.",
        {"id": id_pass.id, "status": str(id_pass.status)},
    )


def _history_lost(refusal: HistoryLost) -> Told:
    why = "the database was restored from an older backup, or old passes were purged"
    metadata = {"history": refusal.history}
    what = "The page token is"
    if refusal.after_sequence is not None:
        what = f"Position {refusal.after_sequence} is"
        metadata |= {
            "afterSequence": str(refusal.after_sequence),
            "oldestSequence": str(refusal.oldest_sequence),
        }
    reason = "HISTORY_LOST"
    message = (
        f"{what} from a history that is no longer there: {why}. Call GetAccount, list the passes "
        "to learn where they stand, and go on after its last_sequence."
    )
    violation = details_pb2.PreconditionFailure.Violation(
        type=reason, subject=f"histories/{refusal.history}", description=message
    )
    return Told(
        reason, message, metadata, [details_pb2.PreconditionFailure(violations=[violation])]
    )


def _no_free_slot(refusal: NoFreeSlot) -> Told:
    message = (
        f"All {refusal.slot_limit} slots of account {refusal.account} are in use; cancel a pass "
        "or wait for one to end."
    )
    violation = details_pb2.QuotaFailure.Violation(
        subject=f"accounts/{refusal.account}", description=message
    )
    return Told(
        "NO_FREE_SLOT",
        message,
        {"slotLimit": str(refusal.slot_limit)},
        [details_pb2.QuotaFailure(violations=[violation])],
    )


def _daily_quota_exhausted(refusal: DailyQuotaExhausted) -> Told:
    """Without a RetryInfo: who obeys it would hold its call until midnight."""
    reset_time = rfc3339(refusal.reset_time_us)
    message = (
        f"Account {refusal.account} has registered the {refusal.registrations_per_day} passes "
        f"that it may in a day; the next day begins at {reset_time}."
    )
    violation = details_pb2.QuotaFailure.Violation(
        subject=f"accounts/{refusal.account}", description=message
    )
    return Told(
        "DAILY_QUOTA_EXHAUSTED",
        message,
        {"registrationsPerDay": str(refusal.registrations_per_day), "resetTime": reset_time},
        [details_pb2.QuotaFailure(violations=[violation])],
    )


def _webhook_not_found(refusal: WebhookNotFound) -> Told:
    message = f"There is no webhook {refusal.webhook_id} in this account."
    resource = details_pb2.ResourceInfo(
        resource_type="idpass.v1.Webhook", resource_name=refusal.webhook_id, description=message
    )
    return Told("WEBHOOK_NOT_FOUND", message, {"id": refusal.webhook_id}, [resource])


def _too_many_webhooks(refusal: TooManyWebhooks) -> Told:
    message = (
        f"Account {refusal.account} has {refusal.limit} webhooks, as many as it may; delete one."
    )
    violation = details_pb2.QuotaFailure.Violation(
        subject=f"accounts/{refusal.account}", description=message
    )
    return Told(
        "TOO_MANY_WEBHOOKS",
        message,
        {"webhookLimit": str(refusal.limit)},
        [details_pb2.QuotaFailure(violations=[violation])],
    )


def _store_unavailable(refusal: StoreUnavailable) -> Told:
    message = f"The service cannot answer now: {refusal}."
    if refusal.outcome_unknown:
        message += " Retry with the same request_id to learn the outcome."
    return Told(
        "STORE_UNAVAILABLE",
        message,
        {"outcome": "unknown" if refusal.outcome_unknown else "not_committed"},
        retry_ms=refusal.retry_ms or UNAVAILABLE_RETRY_MS,
    )


_TOO_MUCH: Final = {"server": "The server is overloaded", "rate": "The call is over the rate"}

TABLE: Final[Mapping[type[Refusal], tuple[grpc.StatusCode, Callable[[Any], Told]]]] = {
    InvalidRequest: (grpc.StatusCode.INVALID_ARGUMENT, _invalid_request),
    RequestIdReused: (grpc.StatusCode.INVALID_ARGUMENT, _request_id_reused),
    Unauthenticated: (
        grpc.StatusCode.UNAUTHENTICATED,
        lambda _: Told(
            "UNAUTHENTICATED_CALLER",
            "The call has no credentials, or unknown ones. Send one token as metadata "
            "'authorization: Bearer TOKEN', or use a client certificate with one URI name.",
        ),
    ),
    NotPermitted: (
        grpc.StatusCode.PERMISSION_DENIED,
        lambda refusal: Told(
            "METHOD_NOT_PERMITTED",
            f"This caller lacks the permission '{refusal.permission}'.",
            {"permission": refusal.permission},
        ),
    ),
    PassNotFound: (grpc.StatusCode.NOT_FOUND, _pass_not_found),
    AccountDisabled: (grpc.StatusCode.PERMISSION_DENIED, _account_disabled),
    PassEnded: (grpc.StatusCode.FAILED_PRECONDITION, _pass_ended),
    TransitionNotAllowed: (grpc.StatusCode.FAILED_PRECONDITION, _transition_not_allowed),
    RefundNotAvailable: (grpc.StatusCode.FAILED_PRECONDITION, _refund_not_available),
    HistoryLost: (grpc.StatusCode.FAILED_PRECONDITION, _history_lost),
    PassChanged: (grpc.StatusCode.ABORTED, _pass_changed),
    NoFreeSlot: (grpc.StatusCode.RESOURCE_EXHAUSTED, _no_free_slot),
    DailyQuotaExhausted: (grpc.StatusCode.RESOURCE_EXHAUSTED, _daily_quota_exhausted),
    Overloaded: (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        lambda refusal: Told(
            "OVERLOADED",
            f"{_TOO_MUCH[refusal.cause]}: {refusal}. Nothing was changed; retry later.",
            {"cause": refusal.cause},
            retry_ms=max(refusal.retry_ms or 0, OVERLOADED_RETRY_MS),
        ),
    ),
    WebhooksDisabled: (
        grpc.StatusCode.FAILED_PRECONDITION,
        lambda _: Told(
            "WEBHOOKS_DISABLED",
            "This server sends no webhooks: it has no key to sign with. Its operator can give it "
            "one with --webhook-key; WatchIdPasses streams the same events.",
        ),
    ),
    WebhookNotFound: (grpc.StatusCode.NOT_FOUND, _webhook_not_found),
    TooManyWebhooks: (grpc.StatusCode.RESOURCE_EXHAUSTED, _too_many_webhooks),
    StoreUnavailable: (grpc.StatusCode.UNAVAILABLE, _store_unavailable),
    InternalFault: (
        grpc.StatusCode.INTERNAL,
        lambda _: Told("INTERNAL", "The service failed; report the reference of this call."),
    ),
}


class Error(NamedTuple):
    """A refusal as it goes over the wire.

    Attributes:
        code: of the call.
        reason: name of an ErrorReason.
        status: code, message and details.
        trailing_metadata: carries the status, and the retry delay for clients of gRPC.
    """

    code: grpc.StatusCode
    reason: str
    status: status_pb2.Status
    trailing_metadata: tuple[tuple[str, str | bytes], ...]


def tell(refusal: Refusal, reference: str) -> Error:
    """Builds the error for a refusal.

    Args:
        refusal: of a type in TABLE.
        reference: UUID of the call.

    Raises:
        KeyError: TABLE lacks the type.
    """
    code, describe = TABLE[type(refusal)]
    told = describe(refusal)
    details: list[Message] = [
        details_pb2.ErrorInfo(reason=told.reason, domain=DOMAIN, metadata=told.metadata),
        details_pb2.RequestInfo(request_id=reference),
        *told.details,
    ]
    metadata: list[tuple[str, str | bytes]] = []
    if told.retry_ms is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(told.retry_ms)
        details.append(details_pb2.RetryInfo(retry_delay=delay))
        metadata.append(("grpc-retry-pushback-ms", str(told.retry_ms)))
    status = status_pb2.Status(
        code=code.value[0], message=told.message, details=[_packed(detail) for detail in details]
    )
    metadata.append(("grpc-status-details-bin", status.SerializeToString()))
    return Error(code, told.reason, status, tuple(metadata))


def rfc3339(time_us: int) -> str:
    """Formats a time in microseconds since the epoch, with a fraction only if it has one."""
    moment = datetime.fromtimestamp(time_us // 1_000_000, UTC).replace(
        microsecond=time_us % 1_000_000
    )
    return moment.isoformat().replace("+00:00", "Z")


def _precondition(kind: str, id_pass: Pass, description: str) -> details_pb2.PreconditionFailure:
    violation = details_pb2.PreconditionFailure.Violation(
        type=kind, subject=f"idPasses/{id_pass.id}", description=description
    )
    return details_pb2.PreconditionFailure(violations=[violation])


def _packed(detail: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(detail)
    return packed
