"""The OpenAPI 3.1 document, made from the protos with their comments.

Generated code has no comments, so `protos/generate.py` makes the document from protoc's image. It
is committed beside this module; `make check` reports when it is stale.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from google.protobuf.descriptor import (
    Descriptor,
    EnumDescriptor,
    FieldDescriptor,
    MethodDescriptor,
)
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from idpass.v1 import id_pass_pb2, webhook_pb2
from idpass_server.gateway import messages
from idpass_server.gateway.comments import comments
from idpass_server.gateway.examples import STORY
from idpass_server.gateway.openapi_errors import Errors
from idpass_server.gateway.routes import (
    EVENTS_PATH,
    ID_PASSES,
    WATCH,
    WEBHOOKS,
    HttpRoute,
    routes,
)
from idpass_server.gateway.schemas import (
    DETAIL,
    HEAD,
    HEADERS,
    KEY,
    KNOWN,
    LIMITS,
    MONEY,
    SERVERS,
    STATUS,
    UUID,
    VIOLATION,
    Json,
    headers,
)

_INTEGERS: Final = {FieldDescriptor.CPPTYPE_INT32: "int32", FieldDescriptor.CPPTYPE_INT64: "int64"}
_ENUMS: Final = tuple(
    enum
    for file in (id_pass_pb2.DESCRIPTOR, webhook_pb2.DESCRIPTOR)
    for enum in file.enum_types_by_name.values()
)
_TAGS: Final = {ID_PASSES: "ID Passes", WEBHOOKS: "Webhooks"}
_WORDS: Final = {word.upper(): word for enum in _ENUMS for word in messages.enum_words(enum)}


class _Document:
    """The document as it is made. Args: image: of the protos, with source info."""

    def __init__(self, image: FileDescriptorSet) -> None:
        self._comments = comments(image)
        self._errors = Errors(self._comments)
        self._schemas: dict[str, Json] = {
            "Detail": DETAIL,
            "Money": MONEY,
            "Status": STATUS,
            "Violation": VIOLATION,
        }

    def make(self) -> Json:
        paths = {route.path: {route.verb.lower(): self._operation(route)} for route in routes()}
        paths[EVENTS_PATH] = {"get": self._events()}
        package = WATCH.containing_service.file.package
        return {
            "openapi": "3.1.0",
            "info": {
                "title": "ID Pass service",
                "version": package.rpartition(".")[2],
                "description": HEAD + self._comments[WATCH.containing_service.file.name],
                "license": {"name": "MIT", "identifier": "MIT"},
            },
            "servers": SERVERS,
            "security": [{}, {"bearer": []}],
            "tags": [
                {"name": name, "description": self._comment(service.full_name)}
                for service, name in _TAGS.items()
            ],
            "paths": paths,
            "components": {
                "schemas": dict(sorted(self._schemas.items())),
                "responses": self._errors.responses(),
                "examples": self._errors.examples(),
                "headers": HEADERS,
                "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
            },
        }

    def _operation(self, route: HttpRoute) -> Json:
        operation = self._described(route.method)
        name = route.method.name
        if route.variable:
            operation["operationId"] += f"By{route.variable.capitalize()}"
            operation["parameters"] = [self._in_path(route.method, route.variable)]
        elif "request_id" in route.request.fields_by_name:
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
            operation["requestBody"] = {
                "required": True,
                "content": _json(schema, _examples(name, "request")),
            }
        answer = {
            "description": self._comment(route.method.output_type.full_name),
            "headers": headers("RateLimitPolicy", "RateLimit"),
            "content": _json(self._schema(route.method.output_type), _examples(name, "answer")),
        }
        errors = self._errors.of(route.method, with_body=route.verb == "POST")
        return {**operation, "responses": {"200": answer, **errors}}

    def _in_path(self, method: MethodDescriptor, variable: str) -> Json:
        field = method.input_type.fields_by_name[variable]
        return {
            "name": field.name,
            "in": "path",
            "required": True,
            "description": self._comment(field.full_name),
            "schema": UUID,
            "example": _first(method.name)[variable],
        }

    def _events(self) -> Json:
        operation = self._described(WATCH)
        operation["description"] += (
            "\n\nThe answer is a stream of server-sent events: the id of each is its sequence, "
            "its data is an IdPassEvent. A refusal in mid-stream comes as an event of type "
            "`error` whose data is a Status."
        )
        request = _first(WATCH.name)
        parameters = [
            {
                "name": field.name,
                "in": "query",
                "description": self._comment(field.full_name),
                "schema": self._value(field) | LIMITS[f"{WATCH.input_type.name}.{field.name}"],
            }
            | ({"example": request[field.name]} if field.name in request else {})
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
                "headers": headers("RateLimitPolicy", "RateLimit"),
                "content": {
                    "text/event-stream": {
                        "schema": {"type": "string"},
                        "examples": _examples(WATCH.name, "answer"),
                    }
                },
            },
            "204": {"description": "The pass that was asked for has no more events to come."},
        }
        errors = self._errors.of(WATCH, with_body=False)
        return {**operation, "parameters": parameters, "responses": {**answers, **errors}}

    def _described(self, method: MethodDescriptor) -> Json:
        summary, _, description = self._comment(method.full_name).partition("\n\n")
        return {
            "operationId": method.name,
            "tags": [_TAGS[method.containing_service]],
            "summary": summary,
            "description": description,
        }

    def _schema(self, descriptor: Descriptor, *, is_request: bool = False) -> Json:
        """A reference to a message's schema, which is made when it is first needed."""
        if descriptor.full_name in KNOWN:
            return KNOWN[descriptor.full_name]
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
        """A comment, with statuses and reasons spelled as in this API."""
        text = self._comments[full_name]
        return re.sub(r"\b[A-Z_]+\b", lambda m: _word(m.group()), text)


def _word(text: str) -> str:
    return f"`{_WORDS[text]}`" if text in _WORDS else text


def _json(schema: Json, examples: Json) -> Json:
    return {"application/json": {"schema": schema, "examples": examples}}


def _first(operation: str) -> Mapping[str, Any]:
    """The request of an operation's first example."""
    return next(each.request for each in STORY if each.operation == operation)


def _examples(operation: str, side: str) -> Json:
    """The examples of an operation. Args: side: `request` or `answer`."""
    return {
        each.name: {"summary": each.summary, "value": getattr(each, side)}
        for each in STORY
        if each.operation == operation
    }


def document(image: bytes) -> str:
    """The document as JSON text.

    Args:
        image: a serialised FileDescriptorSet of the protos, with source info.
    """
    made = _Document(FileDescriptorSet.FromString(image)).make()
    return json.dumps(made, indent=1, ensure_ascii=False) + "\n"
