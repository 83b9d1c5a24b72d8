"""The ceiling: CancelIdPass that does nothing, on the same loop and the same server settings.

usage: python -m bench.empty_server
"""

from typing import Any

import grpc
import uvloop

from bench.serving import say_serving, until_told_to_stop
from idpass.v1 import id_pass_pb2 as pb
from idpass.v1 import id_pass_service_pb2 as service_pb
from idpass.v1.id_pass_service_pb2_grpc import (
    IdPassServiceServicer,
    add_IdPassServiceServicer_to_server,
)
from idpass_server.config import Settings
from idpass_server.hosting.channel_options import options


class EmptyServicer(IdPassServiceServicer):
    async def CancelIdPass(
        self,
        request: service_pb.CancelRequest,  # noqa: ARG002 nothing is done with it
        context: Any,  # noqa: ARG002
    ) -> service_pb.CancelResponse:
        return service_pb.CancelResponse(status=pb.ID_PASS_STATUS_CANCELLED)


async def main() -> None:
    server = grpc.aio.server(options=options(Settings()))
    add_IdPassServiceServicer_to_server(EmptyServicer(), server)  # type: ignore[abstract]  # one rpc is enough
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    say_serving(port)
    await until_told_to_stop()
    await server.stop(1)


if __name__ == "__main__":
    uvloop.run(main())
