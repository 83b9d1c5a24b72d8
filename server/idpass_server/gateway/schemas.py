"""The parts of the OpenAPI document that are not in the protos: limits, money, errors, preface."""

from typing import Any, Final

from idpass_server.gateway import messages

Json = dict[str, Any]

UUID: Final = {"type": "string", "format": "uuid"}
UUID_OR_EMPTY: Final = {
    "type": "string",
    "pattern": "^([0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12})?$",
}
KEY: Final = {"type": "string", "pattern": "^[!-~]{1,128}$"}
KEY_OR_EMPTY: Final = {"type": "string", "pattern": "^[!-~]{0,128}$"}
_STEERING: Final = (
    "\\u0000-\\u0008\\u000b\\u000c\\u000e-\\u001f\\u007f-\\u009f\\u202a-\\u202e\\u2066-\\u2069"
)
TEXT: Final = {"type": "string", "pattern": f"^[^{_STEERING}]*$"}
LINE: Final = {"type": "string", "pattern": f"^[^{_STEERING}\\t\\n\\r\\u2028\\u2029]*$"}
MOMENT: Final = {"type": "string", "format": "date-time"}

URL: Final[Json] = {"type": "string", "format": "uri", "maxLength": 2048}

HEADERS: Final[Json] = {
    "Reference": {
        "description": "The call's own reference, also of a replay; the service logs it.",
        "schema": {"type": "string"},
    },
    "RateLimitPolicy": {
        "description": (
            "The caller's rate, if it has one: `q` calls in `w` seconds, in the long run. As "
            "draft-ietf-httpapi-ratelimit-headers has it."
        ),
        "schema": {"type": "string", "examples": ['"rate";q=1000;w=2']},
    },
    "RateLimit": {
        "description": (
            "What is left of the caller's rate, if it has one: `r` calls at once, and one more in "
            "`t` seconds."
        ),
        "schema": {"type": "string", "examples": ['"rate";r=998;t=1']},
    },
    "RetryAfter": {
        "description": "Seconds, where a retry may help.",
        "schema": {"type": "integer"},
    },
    "Authenticate": {"description": "`Bearer`.", "schema": {"type": "string"}},
}


def headers(*names: str) -> Json:
    """References to headers. Args: names: in HEADERS, beside that of every answer."""
    spelled = {
        "RateLimitPolicy": "RateLimit-Policy",
        "RetryAfter": "Retry-After",
        "Authenticate": "WWW-Authenticate",
    }
    references = {"Idpass-Reference": "Reference"} | {spelled.get(n, n): n for n in names}
    return {
        name: {"$ref": f"#/components/headers/{reference}"}
        for name, reference in references.items()
    }


