"""Converts JSON objects to protobuf messages and back, in this API's own spelling.

Fields are in snake_case, as in the protos. Enums are lower-case words without their prefix
(`in_progress`), money is {"currency": "AUD", "amount": "4.50"}, times are RFC 3339, integers are
numbers. An answer omits fields that are not set, but always has booleans, numbers and lists.

protobuf's json_format does not spell enums this way, stops at the first mistake, and takes several
times as long for an answer.

Both directions are in one module, so that each spelling is read and written in one place.
"""

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
"""Imported so that the details of an error can be decoded by name."""
_BITS: Final = {FieldDescriptor.CPPTYPE_INT32: 31, FieldDescriptor.CPPTYPE_INT64: 63}


class Violation(NamedTuple):
    """What is wrong with a field.

    Args:
        field: a path such as `requests[3].id`.
        description: what is wrong with it.
    """

    field: str
    description: str


MAX_ITEMS: Final = 1_000
"""Limit of items of any list in a request; the service has lower limits for some."""
MAX_VIOLATIONS: Final = 20
"""Violations reported of one request; the rest are counted."""


class Violations:
    """What is wrong with a request.

    Attributes:
        first: up to MAX_VIOLATIONS violations.
        more: number of the others.
    """

    def __init__(self) -> None:
        self.first: list[Violation] = []
        self.more = 0

    def add(self, field: str, description: str) -> None:
        if len(self.first) < MAX_VIOLATIONS:
            self.first.append(Violation(field, description))
        else:
            self.more += 1

    def __bool__(self) -> bool:
        return bool(self.first)


class _Wrong(Exception):
    """A value does not fit its field; the message says why."""


def read(descriptor: Descriptor, value: dict[str, Any]) -> tuple[Any, Violations]:
    """Converts a JSON object to a message.

    The work is bounded by what a message can hold, not by what the object holds.

    Args:
        descriptor: of the message.
        value: the object.

    Returns:
        the message, and what is wrong with the object; with violations the message is incomplete.
    """
    wrong = Violations()
    return _message(descriptor, value, "", wrong), wrong


def _message(descriptor: Descriptor, value: Any, path: str, wrong: Violations) -> Message:
    message = GetMessageClass(descriptor)()
    if not isinstance(value, dict):
        wrong.add(path, f"is {kind(value)}, not an object")
        return message
    fields = _fields(descriptor)
    unknown = 0
    for name, content in value.items():
        field = fields.get(name)
        if field is None:
            unknown += 1
            if unknown <= MAX_VIOLATIONS:
                known = ", ".join(fields) or "none"
                wrong.add(shown(_inside(path, name)), f"is not a field here; there are: {known}")
        elif not field.is_repeated:
            _set(message, field, content, _inside(path, name), wrong)
        else:
            _extend(message, field, content, _inside(path, name), wrong)
    wrong.more += max(0, unknown - MAX_VIOLATIONS)
    return message


@cache
def _fields(descriptor: Descriptor) -> dict[str, FieldDescriptor]:
    return dict(descriptor.fields_by_name)


def _inside(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _extend(
    message: Message, field: FieldDescriptor, content: Any, path: str, wrong: Violations
) -> None:
    if not isinstance(content, list):
        wrong.add(path, f"is {kind(content)}, not an array")
    elif len(content) > MAX_ITEMS:
        wrong.add(path, f"has {len(content)} items; at most {MAX_ITEMS} are allowed")
    else:
        items = [_value(field, c, f"{path}[{i}]", wrong) for i, c in enumerate(content)]
        getattr(message, field.name).extend(item for item in items if item is not None)


def _set(
    message: Message, field: FieldDescriptor, content: Any, path: str, wrong: Violations
) -> None:
    value = _value(field, content, path, wrong)
    if isinstance(value, Message):
        getattr(message, field.name).CopyFrom(value)
    elif value is not None:
        setattr(message, field.name, value)


def _value(field: FieldDescriptor, content: Any, path: str, wrong: Violations) -> Any:
    """The value for a field; None, with a violation added, if the content does not fit."""
    try:
        if field.enum_type is not None:
            return _number(field.enum_type, content)
        if field.message_type is not None:
            if field.message_type.full_name == TIMESTAMP:
                return _time(field.message_type, content)
            return _message(field.message_type, content, path, wrong)
        return _SCALARS[field.cpp_type](field, content)
    except _Wrong as error:
        wrong.add(path, str(error))
        return None


def _string(_field: FieldDescriptor, content: Any) -> str:
    if not isinstance(content, str):
        raise _Wrong(f"is {kind(content)}, not a string")
    if not content.isascii() and any("\ud800" <= c <= "\udfff" for c in content):
        raise _Wrong("has half of a surrogate pair, which is not a character")
    return content


def _bool(_field: FieldDescriptor, content: Any) -> bool:
    if not isinstance(content, bool):
        raise _Wrong(f"is {kind(content)}, not true or false")
    return content


def _int(field: FieldDescriptor, content: Any) -> int:
    bits = _BITS[field.cpp_type]
    whole = isinstance(content, int) or (isinstance(content, float) and content.is_integer())
    if isinstance(content, bool) or not whole:
        raise _Wrong(f"is {kind(content)}, not an integer")
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
            f"{shown(content)} is not a time such as 2026-11-23T09:30:00Z (RFC 3339)"
        ) from error
    return moment


@cache
def enum_words(enum: EnumDescriptor) -> dict[str, int]:
    """The words of an enum with their numbers, without that of 0, which means unspecified."""
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
    """Converts a message to a JSON object with its fields in the order of the protos."""
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
    """{"currency": "AUD", "amount": "4.50"}, with at least two decimals."""
    nanos = value.units * 1_000_000_000 + value.nanos
    units, fraction = divmod(abs(nanos), 1_000_000_000)
    decimals = f"{fraction:09}".rstrip("0").ljust(2, "0")
    return {
        "currency": value.currency_code,
        "amount": f"{'-' * (nanos < 0)}{units}.{decimals}",
    }


def status(value: status_pb2.Status) -> dict[str, Any]:
    """A google.rpc.Status as a JSON object, with its details decoded."""
    out = json_format.MessageToDict(value, preserving_proto_field_name=True)
    return {"code": value.code, "message": value.message, "details": out.get("details", [])}


_RENDERED: Final[dict[str, Render]] = {
    TIMESTAMP: lambda moment: moment.ToJsonString(),
    MONEY: money,
    STATUS: status,
}


def kind(value: Any) -> str:
    """The type of a JSON value, in words for a message."""
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
    """A caller's value, fit for a message: shortened and printable."""
    if not isinstance(value, str):
        return kind(value)
    return value[:64] if value.isascii() and value.isprintable() else ascii(value[:64])
