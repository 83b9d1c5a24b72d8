"""The errors of each operation in the OpenAPI document: which HTTP statuses, which reasons, and an
example of each.

Which reasons a method gives is what its comment in the protos says; a reason's code and metadata
are those of the comment at ErrorReason.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from google.protobuf.descriptor import EnumDescriptor, MethodDescriptor
from google.rpc import code_pb2

from idpass.v1 import error_reason_pb2
from idpass_server.gateway import error_examples, examples
from idpass_server.gateway.codes import HTTP_STATUS
from idpass_server.gateway.error_examples import Json
from idpass_server.gateway.routes import WEBHOOKS
from idpass_server.gateway.schemas import headers

_REASONS: Final[EnumDescriptor] = error_reason_pb2.DESCRIPTOR.enum_types_by_name["ErrorReason"]
_PREFIX: Final = "ERROR_REASON_"
_OF_EVERY_METHOD: Final = (
    "INVALID_REQUEST",
    "UNAUTHENTICATED_CALLER",
    "METHOD_NOT_PERMITTED",
    "OVERLOADED",
    "STORE_UNAVAILABLE",
    "INTERNAL",
)
"""As the head of id_pass_service.proto says."""
_DISABLED: Final = {"CancelIdPass", "RegisterIdPass", "AdvanceIdPass"}
"""Methods that answer ACCOUNT_DISABLED; those of webhooks do not, and a batch's items do."""
_ALIKE: Final = {
    401: "Unauthenticated",
    408: "BodyTooSlow",
    413: "BodyTooLarge",
    415: "BodyNotJson",
    500: "Fault",
    503: "Unavailable",
    504: "NoAnswer",
}
"""Responses that are the same for every operation, by status."""
_BEFORE_THE_CALL: Final = {401, 408, 413, 415}
"""Statuses that are answered before a caller is known, whose rate could be told."""
_DESCRIPTIONS: Final = {
    400: "The request is not valid, or does not go with the state of things.",
    401: "The credentials are missing or unknown.",
    403: "The caller may not do this.",
    404: "There is no such thing in the caller's account.",
    408: "The body did not arrive in time.",
    409: "The pass is not in `expected_status`.",
    413: "The body is too long.",
    415: "The body is not JSON, or encoded.",
    429: "A quota or a rate is used up.",
    500: "A bug; report the reference.",
    503: "The service cannot answer now. `outcome` in the metadata says whether a change may have "
    "been made; repeat the request with its `request_id`.",
    504: "The service gave no answer in time; whether anything was changed is not known. Repeat "
    "the request with its `request_id`.",
}


class _Reason(NamedTuple):
    """What the protos say of a reason.

    Attributes:
        http_status: of its errors.
        description: in words.
        example: an error's body.
    """

    http_status: int
    description: str
    example: Json


class Errors:
    """Args: comments: of the protos, by full name."""

    def __init__(self, comments: Mapping[str, str]) -> None:
        self._comments = comments
        package = _REASONS.file.package
        self._reasons = {
            value.name.removeprefix(_PREFIX): _reason(
                value.name.removeprefix(_PREFIX), comments[f"{package}.{value.name}"]
            )
            for value in _REASONS.values
            if value.number
        }

    def of(self, method: MethodDescriptor, *, with_body: bool) -> Json:
        """The responses of a method's errors. Args: with_body: whether a request has one."""
        by_status: dict[int, list[str]] = {}
        for reason in self._reasons_of(method):
            by_status.setdefault(self._reasons[reason].http_status, []).append(reason)
        statuses = {*by_status, 504, *([408, 413, 415] if with_body else [])}
        return {
            str(status): {"$ref": f"#/components/responses/{_ALIKE[status]}"}
            if status in _ALIKE
            else _response(status, _references(by_status[status]))
            for status in sorted(statuses)
        } | {
            "4XX": {"$ref": "#/components/responses/Refused"},
            "5XX": {"$ref": "#/components/responses/Refused"},
        }

    def examples(self) -> Json:
        """The example of each reason, for the components."""
        return {
            reason: {"summary": told.description.partition(". ")[0], "value": told.example}
            for reason, told in sorted(self._reasons.items())
        }

    def responses(self) -> Json:
        """The responses of more than one operation, for the components."""
        full = error_examples.body(
            code_pb2.RESOURCE_EXHAUSTED,
            "OVERLOADED",
            "The server is overloaded: too many HTTP connections are open. Nothing was changed.",
            {"cause": "server"},
            error_examples.retry_in(1),
        )
        silent = error_examples.body(
            code_pb2.DEADLINE_EXCEEDED,
            "STORE_UNAVAILABLE",
            error_examples.UNKNOWN_OUTCOME,
            {"outcome": "unknown"},
            error_examples.retry_in(1),
        )
        own = {
            status: {"INVALID_REQUEST": {"value": error_examples.unreadable(description)}}
            for status, description in error_examples.OWN.items()
        }
        shown: dict[int, Json] = {
            401: _references(["UNAUTHENTICATED_CALLER"]),
            **own,
            500: _references(["INTERNAL"]),
            503: _references(["STORE_UNAVAILABLE"]) | {"OVERLOADED": {"value": full}},
            504: {"STORE_UNAVAILABLE": {"value": silent}},
        }
        alike = {name: _response(status, shown[status]) for status, name in _ALIKE.items()}
        refused = _response(None, {})
        return alike | {"Refused": refused}

    def _reasons_of(self, method: MethodDescriptor) -> Iterator[str]:
        yield from _OF_EVERY_METHOD
        if method.name in _DISABLED:
            yield "ACCOUNT_DISABLED"
        if method.containing_service.full_name == WEBHOOKS.full_name:
            yield "WEBHOOKS_DISABLED"
        comment = self._comments[method.full_name]
        said = re.search(r"^Errors: (.*?)(?:Retry:|\n\n|\Z)", comment, re.DOTALL | re.MULTILINE)
        words = re.findall(r"\b[A-Z_]+\b", said[1]) if said else []
        yield from dict.fromkeys(
            w for w in words if w in self._reasons and w not in _OF_EVERY_METHOD
        )


def _reason(name: str, comment: str) -> _Reason:
    words, _, sample = comment.partition("\n\n")
    code, _, description = words.partition(". ")
    number = code_pb2.Code.Value(code)
    metadata = json.loads(sample)["metadata"]
    whole = {  # the comments shorten ids
        "id": examples.WEBHOOK if name.startswith("WEBHOOK") else examples.FIRST,
        "history": examples.HISTORY,
    }
    metadata |= {key: whole[key] for key in whole.keys() & metadata.keys()}
    example = error_examples.example(number, name, metadata)
    return _Reason(HTTP_STATUS.get(number, 500), description, example)


def _references(reasons: list[str]) -> Json:
    return {reason: {"$ref": f"#/components/examples/{reason}"} for reason in reasons}


def _response(status: int | None, shown: Json) -> Json:
    named = ["RateLimitPolicy", "RateLimit"] if status not in _BEFORE_THE_CALL else []
    if status == 401:  # noqa: PLR2004 RFC 9110 requires the header
        named.append("Authenticate")
    if status in {None, 429, 503, 504}:
        named.append("RetryAfter")
    content: Json = {"schema": {"$ref": "#/components/schemas/Status"}}
    if shown:
        content["examples"] = shown
    return {
        "description": _DESCRIPTIONS[status]
        if status
        else "The request is refused; see the details.",
        "headers": headers(*named),
        "content": {"application/json": content},
    }
