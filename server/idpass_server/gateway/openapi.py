"""The OpenAPI 3.1 document, made from the protos with their comments.

Comments are not in the generated code, so `protos/generate.py` makes the document, from protoc's
image, and it is committed beside this module; `make check` says when it is stale.
"""

import json
import re
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from idpass.v1 import id_pass_pb2
from idpass_server.gateway import messages
from idpass_server.gateway.comments import comments
from idpass_server.gateway.routes import EVENTS_PATH, WATCH, HttpRoute, routes

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

REFERENCE: Final[Json] = {
    "description": "The call's own reference, also of a replay; the service logs it.",
    "schema": {"type": "string"},
}

# What the comments say in words of the fields of requests, said to programs. The service alone
# decides; the tests hold the two together.
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
    "WatchRequest.after_sequence": {"minimum": 0},
    "WatchRequest.id": UUID_OR_EMPTY,
}
_INTEGERS: Final = {FieldDescriptor.CPPTYPE_INT32: "int32", FieldDescriptor.CPPTYPE_INT64: "int64"}
_ENUMS: Final = tuple(id_pass_pb2.DESCRIPTOR.enum_types_by_name.values())
_WORDS: Final = {word.upper(): word for enum in _ENUMS for word in messages.enum_words(enum)}

_KNOWN: Final[dict[str, Json]] = {
    messages.TIMESTAMP: MOMENT,
    messages.MONEY: {"$ref": "#/components/schemas/Money"},
    messages.STATUS: {"$ref": "#/components/schemas/Status"},
}
_MONEY: Final[Json] = {
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
_STATUS: Final[Json] = {
    "type": "object",
    "description": (
        "A google.rpc.Status. Match the `reason` of the ErrorInfo in `details`, never the "
        "message. `request_id` of the RequestInfo is the reference of the call."
    ),
    "properties": {
        "code": {"type": "integer", "description": "Of google/rpc/code.proto."},
        "message": {"type": "string", "description": "For people."},
        "details": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"@type": {"type": "string"}},
                "required": ["@type"],
            },
        },
    },
    "required": ["code", "message", "details"],
    "examples": [
        {
            "code": 9,
            "message": "ID Pass 01932c07-… is complete (…); its status can no longer change.",
            "details": [
                {
                    "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                    "reason": "PASS_COMPLETE",
                    "domain": "idpass.v1",
                    "metadata": {"id": "01932c07-…", "status": "complete", "endTime": "…"},
                }
            ],
        }
    ],
}
_ERRORS: Final = {
    "4XX": {"$ref": "#/components/responses/Refused"},
    "5XX": {"$ref": "#/components/responses/Refused"},
}
_HEAD: Final = """\
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


class _Document:
    """
    Args:
        image: of the protos, with source info.
    """

    def __init__(self, image: FileDescriptorSet) -> None:
        self._comments = comments(image)
        self._schemas: dict[str, Json] = {"Money": _MONEY, "Status": _STATUS}

    def make(self) -> Json:
        paths = {route.path: {route.verb.lower(): self._operation(route)} for route in routes()}
        paths[EVENTS_PATH] = {"get": self._events()}
        package = WATCH.containing_service.file.package
        return {
            "openapi": "3.1.0",
            "info": {
                "title": "ID Pass service",
                "version": package.rpartition(".")[2],
                "description": _HEAD + self._comments[WATCH.containing_service.file.name],
                "license": {"name": "MIT", "identifier": "MIT"},
            },
            "security": [{}, {"bearer": []}],
            "paths": paths,
            "components": {
                "schemas": dict(sorted(self._schemas.items())),
                "responses": {
                    "Refused": {
                        "description": "The request is refused; see the details.",
                        "headers": {
                            "Idpass-Reference": REFERENCE,
                            "Retry-After": {
                                "description": "Seconds, where a retry may help.",
                                "schema": {"type": "integer"},
                            },
                        },
                        "content": _json({"$ref": "#/components/schemas/Status"}),
                    }
                },
                "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
            },
        }

    def _operation(self, route: HttpRoute) -> Json:
        operation = self._described(route.method.full_name, route.method.name)
        if "request_id" in route.request.fields_by_name:
            operation["parameters"] = [
                {
                    "name": "Idempotency-Key",
                    "in": "header",
                    "description": "The `request_id`, for callers who would rather say it here.",
                    "schema": KEY,
                }
            ]
        if route.verb == "POST":
            schema = self._schema(route.request, is_request=True)
            operation["requestBody"] = {"required": True, "content": _json(schema)}
        answer = {
            "description": self._comment(route.method.output_type.full_name),
            "headers": {"Idpass-Reference": REFERENCE},
            "content": _json(self._schema(route.method.output_type)),
        }
        return {**operation, "responses": {"200": answer, **_ERRORS}}

    def _events(self) -> Json:
        operation = self._described(WATCH.full_name, WATCH.name)
        operation["description"] += (
            "\n\nThe answer is a stream of server-sent events: the id of each is its sequence, "
            "its data is an IdPassEvent. A refusal in mid-stream comes as an event of type "
            "`error` whose data is a Status."
        )
        parameters = [
            {
                "name": field.name,
                "in": "query",
                "description": self._comment(field.full_name),
                "schema": self._value(field) | LIMITS[f"{WATCH.input_type.name}.{field.name}"],
            }
            for field in WATCH.input_type.fields
        ]
        parameters.append(
            {
                "name": "Last-Event-ID",
                "in": "header",
                "description": "As browsers send it when they resume; goes before after_sequence.",
                "schema": {"type": "integer", "format": "int64", "minimum": 0},
            }
        )
        self._schema(WATCH.output_type)
        answers = {
            "200": {
                "description": "Events, until the reader leaves.",
                "headers": {"Idpass-Reference": REFERENCE},
                "content": {"text/event-stream": {"schema": {"type": "string"}}},
            },
            "204": {"description": "The pass that was asked for has no more events to come."},
        }
        return {**operation, "parameters": parameters, "responses": {**answers, **_ERRORS}}

    def _described(self, full_name: str, name: str) -> Json:
        summary, _, description = self._comment(full_name).partition("\n\n")
        return {"operationId": name, "summary": summary, "description": description}

    def _schema(self, descriptor: Descriptor, *, is_request: bool = False) -> Json:
        """A reference to a message's schema, which is made when it is first needed."""
        if descriptor.full_name in _KNOWN:
            return _KNOWN[descriptor.full_name]
        if descriptor.name not in self._schemas:
            schema: Json = {"type": "object", "description": self._comment(descriptor.full_name)}
            self._schemas[descriptor.name] = schema
            schema["properties"] = {
                field.name: self._property(field, is_request=is_request)
                for field in descriptor.fields
            }
            required = [f.name for f in descriptor.fields if self._required(f, is_request)]
            if required:
                schema["required"] = required
            if is_request:
                schema["additionalProperties"] = False
        return {"$ref": f"#/components/schemas/{descriptor.name}"}

    def _required(self, field: FieldDescriptor, is_request: bool) -> bool:
        if is_request:
            return "Required." in self._comment(field.full_name) or field.name == "requests"
        scalar = field.message_type is None and field.enum_type is None
        return field.is_repeated or (scalar and field.cpp_type != FieldDescriptor.CPPTYPE_STRING)

    def _property(self, field: FieldDescriptor, *, is_request: bool) -> Json:
        value = self._value(field, is_request=is_request)
        if field.is_repeated:
            value = {"type": "array", "items": value}
        if is_request:
            value |= LIMITS.get(
                field.full_name.removeprefix(f"{WATCH.containing_service.file.package}."), {}
            )
            if "enum" in value:
                value.pop("$ref", None)
        return value | {"description": self._comment(field.full_name)}

    def _value(self, field: FieldDescriptor, *, is_request: bool = False) -> Json:
        if field.message_type is not None:
            return dict(self._schema(field.message_type, is_request=is_request))
        if field.enum_type is not None:
            return self._enum(field.enum_type)
        if field.cpp_type in _INTEGERS:
            return {"type": "integer", "format": _INTEGERS[field.cpp_type]}
        is_bool = field.cpp_type == FieldDescriptor.CPPTYPE_BOOL
        return {"type": "boolean" if is_bool else "string"}

    def _enum(self, enum: EnumDescriptor) -> Json:
        package, words = enum.file.package, messages.enum_words(enum)
        lines = [
            f"* `{word}`: {self._comment(f'{package}.{enum.values_by_number[number].name}')}"
            for word, number in words.items()
        ]
        description = "\n".join([self._comment(enum.full_name), "", *lines])
        self._schemas[enum.name] = {
            "type": "string",
            "enum": list(words),
            "description": description,
        }
        return {"$ref": f"#/components/schemas/{enum.name}"}

    def _comment(self, full_name: str) -> str:
        """A comment, with its statuses as they are spelled here."""
        text = self._comments[full_name]
        return re.sub(r"\b[A-Z_]+\b", lambda m: _word(m.group()), text)


def _word(text: str) -> str:
    return f"`{_WORDS[text]}`" if text in _WORDS else text


def _json(schema: Json) -> Json:
    return {"application/json": {"schema": schema}}


def document(image: bytes) -> str:
    """Args: image: a serialised FileDescriptorSet of the protos, with source info."""
    made = _Document(FileDescriptorSet.FromString(image)).make()
    return json.dumps(made, indent=1, ensure_ascii=False) + "\n"
