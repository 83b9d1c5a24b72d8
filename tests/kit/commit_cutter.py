"""A TCP proxy before PostgreSQL that breaks the connection as a batch is being committed."""

import contextlib
import enum
import re
import socket
import threading
from collections import deque

SAVES = b'"request_digest"'
"""In the round trip that saves the events and commits."""
COMMITTED = b"COMMIT\0"


class Cut(enum.Enum):
    BEFORE = "nothing of it reaches the server"
    DURING = "it reaches the server, and the connection is gone at once"
    AFTER = "the server has said that it is committed, and nobody hears it"


class CommitCutter:
    """
    Args:
        url: of a database, with one host.

    Attributes:
        url: of the same database, through the proxy.
        cuts: what becomes of the commits to come; then nothing is cut any more.
    """

    def __init__(self, url: str) -> None:
        match = re.search(r"@([\d.]+):(\d+)/", url)
        assert match
        self._upstream = (match[1], int(match[2]))
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        self.url = url.replace(match[0], f"@127.0.0.1:{port}/") + "?sslmode=disable"
        self.cuts: deque[Cut] = deque()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                down, _ = self._listener.accept()
                up = socket.create_connection(self._upstream)
                deaf = threading.Event()
                for pump in (self._to_server, self._to_client):
                    threading.Thread(target=pump, args=(down, up, deaf), daemon=True).start()

    def _to_server(self, down: socket.socket, up: socket.socket, deaf: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := down.recv(1 << 20):
                if SAVES not in data or not self.cuts:
                    up.sendall(data)
                    continue
                cut = self.cuts.popleft()
                if cut is Cut.BEFORE:
                    break
                deaf.set()
                up.sendall(data)
                if cut is Cut.DURING:
                    self._rest(down, up)
                    break
        _close(down, up)

    @staticmethod
    def _rest(down: socket.socket, up: socket.socket) -> None:
        """COMMIT may be on its way in a packet of its own."""
        down.settimeout(0.02)
        with contextlib.suppress(TimeoutError):
            while data := down.recv(1 << 20):
                up.sendall(data)

    def _to_client(self, down: socket.socket, up: socket.socket, deaf: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := up.recv(1 << 20):
                if not deaf.is_set():
                    down.sendall(data)
                elif COMMITTED in data:
                    break
        _close(down, up)


def _close(*ends: socket.socket) -> None:
    for end in ends:
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()
