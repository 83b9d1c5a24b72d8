"""Bytes that are no message, sent to every method of every service that the server tells of."""

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from kit.support import Service

MALFORMED = {
    "a length without its bytes": b"\x0a\xff",
    "field 0": b"\x00",
    "a varint without end": b"\xff" * 11,
    "groups that never end": b"\x0b" * 200,
    "a length beyond 31 bits": b"\x0a\xff\xff\xff\xff\x0f",
    "the end of a group without its begin": b"\x0c",
}


def methods(service: Service) -> Iterator[MethodDescriptor]:
    database: Any = ProtoReflectionDescriptorDatabase(service.channel)
    pool = DescriptorPool(database)
    for name in database.get_services():
        yield from pool.FindServiceByName(name).methods


def told(service: Service, method: MethodDescriptor, body: bytes) -> tuple[str, str]:
    """The name of the code, and the text, that a call ends with."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    kind = (
        "stream" if method.client_streaming else "unary",
        "stream" if method.server_streaming else "unary",
    )
    call: Any = getattr(service.channel, "_".join(kind))(path)
    request = iter([body]) if method.client_streaming else body
    try:
        answer = call(request, timeout=10)
        first = next(answer) if method.server_streaming else answer
    except grpc.RpcError as error:
        return error.code().name, error.details() or ""
    if method.name != "ServerReflectionInfo":
        return "OK", ""
    # A stream of reflection goes on after what it refuses.
    refusal = reflection_pb2.ServerReflectionResponse.FromString(first).error_response
    return {3: "INVALID_ARGUMENT"}[refusal.error_code], refusal.error_message


@pytest.mark.parametrize("why", MALFORMED)
def test_bytes_that_are_no_message_are_refused_in_our_own_words(service: Service, why: str) -> None:
    asked = list(methods(service))
    assert len({method.containing_service.full_name for method in asked}) == 5
    for method in asked:
        code, text = told(service, method, MALFORMED[why])
        assert code == "INVALID_ARGUMENT", (method.full_name, text)
        if method.name == "ServerReflectionInfo":
            assert text == "invalid argument"
            continue
        kind = method.input_type.full_name
        assert text == f"The request is not valid: its bytes are not a message of type {kind}"
