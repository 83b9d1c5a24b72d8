"""The service as gRPC is to call it: a handler for each method of the descriptor.

What the generated code would register, but for one thing: bytes that are no message of the
method's type do reach it, to be refused like any other request that is not valid. gRPC itself
would answer them with UNKNOWN and the parser's text.
"""

from collections.abc import Callable
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from idpass.v1 import id_pass_service_pb2
from idpass_server.refusals import InvalidRequest, Violation

_SERVICE: Final = id_pass_service_pb2.DESCRIPTOR.services_by_name["IdPassService"]
SERVICE: Final = _SERVICE.full_name

_UNREADABLE: Final = object()


def handlers(servicer: Any) -> grpc.GenericRpcHandler:
    """
    Raises:
        AttributeError: the servicer lacks a method of the service.
    """
    by_method = {}
    for method in _SERVICE.methods:
        make = grpc.unary_unary_rpc_method_handler
        if method.server_streaming:
            make = grpc.unary_stream_rpc_method_handler
        by_method[method.name] = make(
            getattr(servicer, method.name),
            request_deserializer=_reader(GetMessageClass(method.input_type).FromString),
            response_serializer=GetMessageClass(method.output_type).SerializeToString,
        )
    return grpc.method_handlers_generic_handler(SERVICE, by_method)


def _reader(parse: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def read(body: bytes) -> Any:
        try:
            return parse(body)
        except DecodeError:
            return _UNREADABLE

    return read


def check_readable(request: Any, method: str) -> None:
    """Raises: InvalidRequest: the request's bytes could not be parsed."""
    if request is _UNREADABLE:
        expected = _SERVICE.methods_by_name[method].input_type.full_name
        raise InvalidRequest([Violation("", f"its bytes are no message of type {expected}")])
