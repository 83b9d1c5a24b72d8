"""A wire to a server that can be cut, and mended at the same address."""

import contextlib
import socket
import threading


class Wire:
    """Forwards TCP connections, whatever goes over them. Args: upstream: HOST:PORT."""

    def __init__(self, upstream: str) -> None:
        host, _, port = upstream.rpartition(":")
        self._upstream = (host, int(port))
        self._ends: list[socket.socket] = []
        self._listen(0)

    def cut(self) -> None:
        """Breaks all connections; new ones are refused."""
        for end in (self._listener, *self._ends):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._ends.clear()

    def mend(self) -> None:
        self._listen(int(self.address.rpartition(":")[2]))

    def _listen(self, port: int) -> None:
        self._listener = socket.create_server(("127.0.0.1", port))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                down, _ = listener.accept()
                up = socket.create_connection(self._upstream)
                self._ends += [down, up]
                for one, other in ((down, up), (up, down)):
                    threading.Thread(target=_pump, args=(one, other), daemon=True).start()


def _pump(one: socket.socket, other: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while part := one.recv(65_536):
            other.sendall(part)
    with contextlib.suppress(OSError):
        other.shutdown(socket.SHUT_WR)
