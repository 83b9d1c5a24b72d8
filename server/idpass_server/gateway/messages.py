"""JSON objects to protobuf messages and back, in this API's own spelling.

Fields are in snake_case, as in the protos. Enums are lower-case words without their prefix
(`in_progress`), money is {"currency": "AUD", "amount": "4.50"}, times are RFC 3339, integers are
numbers. What is not set is left out of an answer; booleans, numbers and lists always stand.

protobuf's own json_format has no such words, stops at the first fault, and takes several times
as long for an answer.
"""

import json
from collections.abc import Callable
from functools import cache
from typing import Any, Final, NamedTuple

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2

TIMESTAMP: Final = "google.protobuf.Timestamp"
MONEY: Final = "google.type.Money"
STATUS: Final = "google.rpc.Status"
DETAILS: Final = error_details_pb2.DESCRIPTOR
"""Loaded, so that the details of an error can be decoded by name."""
_BITS: Final = {FieldDescriptor.CPPTYPE_INT32: 31, FieldDescriptor.CPPTYPE_INT64: 63}


class Violation(NamedTuple):
    """Args: field: a path such as `requests[3].id`."""

    field: str
    description: str


class Unreadable(Exception):
    """A body is no JSON object."""


class _Wrong(Exception):
    """A value cannot be what its field is to hold; the message says why."""


