"""gRPC server reflection, with a descriptor pool that also finds methods by name."""

from typing import Any, NamedTuple

import grpc
from google.protobuf import descriptor_pool
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection

from idpass_server.api.wire import SERVICES


def enable(server: grpc.aio.Server) -> None:
    """Enables gRPC server reflection on a server that has not been started."""
    health = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
    names = (*SERVICES, health, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server, _Pool(descriptor_pool.Default()))


class _Pool(NamedTuple):
    """A descriptor pool that also resolves methods, which Python's own does not."""

    pool: descriptor_pool.DescriptorPool

    def FindFileByName(self, name: str) -> Any:
        return self.pool.FindFileByName(name)

    def FindFileContainingSymbol(self, symbol: str) -> Any:
        try:
            return self.pool.FindFileContainingSymbol(symbol)
        except KeyError:
            return self.pool.FindMethodByName(symbol).containing_service.file

    def __getattr__(self, name: str) -> Any:
        return getattr(self.pool, name)
