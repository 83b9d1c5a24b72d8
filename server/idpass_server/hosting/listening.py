"""Opening the addresses of a server: gRPC's own, and the pages of plain HTTP beside it."""

import grpc
import structlog

from idpass_server import addresses
from idpass_server.failures import OperatorError
from idpass_server.hosting.plain_http import PlainHttp

log = structlog.get_logger()


class CannotListen(OperatorError):
    """An address cannot be served; the message says why and what to do."""


def bind(
    server: grpc.aio.Server, listen: str, credentials: grpc.ServerCredentials | None = None
) -> int:
    """Opens an address of a gRPC server that has not been started.

    Args:
        server: of gRPC.
        listen: HOST:PORT, or unix:PATH.
        credentials: of TLS; None for plain text.

    Returns:
        the port that was taken.

    Raises:
        CannotListen: the address cannot be opened.
    """
    try:
        if credentials is None:
            return server.add_insecure_port(listen)
        return server.add_secure_port(listen, credentials)
    except RuntimeError as error:
        raise CannotListen(
            f"{listen} cannot be listened on; is another program using it? Give another "
            "--listen HOST:PORT, with port 0 for any free one"
        ) from error


async def serve_pages(name: str, listen: str, pages: PlainHttp) -> str:
    """Serves pages at an address, and logs it under `name`.

    Args:
        name: of the log event, such as "probe".
        listen: HOST:PORT; port 0 takes a free one.
        pages: to serve until their context ends.

    Returns:
        HOST:PORT, with the port that was taken.

    Raises:
        CannotListen: the address cannot be opened.
    """
    try:
        place = await pages.listen(*addresses.split(listen))
    except OSError as error:
        raise CannotListen(f"{listen} cannot be listened on: {error.strerror}") from error
    log.info(name, listen=place)
    return place