def load(body: bytes) -> dict[str, Any]:
    """The JSON object that a body is. Raises: Unreadable."""
    try:
        value = json.loads(
            body.decode(), object_pairs_hook=_without_duplicates, parse_constant=_no_constant
        )
    except UnicodeDecodeError as error:
        raise Unreadable(f"the body is not UTF-8: {error.reason} at byte {error.start}") from error
    except RecursionError as error:
        raise Unreadable("the body is nested too deep") from error
    except json.JSONDecodeError as error:
        raise Unreadable(
            f"the body is not JSON: {error.msg} at line {error.lineno} column {error.colno}"
            if body
            else "the body is empty; send a JSON object, {} at least"
        ) from error
    except ValueError as error:
        raise Unreadable(f"the body is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise Unreadable(f"the body is {_kind(value)}, not a JSON object")
    return value


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise Unreadable("a name comes twice in one object")
    return found


def _no_constant(name: str) -> None:
    raise Unreadable(f"{name} is not JSON")


def read(descriptor: Descriptor, value: dict[str, Any]) -> tuple[Any, list[Violation]]:
    """The message that an object says, and everything that is wrong with it."""
    violations: list[Violation] = []
    return _message(descriptor, value, "", violations), violations


def _message(descriptor: Descriptor, value: Any, path: str, wrong: list[Violation]) -> Message:
    message = GetMessageClass(descriptor)()
    if not isinstance(value, dict):
        wrong.append(Violation(path, f"is {_kind(value)}, not an object"))
        return message
    for name, content in value.items():
        field = descriptor.fields_by_name.get(name)
        where = f"{path}.{name}" if path else name
        if field is None:
            known = ", ".join(descriptor.fields_by_name) or "none"
            wrong.append(Violation(shown(where), f"is no field here; there are: {known}"))
        elif not field.is_repeated:
            _set(message, field, content, where, wrong)
        elif isinstance(content, list):
            items = [_value(field, c, f"{where}[{i}]", wrong) for i, c in enumerate(content)]
            getattr(message, name).extend(item for item in items if item is not None)
        else:
            wrong.append(Violation(where, f"is {_kind(content)}, not an array"))
    return message


def _set(
    message: Message, field: FieldDescriptor, content: Any, path: str, wrong: list[Violation]
) -> None:
    value = _value(field, content, path, wrong)
    if isinstance(value, Message):
        getattr(message, field.name).CopyFrom(value)
    elif value is not None:
        setattr(message, field.name, value)


def _value(field: FieldDescriptor, content: Any, path: str, wrong: list[Violation]) -> Any:
    """What a field is to hold; None, and a violation, where that cannot be."""
    try:
        if field.enum_type is not None:
            return _number(field.enum_type, content)
        if field.message_type is not None:
            if field.message_type.full_name == TIMESTAMP:
                return _time(field.message_type, content)
            return _message(field.message_type, content, path, wrong)
        return _SCALARS[field.cpp_type](field, content)
    except _Wrong as error:
        wrong.append(Violation(path, str(error)))
        return None


def _string(_field: FieldDescriptor, content: Any) -> str:
    if not isinstance(content, str):
        raise _Wrong(f"is {_kind(content)}, not a string")
    if not content.isascii() and any("\ud800" <= c <= "\udfff" for c in content):
        raise _Wrong("has half of a surrogate pair, which is no character")
    return content


def _bool(_field: FieldDescriptor, content: Any) -> bool:
    if not isinstance(content, bool):
        raise _Wrong(f"is {_kind(content)}, not true or false")
    return content


def _int(field: FieldDescriptor, content: Any) -> int:
    bits = _BITS[field.cpp_type]
    whole = isinstance(content, int) or (isinstance(content, float) and content.is_integer())
    if isinstance(content, bool) or not whole:
        raise _Wrong(f"is {_kind(content)}, not an integer")
    if not -(1 << bits) <= content < 1 << bits:
        raise _Wrong(f"does not fit into {bits + 1} bits")
    return int(content)


_SCALARS: Final[dict[int, Callable[[FieldDescriptor, Any], Any]]] = {
    FieldDescriptor.CPPTYPE_STRING: _string,
    FieldDescriptor.CPPTYPE_BOOL: _bool,
    FieldDescriptor.CPPTYPE_INT32: _int,
    FieldDescriptor.CPPTYPE_INT64: _int,
}


def _number(enum: EnumDescriptor, content: Any) -> int:
    words = enum_words(enum)
    number = words.get(content) if isinstance(content, str) else None
    if number is None:
        raise _Wrong(f"{shown(content)} is none of {', '.join(words)}")
    return number


def _time(descriptor: Descriptor, content: Any) -> Any:
    moment: Any = GetMessageClass(descriptor)()
    try:
        moment.FromJsonString(content)
    except (ValueError, TypeError, AttributeError) as error:
        raise _Wrong(
            f"{shown(content)} is no time such as 2026-11-23T09:30:00Z (RFC 3339)"
        ) from error
    return moment


@cache
def enum_words(enum: EnumDescriptor) -> dict[str, int]:
    """The words of an enum with their numbers, but for that of 0, which means: not given."""
    prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return {v.name.removeprefix(prefix).lower(): v.number for v in enum.values if v.number}


@cache
def _enum_numbers(enum: EnumDescriptor) -> dict[int, str]:
    return {number: word for word, number in enum_words(enum).items()}


Render = Callable[[Any], Any]


class _Field(NamedTuple):
    name: str
    is_message: bool
    always: bool
    convert: Render | None


def render(message: Message) -> dict[str, Any]:
    """A message as a JSON object, its fields in the order of the protos."""
    out: dict[str, Any] = {}
    for name, is_message, always, convert in _plan(message.DESCRIPTOR):
        if is_message:
            if not message.HasField(name):
                continue
            out[name] = convert(getattr(message, name)) if convert else None
            continue
        value = getattr(message, name)
        if value or always:
            out[name] = convert(value) if convert else value
    return out


@cache
def _plan(descriptor: Descriptor) -> list[_Field]:
    return [_field(field) for field in descriptor.fields]


def _field(field: FieldDescriptor) -> _Field:
    convert: Render | None = None
    always = field.is_repeated
    if field.message_type is not None:
        convert = _RENDERED.get(field.message_type.full_name, render)
    elif field.enum_type is not None:
        numbers = _enum_numbers(field.enum_type)
        convert = lambda number: numbers.get(number, number)  # noqa: E731
    else:
        always |= field.cpp_type != FieldDescriptor.CPPTYPE_STRING
    if field.is_repeated:
        each = convert or (lambda item: item)
        return _Field(
            field.name,
            is_message=False,
            always=always,
            convert=lambda items: [each(i) for i in items],
        )
    return _Field(field.name, field.message_type is not None, always, convert)


def money(value: Any) -> dict[str, str]:
    """{"currency": "AUD", "amount": "4.50"}: two decimals, more where they are needed."""
    nanos = value.units * 1_000_000_000 + value.nanos
    units, fraction = divmod(abs(nanos), 1_000_000_000)
    decimals = f"{fraction:09}".rstrip("0").ljust(2, "0")
    return {
        "currency": value.currency_code,
        "amount": f"{'-' * (nanos < 0)}{units}.{decimals}",
    }


def status(value: status_pb2.Status) -> dict[str, Any]:
    """A google.rpc.Status with its details decoded."""
    out = json_format.MessageToDict(value, preserving_proto_field_name=True)
    return {"code": value.code, "message": value.message, "details": out.get("details", [])}


_RENDERED: Final[dict[str, Render]] = {
    TIMESTAMP: lambda moment: moment.ToJsonString(),
    MONEY: money,
    STATUS: status,
}


def _kind(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "an array"
        case _:
            return "an object"


def shown(value: Any) -> str:
    """A caller's value as it can be said in a message: not at any length, and printable."""
    if not isinstance(value, str):
        return _kind(value)
    return value[:64] if value.isascii() and value.isprintable() else ascii(value[:64])
