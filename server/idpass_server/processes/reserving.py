"""Reserves addresses for workers: bound with SO_REUSEPORT by their supervisor, which never listens.

The kernel would as gladly let another server share the port by mistake, so the address is taken
exclusively first, and held from then on.
"""

import contextlib
import socket

from idpass_server import addresses
from idpass_server.hosting.listening import CannotListen


def reserve(option: str, text: str, reserved: contextlib.ExitStack) -> str:
    """Reserves an address for this process's workers; no other server can listen on it.

    Args:
        option: that the address was given with.
        text: HOST:PORT; port 0 takes a free one.
        reserved: holds the sockets; the address is free again when it ends.

    Returns:
        the address, with the port that was taken.

    Raises:
        CannotListen: another process has it.
    """
    host, port = addresses.split(text)
    try:
        for family, *_, place in socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            # All addresses of `localhost` get the same port.
            port = reserved.enter_context(_hold(family, (place[0], port))).getsockname()[1]
    except OSError as error:
        raise CannotListen(
            f"{text} cannot be listened on ({error.strerror}); is another program using it? Give "
            f"another {option} HOST:PORT, with port 0 for any free one"
        ) from error
    return addresses.join(host, port)


def _hold(family: int, place: tuple[object, int]) -> socket.socket:
    """A socket that shares its address with others that set SO_REUSEPORT, but never listens."""
    # SO_REUSEADDR tolerates connections that linger from an earlier server; a program that listens,
    # or holds the address without that option, still makes this fail.
    with socket.socket(family) as alone:
        alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        alone.bind(place)
        alone.listen()
        alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held = socket.socket(family)
        try:
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            held.bind(alone.getsockname())
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        except BaseException:
            held.close()
            raise
    return held