# Limits of fields of requests, which the comments give in words. The service alone decides; tests
# compare the two.
LIMITS: Final[dict[str, Json]] = {
    "CancelRequest.id": UUID,
    "CancelRequest.request_id": KEY_OR_EMPTY,
    "CancelRequest.note": {**TEXT, "maxLength": 500},
    "BatchCancelRequest.requests": {"minItems": 1, "maxItems": 1000},
    "RegisterRequest.request_id": KEY_OR_EMPTY,
    "RegisterRequest.link_validity_days": {"minimum": 0, "maximum": 14},
    "RegisterRequest.applicant_reference": {**LINE, "maxLength": 128},
    "RegisterRequest.supersedes": UUID_OR_EMPTY,
    "AdvanceRequest.id": UUID,
    "AdvanceRequest.request_id": KEY_OR_EMPTY,
    "AdvanceRequest.to_status": {
        "enum": ["opened", "in_progress", "complete", "expired", "failed"]
    },
    "GetRequest.id": UUID,
    "ListRequest.page_size": {"minimum": 0},
    "ListRequest.statuses": {"maxItems": 50},
    "ListRequest.applicant_reference": {**LINE, "maxLength": 128},
    "CreateWebhookRequest.url": URL,
    "CreateWebhookRequest.statuses": {"maxItems": 50},
    "CreateWebhookRequest.after_sequence": {"minimum": 0},
    "CreateWebhookRequest.request_id": KEY_OR_EMPTY,
    "GetWebhookRequest.id": UUID,
    "UpdateWebhookRequest.id": UUID,
    "UpdateWebhookRequest.url": {"maxLength": URL["maxLength"]},
    "UpdateWebhookRequest.statuses": {"maxItems": 50},
    "DeleteWebhookRequest.id": UUID,
    "RotateWebhookSecretRequest.id": UUID,
    "TestWebhookRequest.id": UUID,
    "ListWebhookDeliveriesRequest.id": UUID,
    "ListWebhookDeliveriesRequest.page_size": {"minimum": 0},
    "RedeliverWebhookEventsRequest.id": UUID,
    "RedeliverWebhookEventsRequest.sequence": {"minimum": 0},
    "RedeliverWebhookEventsRequest.from_sequence": {"minimum": 0},
    "WatchRequest.after_sequence": {"minimum": 0},
    "WatchRequest.id": UUID_OR_EMPTY,
    "WatchRequest.history": UUID_OR_EMPTY,
}
KNOWN: Final[dict[str, Json]] = {
    messages.TIMESTAMP: MOMENT,
    messages.MONEY: {"$ref": "#/components/schemas/Money"},
    messages.STATUS: {"$ref": "#/components/schemas/Status"},
}
MONEY: Final[Json] = {
    "type": "object",
    "description": "An amount of money.",
    "properties": {
        "currency": {"type": "string", "description": "ISO 4217.", "examples": ["AUD"]},
        "amount": {
            "type": "string",
            "pattern": r"^-?\d+\.\d{2,9}$",
            "description": "In units of the currency; a string, since it is exact.",
            "examples": ["4.50"],
        },
    },
    "required": ["currency", "amount"],
}
STATUS: Final[Json] = {
    "type": "object",
    "description": (
        "A google.rpc.Status. Match the `reason` of the ErrorInfo in `details`, never the "
        "message. `request_id` of the RequestInfo is the reference of the call."
    ),
    "properties": {
        "code": {"type": "integer", "description": "Of google/rpc/code.proto."},
        "message": {"type": "string", "description": "For people."},
        "details": {"type": "array", "items": {"$ref": "#/components/schemas/Detail"}},
    },
    "required": ["code", "message", "details"],
}
VIOLATION: Final[Json] = {
    "type": "object",
    "description": "One thing that is wrong or missing.",
    "properties": {
        "field": {"type": "string", "description": "Of a BadRequest: path of the field."},
        "type": {"type": "string", "description": "Of a PreconditionFailure: the reason again."},
        "subject": {"type": "string", "description": "What it is about, but for a BadRequest."},
        "description": {"type": "string", "description": "What is wrong, for people."},
    },
}
DETAIL: Final[Json] = {
    "type": "object",
    "description": (
        "A message of google/rpc/error_details.proto; `@type` says which, and with it which of the "
        "fields there are."
    ),
    "properties": {
        "@type": {
            "type": "string",
            "description": "Such as `type.googleapis.com/google.rpc.ErrorInfo`.",
        },
        "reason": {
            "type": "string",
            "description": "ErrorInfo: why the call was refused; more reasons may come.",
        },
        "domain": {"type": "string", "description": "ErrorInfo: `idpass.v1`."},
        "metadata": {
            "type": "object",
            "additionalProperties": {"type": "string"},
            "description": "ErrorInfo: facts that go with the reason.",
        },
        "request_id": {
            "type": "string",
            "description": "RequestInfo: the reference of the call.",
        },
        "field_violations": {
            "type": "array",
            "items": {"$ref": "#/components/schemas/Violation"},
            "description": "BadRequest: `field` and `description` of what is wrong, up to 20.",
        },
        "violations": {
            "type": "array",
            "items": {"$ref": "#/components/schemas/Violation"},
            "description": "PreconditionFailure, QuotaFailure: what stands in the way.",
        },
        "resource_type": {"type": "string", "description": "ResourceInfo: what was not found."},
        "resource_name": {"type": "string", "description": "ResourceInfo: its id."},
        "description": {"type": "string", "description": "ResourceInfo: the message again."},
        "retry_delay": {
            "type": "string",
            "description": "RetryInfo: delay after which a retry may help, such as `0.200s`.",
        },
    },
    "required": ["@type"],
}
SERVERS: Final = [
    {"url": "/", "description": "The server that this document comes from."},
    {"url": "http://localhost:8080", "description": "A server on this machine: `make serve`."},
]
HEAD: Final = """\
The HTTP/JSON form of the gRPC service `idpass.v1.IdPassService`: each request is one gRPC call.

* Bodies are JSON objects in UTF-8. Unknown fields are refused. Statuses and reasons are \
lower-case words. What is not set is left out of an answer; booleans, numbers and lists always \
stand.
* The header `Idempotency-Key` is the same as `request_id` in the body.
* Errors have the HTTP status that google/rpc/code.proto gives for their code, a \
google.rpc.Status as body, and `Retry-After` where a retry may help: `cause` in the metadata says \
whether the caller calls too often (`rate`) or too much is asked of the server (`server`).
* `Idpass-Reference` is in the head of every answer, errors included.
* Bodies have at most 16,384 bytes, that of `/idpass/batch-cancel` 2,500,000.

"""
