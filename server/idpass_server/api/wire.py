"""Requests from bytes and responses to bytes, for each method of the descriptor.

Requests reach the service as bytes, and are parsed only once their caller is known and permitted
(see `calls`). Bytes that are not a message of the method's type are refused like any other invalid
request; gRPC itself would answer UNKNOWN with the parser's text.
"""

from collections.abc import Callable
from typing import Any, Final

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from idpass.v1 import id_pass_service_pb2, webhook_service_pb2
from idpass_server.rules.refusals import InvalidRequest, Violation

ID_PASSES: Final[ServiceDescriptor] = id_pass_service_pb2.DESCRIPTOR.services_by_name[
    "IdPassService"
]
WEBHOOKS: Final[ServiceDescriptor] = webhook_service_pb2.DESCRIPTOR.services_by_name[
    "WebhookService"
]
SERVICES: Final = (ID_PASSES.full_name, WEBHOOKS.full_name)

MAX_BATCH_REQUESTS: Final = 1_000
"""Largest number of items in a BatchCancelRequest."""
MAX_OTHER_BYTES: Final = 16 * 1024
"""Largest size of any other request, bytes: several times the longest valid one."""

_MAX_FIELDS: Final = {"BatchCancelIdPasses": MAX_BATCH_REQUESTS}
"""Largest number of top-level fields, for methods whose requests may be large. Parsing takes up to
fifty times as much memory as the bytes received, so fields are counted before."""

_VARINT, _I64, _LEN, _I32 = 0, 1, 2, 5
_FIXED_BYTES: Final = {_I64: 8, _I32: 4}


def writer(method: MethodDescriptor) -> Callable[[Message], bytes]:
    """Returns what serialises a method's responses."""
    return GetMessageClass(method.output_type).SerializeToString


def reader(method: MethodDescriptor) -> Callable[[bytes], Any]:
    """Returns what parses a method's requests.

    It raises InvalidRequest if a request is too large or not a message of the method's type.
    """
    message = method.input_type
    parse = GetMessageClass(message).FromString
    most_fields = _MAX_FIELDS.get(method.name)

    def read(body: bytes) -> Any:
        if len(body) > MAX_OTHER_BYTES:
            if most_fields is None:
                raise _invalid("", f"has {len(body)} bytes; {MAX_OTHER_BYTES} are allowed")
            if _more_fields_than(most_fields, body):
                raise _invalid("requests", f"has more than {most_fields} items")
        try:
            return parse(body)
        except DecodeError:
            raise _invalid("", f"its bytes are not a message of type {message.full_name}") from None

    return read


def _invalid(field: str, description: str) -> InvalidRequest:
    return InvalidRequest([Violation(field, description)])


def _more_fields_than(most: int, body: bytes) -> bool:
    """Whether a message has more than `most` top-level fields; stops counting there.

    See https://protobuf.dev/programming-guides/encoding. Malformed bytes are left to the parser.
    """
    at, fields = 0, 0
    try:
        while at < len(body) and fields <= most:
            fields += 1
            tag, at = _varint(body, at)
            kind = tag & 7
            if kind == _VARINT:
                _, at = _varint(body, at)
            elif kind == _LEN:
                length, at = _varint(body, at)
                at += length
            else:
                at += _FIXED_BYTES.get(kind, 0)
    except IndexError:
        return False
    return fields > most


def _varint(body: bytes, at: int) -> tuple[int, int]:
    """Reads a varint. Returns it and the offset behind it.

    Raises:
        IndexError: the bytes end within it.
    """
    value = shift = 0
    while (byte := body[at]) & 0x80:
        value |= (byte & 0x7F) << shift
        shift += 7
        at += 1
    return value | byte << shift, at + 1
