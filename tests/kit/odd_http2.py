"""A server of HTTP/2 that answers calls with whatever frames a test wants."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

from hyperframe.frame import Frame, PingFrame, SettingsFrame

from kit.http2 import PREFACE, data_frames, header_frames

Answer = Callable[[int], bytes]
"""The frames for a call, given its stream; with HANG_UP at their end the connection ends too."""

HANG_UP = b"hang up"
GRPC = (":status", "200"), ("content-type", "application/grpc")


def page(status: int) -> Answer:
    """What a proxy answers, or a web server: a page for people."""
    headers = [(":status", str(status)), ("content-type", "text/html")]
    return lambda stream: header_frames(stream, headers) + data_frames(stream, b"<h1>No.</h1>")


def trailers(*headers: tuple[str, str]) -> Answer:
    """An answer without a message."""
    return lambda stream: header_frames(stream, [*GRPC, *headers], end_stream=True)


@contextlib.contextmanager
def serving(answer: Answer) -> Iterator[str]:
    """Yields the address, HOST:PORT."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_accept, args=(listener, answer), daemon=True).start()
        yield "{}:{}".format(*listener.getsockname())
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)


def _accept(listener: socket.socket, answer: Answer) -> None:
    with contextlib.suppress(OSError):
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=_serve, args=(connection, answer), daemon=True).start()


def _serve(connection: socket.socket, answer: Answer) -> None:
    with connection, contextlib.suppress(OSError):
        connection.sendall(SettingsFrame(0).serialize())
        for frame in _frames(connection):
            if isinstance(frame, SettingsFrame) and "ACK" not in frame.flags:
                connection.sendall(SettingsFrame(0, flags=["ACK"]).serialize())
            elif isinstance(frame, PingFrame) and "ACK" not in frame.flags:
                ping = PingFrame(0, opaque_data=frame.opaque_data, flags=["ACK"])
                connection.sendall(ping.serialize())
            elif "END_STREAM" in frame.flags:
                sent = answer(frame.stream_id)
                connection.sendall(sent.removesuffix(HANG_UP))
                if sent.endswith(HANG_UP):
                    return


def _frames(connection: socket.socket) -> Iterator[Frame]:
    received = b""
    while len(received) < len(PREFACE):
        received += _more(connection)
    received = received[len(PREFACE) :]
    while True:
        while len(received) < 9:
            received += _more(connection)
        frame, length = Frame.parse_frame_header(memoryview(received[:9]))
        while len(received) < 9 + length:
            received += _more(connection)
        frame.parse_body(memoryview(received[9 : 9 + length]))
        received = received[9 + length :]
        yield frame


def _more(connection: socket.socket) -> bytes:
    data = connection.recv(65_536)
    if not data:
        raise ConnectionError
    return data
