"""Sharing a port with the next server, for as long as a hand-over takes and no longer.

A port is taken exclusively: with SO_REUSEPORT any program of the same user could listen on it by
mistake, and would get half of the connections without anybody noticing. The kernel looks at the
option when the second socket is bound, so it can be set on a socket that listens already. That is
done from outside, since gRPC gives nobody its sockets.

A second server that was not told to take over does not set the option, and is always refused. Linux
remembers that a port has been shared, so after a hand-over other programs of this user that do set
it are let in, as they are where workers share a port.
"""

import socket
from pathlib import Path
from typing import Final

_DESCRIPTORS: Final = Path("/dev/fd")
"""Folder with an entry for each of this process's descriptors."""


def share_ports(ports: set[int], *, shared: bool) -> None:
    """Lets another process of this user listen on ports too, or no longer.

    Args:
        ports: that this process listens on.
        shared: whether another process may bind them from now on; those that have stay.
    """
    for entry in list(_DESCRIPTORS.iterdir()):
        try:
            found = socket.socket(fileno=int(entry.name))
        except OSError:  # no socket, or closed since
            continue
        try:
            listens = found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            if listens and _port(found) in ports:
                found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shared))
        finally:
            found.detach()


def _port(found: socket.socket) -> int | None:
    return found.getsockname()[1] if found.family in {socket.AF_INET, socket.AF_INET6} else None
