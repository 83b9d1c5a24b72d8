"""A TCP proxy that breaks connections at chosen moments of an HTTP/2 exchange."""

import contextlib
import enum
import socket
import struct
import threading
from collections import deque

HEADERS = 0x1
PREFACE = 24
FRAME_HEADER = 9


class Cut(enum.Enum):
    """When the connection of the next call breaks."""

    BEFORE_REQUEST = "the request never reaches the service"
    AFTER_REQUEST = "the service has the request, and nobody the answer"
    BEFORE_ANSWER = "the service has answered, and the answer gets lost"


class CuttingProxy:
    """Forwards connections to a service; breaks one for each cut in `cuts`.

    Args:
        upstream: HOST:PORT of the service.
    """

    def __init__(self, upstream: str) -> None:
        host, _, port = upstream.rpartition(":")
        self._upstream = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.cuts: deque[Cut] = deque()
        self.made = 0
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut_all()

    def cut_all(self) -> None:
        """Breaks every connection that there is."""
        for pair in list(self._pairs):
            self._break(*pair)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                down, _ = self._listener.accept()
                up = socket.create_connection(self._upstream)
                for end in (down, up):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._pairs.add((down, up))
                answered = threading.Event()
                for pump in (self._to_service, self._to_client):
                    threading.Thread(target=pump, args=(down, up, answered), daemon=True).start()

    def _break(self, down: socket.socket, up: socket.socket) -> None:
        self._pairs.discard((down, up))
        for end in (down, up):
            with contextlib.suppress(OSError):
                # A reset, not an orderly end: that is how connections break.
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                end.shutdown(socket.SHUT_RDWR)
        for end in (down, up):
            end.close()

    def _to_service(self, down: socket.socket, up: socket.socket, lose: threading.Event) -> None:
        try:
            up.sendall(_read(down, PREFACE))
            while True:
                kind, frame = _read_frame(down)
                if kind == HEADERS and self.cuts:
                    cut = self.cuts.popleft()
                    self.made += 1
                    if cut is Cut.BEFORE_REQUEST:
                        break
                    lose.set()  # before the service can answer
                    up.sendall(frame)
                    # The rest of the request: frames up to the one that ends the stream.
                    while not _ends_stream(frame):
                        _, frame = _read_frame(down)
                        up.sendall(frame)
                    if cut is Cut.AFTER_REQUEST:
                        up.shutdown(socket.SHUT_WR)
                        break
                    continue
                up.sendall(frame)
        except OSError:
            pass
        self._break(down, up)

    def _to_client(self, down: socket.socket, up: socket.socket, lose: threading.Event) -> None:
        try:
            while True:
                kind, frame = _read_frame(up)
                if kind == HEADERS and lose.is_set():
                    break  # the answer has come as far as here
                down.sendall(frame)
        except OSError:
            pass
        self._break(down, up)


def _read(source: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        received = source.recv(size - len(data))
        if not received:
            raise ConnectionError
        data += received
    return data


def _read_frame(source: socket.socket) -> tuple[int, bytes]:
    header = _read(source, FRAME_HEADER)
    return header[3], header + _read(source, int.from_bytes(header[:3], "big"))


def _ends_stream(frame: bytes) -> bool:
    return frame[3] in {0x0, HEADERS} and bool(frame[4] & 0x1)
