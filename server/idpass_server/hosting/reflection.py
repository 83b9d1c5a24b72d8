"""gRPC server reflection, as v1 and as v1alpha, over a descriptor pool that also finds methods.

The two have the same messages on the wire, and grpcio-reflection has v1alpha only: one servicer
answers both. Old tools ask for v1alpha alone, new ones for v1 first.
"""

from collections.abc import Callable
from typing import Any, Final

import grpc
from google.protobuf import text_format
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import Default, DescriptorPool
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from idpass_server.api.wire import SERVICES

V1ALPHA: Final[str] = reflection.SERVICE_NAME
V1: Final = V1ALPHA.replace("v1alpha", "v1")


def enable(server: grpc.aio.Server) -> None:
    """Enables gRPC server reflection on a server that has not been started."""
    health = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
    names = (*SERVICES, health, V1, V1ALPHA)
    servicer = reflection.aio.ReflectionServicer(names, pool=_Pools(Default(), _pool_of_v1()))
    answer = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=_parse,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        tuple(
            grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": answer})
            for name in (V1, V1ALPHA)
        )
    )


def _parse(request: bytes) -> reflection_pb2.ServerReflectionRequest:
    """Parses a request. One that is malformed becomes empty, which is refused as invalid."""
    try:
        return reflection_pb2.ServerReflectionRequest.FromString(request)
    except DecodeError:
        return reflection_pb2.ServerReflectionRequest()


def _pool_of_v1() -> DescriptorPool:
    """A pool with the description of v1, made from that of v1alpha."""
    alpha = FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(alpha)
    alpha.options.ClearField("deprecated")
    text = text_format.MessageToString(alpha).replace("v1alpha", "v1")
    pool = DescriptorPool()
    pool.Add(text_format.Parse(text, FileDescriptorProto()))
    return pool


class _Pools:
    """Descriptor pools as one, which also resolves methods, as Python's own pools do not."""

    def __init__(self, *pools: DescriptorPool) -> None:
        self._pools = pools

    def FindFileByName(self, name: str) -> Any:
        return self._first(lambda pool: pool.FindFileByName(name))

    def FindFileContainingSymbol(self, symbol: str) -> Any:
        try:
            return self._first(lambda pool: pool.FindFileContainingSymbol(symbol))
        except KeyError:
            method = self._first(lambda pool: pool.FindMethodByName(symbol))
            return method.containing_service.file

    def FindMessageTypeByName(self, name: str) -> Any:
        return self._first(lambda pool: pool.FindMessageTypeByName(name))

    def FindExtensionByNumber(self, message: Any, number: int) -> Any:
        return message.file.pool.FindExtensionByNumber(message, number)

    def FindAllExtensions(self, message: Any) -> Any:
        return message.file.pool.FindAllExtensions(message)

    def _first(self, find: Callable[[DescriptorPool], Any]) -> Any:
        """What is found in the first pool that has it. Raises KeyError if none has."""
        for pool in self._pools[:-1]:
            try:
                return find(pool)
            except KeyError:
                continue
        return find(self._pools[-1])
