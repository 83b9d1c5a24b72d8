"""The contract written out once more, from its words: errors and permissions."""

from idpass_server.rules import refusals
from idpass_server.rules.records import Pass, Status

PASS = Pass(
    *("acme", "0198c0de-0000-7000-8000-000000000001", "new", "AUD", 1, 0, "", None, None),
    *(1_000_000, 2_000_001, 3_000_000, None, None, None, None, "demo", 1),
)


def ended(status: Status) -> refusals.PassEnded:
    return refusals.PassEnded(PASS._replace(status=status, end_time_us=2_500_000))


# (refusal, code, HTTP status, reason, metadata, further details)
ROWS = [
    (
        refusals.InvalidRequest([refusals.Violation("id", "is bad")]),
        ("INVALID_ARGUMENT", 400, "INVALID_REQUEST"),
        set(),
        {"BadRequest"},
    ),
    (
        refusals.RequestIdReused("r"),
        ("INVALID_ARGUMENT", 400, "REQUEST_ID_REUSED"),
        {"requestId"},
        {"BadRequest"},
    ),
    (
        refusals.Unauthenticated(),
        ("UNAUTHENTICATED", 401, "UNAUTHENTICATED_CALLER"),
        set(),
        set(),
    ),
    (
        refusals.NotPermitted("cancel"),
        ("PERMISSION_DENIED", 403, "METHOD_NOT_PERMITTED"),
        {"permission"},
        set(),
    ),
    (
        refusals.AccountDisabled("acme"),
        ("PERMISSION_DENIED", 403, "ACCOUNT_DISABLED"),
        {"account"},
        set(),
    ),
    (
        refusals.PassNotFound(PASS.id),
        ("NOT_FOUND", 404, "PASS_NOT_FOUND"),
        {"id"},
        {"ResourceInfo"},
    ),
    (
        ended(Status.CANCELLED),
        ("FAILED_PRECONDITION", 400, "PASS_ALREADY_CANCELLED"),
        {"id", "status", "endTime", "cancelTime", "feeRefunded", "reason", "supersededBy"},
        {"PreconditionFailure"},
    ),
    *(
        (
            ended(status),
            ("FAILED_PRECONDITION", 400, f"PASS_{status.name}"),
            {"id", "status", "endTime"},
            {"PreconditionFailure"},
        )
        for status in (Status.COMPLETE, Status.EXPIRED, Status.FAILED)
    ),
    (
        refusals.TransitionNotAllowed(PASS, Status.COMPLETE, (Status.OPENED, Status.EXPIRED)),
        ("FAILED_PRECONDITION", 400, "TRANSITION_NOT_ALLOWED"),
        {"id", "status", "allowed"},
        {"PreconditionFailure"},
    ),
    (
        refusals.RefundNotAvailable(PASS),
        ("FAILED_PRECONDITION", 400, "REFUND_NOT_AVAILABLE"),
        {"id", "status"},
        {"PreconditionFailure"},
    ),
    (
        refusals.HistoryLost("01932c07-0000-7000-8000-000000000000", 7, 5),
        ("FAILED_PRECONDITION", 400, "HISTORY_LOST"),
        {"afterSequence", "oldestSequence", "history"},
        {"PreconditionFailure"},
    ),
    (
        refusals.PassChanged(PASS, Status.OPENED),
        ("ABORTED", 409, "PASS_CHANGED"),
        {"id", "status"},
        set(),
    ),
    (
        refusals.NoFreeSlot("acme", 10),
        ("RESOURCE_EXHAUSTED", 429, "NO_FREE_SLOT"),
        {"slotLimit"},
        {"QuotaFailure"},
    ),
    (
        refusals.DailyQuotaExhausted("acme", 10, 86_400_000_000),
        ("RESOURCE_EXHAUSTED", 429, "DAILY_QUOTA_EXHAUSTED"),
        {"registrationsPerDay", "resetTime"},
        {"QuotaFailure"},
    ),
    (
        refusals.WebhooksDisabled(),
        ("FAILED_PRECONDITION", 400, "WEBHOOKS_DISABLED"),
        set(),
        set(),
    ),
    (
        refusals.WebhookNotFound(PASS.id),
        ("NOT_FOUND", 404, "WEBHOOK_NOT_FOUND"),
        {"id"},
        {"ResourceInfo"},
    ),
    (
        refusals.TooManyWebhooks("acme", 20),
        ("RESOURCE_EXHAUSTED", 429, "TOO_MANY_WEBHOOKS"),
        {"webhookLimit"},
        {"QuotaFailure"},
    ),
    (
        refusals.Overloaded("too many calls are in flight"),
        ("RESOURCE_EXHAUSTED", 429, "OVERLOADED"),
        {"cause"},
        {"RetryInfo"},
    ),
    (
        refusals.StoreUnavailable("the disk is full"),
        ("UNAVAILABLE", 503, "STORE_UNAVAILABLE"),
        {"outcome"},
        {"RetryInfo"},
    ),
    (refusals.InternalFault(), ("INTERNAL", 500, "INTERNAL"), set(), set()),
]

NEEDS = {
    "CancelIdPass": "cancel",
    "BatchCancelIdPasses": "cancel",
    "RegisterIdPass": "register",
    "AdvanceIdPass": "advance",
    "GetIdPass": "read",
    "ListIdPasses": "read",
    "GetAccount": "read",
    "WatchIdPasses": "watch",
    "CreateWebhook": "webhooks",
    "GetWebhook": "webhooks",
    "ListWebhooks": "webhooks",
    "UpdateWebhook": "webhooks",
    "DeleteWebhook": "webhooks",
    "RotateWebhookSecret": "webhooks",
    "TestWebhook": "webhooks",
    "ListWebhookDeliveries": "webhooks",
    "RedeliverWebhookEvents": "webhooks",
}
