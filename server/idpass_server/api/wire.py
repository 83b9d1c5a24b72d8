"""The service as gRPC is to call it: a handler for each method of the descriptor.

What the generated code would register, but for one thing: requests come as bytes, and are parsed
when it is clear who sends them and that they may (see `calls`). Bytes that are no message of the
method's type are refused like any other request that is not valid; gRPC itself would answer with
UNKNOWN and the parser's text.
"""

from collections.abc import Callable
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from idpass.v1 import id_pass_service_pb2
from idpass_server.rules.refusals import InvalidRequest, Violation

_SERVICE: Final = id_pass_service_pb2.DESCRIPTOR.services_by_name["IdPassService"]
SERVICE: Final = _SERVICE.full_name

MAX_BATCH_REQUESTS: Final = 1_000
MAX_OTHER_BYTES: Final = 16 * 1024
"""Size of a request that is no batch: several times the longest legal one."""

_MOST_FIELDS: Final = {"BatchCancelIdPasses": MAX_BATCH_REQUESTS}
"""Fields that a request may have at its top, for methods whose requests may be large. Parsing takes
up to fifty times as much memory as was received, and so they are counted before."""

_VARINT, _I64, _LEN, _I32 = 0, 1, 2, 5
_FIXED_BYTES: Final = {_I64: 8, _I32: 4}


def handlers(servicer: Any) -> grpc.GenericRpcHandler:
    """
    Raises:
        AttributeError: the servicer lacks a method of the service.
    """
    by_method: dict[str, Any] = {}
    for method in _SERVICE.methods:
        make = grpc.unary_unary_rpc_method_handler
        if method.server_streaming:
            make = grpc.unary_stream_rpc_method_handler
        by_method[method.name] = make(
            getattr(servicer, method.name),
            response_serializer=GetMessageClass(method.output_type).SerializeToString,
        )
    return grpc.method_handlers_generic_handler(SERVICE, by_method)


def reader(method: str) -> Callable[[bytes], Any]:
    """What makes a method's requests from bytes.

    It raises InvalidRequest where they are too many, or no message of the method's type.
    """
    message = _SERVICE.methods_by_name[method].input_type
    parse = GetMessageClass(message).FromString
    most_fields = _MOST_FIELDS.get(method)

    def read(body: bytes) -> Any:
        if len(body) > MAX_OTHER_BYTES:
            if most_fields is None:
                raise _invalid("", f"has {len(body)} bytes; {MAX_OTHER_BYTES} are allowed")
            if _more_fields_than(most_fields, body):
                raise _invalid("requests", f"has more than {most_fields} items")
        try:
            return parse(body)
        except DecodeError:
            raise _invalid("", f"its bytes are no message of type {message.full_name}") from None

    return read


def _invalid(field: str, description: str) -> InvalidRequest:
    return InvalidRequest([Violation(field, description)])


def _more_fields_than(most: int, body: bytes) -> bool:
    """Whether a message has more fields at its top. Takes no longer than `most` fields do.

    https://protobuf.dev/programming-guides/encoding. What is malformed is left to the parser.
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
    """A number, and where the next begins. Raises: IndexError: the bytes end before it does."""
    value = shift = 0
    while (byte := body[at]) & 0x80:
        value |= (byte & 0x7F) << shift
        shift += 7
        at += 1
    return value | byte << shift, at + 1
