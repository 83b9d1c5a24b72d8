"""HTTP/2 by hand: frames as an attacker would send them, in any order and number."""

import contextlib
import socket
import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import hpack
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
MAX_FRAME = 16_384
INITIAL_WINDOW = SettingsFrame.INITIAL_WINDOW_SIZE
LARGEST_WINDOW = (1 << 31) - 1
SERVICE = "/idpass.v1.IdPassService/"
PIECE = 1 << 16

Headers = Sequence[tuple[str, str]]


def call_headers(method: str = "CancelIdPass", **changed: str | None) -> list[tuple[str, str]]:
    """The headers of a call; `_path="/x"` and `te=None` change `:path` and leave out `te`."""
    headers: dict[str, str | None] = {
        ":method": "POST",
        ":scheme": "http",
        ":path": method if method.startswith("/") else SERVICE + method,
        ":authority": "localhost",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    for name, value in changed.items():
        headers[name.replace("_", ":" if name.startswith("_") else "-")] = value
    return [(name, value) for name, value in headers.items() if value is not None]


def message(body: bytes, flag: int = 0) -> bytes:
    """A gRPC message with its prefix."""
    return bytes([flag]) + len(body).to_bytes(4, "big") + body


def block(headers: Headers) -> bytes:
    """Headers as they are compressed without the table that both sides keep."""
    encoder = hpack.Encoder()
    encoder.header_table_size = 0
    return encoder.encode(
        [hpack.NeverIndexedHeaderTuple(*header) for header in headers], huffman=False
    )


def header_frames(stream: int, headers: Headers, *, end_stream: bool = False) -> bytes:
    """HEADERS, and CONTINUATION as far as it takes."""
    data = block(headers)
    pieces = [data[at : at + MAX_FRAME] for at in range(0, len(data), MAX_FRAME)]
    frames: list[Any] = [HeadersFrame(stream, data=pieces[0])]
    frames += [ContinuationFrame(stream, data=piece) for piece in pieces[1:]]
    frames[-1].flags.add("END_HEADERS")
    if end_stream:
        frames[0].flags.add("END_STREAM")
    return b"".join(frame.serialize() for frame in frames)


def data_frames(stream: int, data: bytes, *, end_stream: bool = True) -> bytes:
    frames = [
        DataFrame(stream, data=data[at : at + MAX_FRAME])
        for at in range(0, max(len(data), 1), MAX_FRAME)
    ]
    if end_stream:
        frames[-1].flags.add("END_STREAM")
    return b"".join(frame.serialize() for frame in frames)


def call(stream: int, body: bytes, headers: Headers | None = None) -> bytes:
    """A whole unary call whose DATA is `body`."""
    return header_frames(stream, headers or call_headers()) + data_frames(stream, body)


def reset(stream: int) -> bytes:
    return RstStreamFrame(stream, error_code=8).serialize()


class Ended(NamedTuple):
    """How a stream or the connection ended."""

    status: str  # grpc-status, "RST_STREAM 2" or "closed"
    message: str


class Connection:
    """
    Args:
        address: HOST:PORT.
        preface: whether to send the preface and SETTINGS.
        settings: in that SETTINGS frame.
        acknowledge: whether to acknowledge the server's settings.
    """

    def __init__(
        self,
        address: str,
        *,
        preface: bool = True,
        settings: dict[int, int] | None = None,
        acknowledge: bool = True,
    ) -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=30)
        self._received = b""
        self._headers = hpack.Decoder()
        self._ended: dict[int, Ended] = {}
        self.closed = False
        self.goaway: bytes | None = None
        self.send(
            PREFACE + SettingsFrame(0, settings=settings or {}).serialize() if preface else b""
        )
        if preface and acknowledge:
            # The limits in the server's settings hold once it has read the acknowledgement.
            self.send(SettingsFrame(0, flags=["ACK"]).serialize() + PingFrame(0).serialize())
            next(f for f in self.frames(30) if isinstance(f, PingFrame) and "ACK" in f.flags)

    def send(self, data: bytes) -> bool:
        """Returns false once the server has hung up."""
        try:
            self._socket.sendall(data)
        except (ConnectionError, TimeoutError):
            self.closed = True
        return not self.closed

    def send_all(self, pieces: Iterable[bytes]) -> bool:
        """Sends until the server hangs up; reads nothing meanwhile."""
        return all(self.send(piece) for piece in pieces)

    def ended(self, stream: int, timeout_s: float = 30) -> Ended:
        """How a stream ends, or the connection before it; streams end in any order."""
        if stream in self._ended:
            return self._ended[stream]
        for _ in self.frames(timeout_s):
            if stream in self._ended:
                return self._ended[stream]
        if not self.closed:
            raise TimeoutError(f"stream {stream} did not end")
        return Ended("closed", (self.goaway or b"").decode(errors="replace"))

    def wait_closed(self, timeout_s: float = 30) -> str:
        """Waits for the server to hang up. Returns what it said."""
        for _ in self.frames(timeout_s):
            pass
        if not self.closed:
            raise TimeoutError("the server does not hang up")
        return (self.goaway or b"").decode(errors="replace")

    def wait_quiet(self) -> None:
        """Waits until the server has taken what it was sent: it answers a ping, or hangs up."""
        self.send(PingFrame(0, opaque_data=b"the last").serialize())
        for frame in self.frames(60):
            if isinstance(frame, PingFrame) and frame.opaque_data == b"the last":
                return

    def open_wide(self) -> None:
        """Lets the server send as much as the kernel takes. Needs LARGEST_WINDOW as a setting."""
        self.send(WindowUpdateFrame(0, window_increment=LARGEST_WINDOW - (1 << 16)).serialize())

    def forget(self, count: int) -> None:
        """Reads as many bytes and does nothing with them."""
        with contextlib.suppress(OSError):
            self._socket.recv(count)

    def frames(self, timeout_s: float) -> Iterable[Frame]:
        """What the server sends until it hangs up, or the time is over."""
        end_s = time.monotonic() + timeout_s
        while (left_s := end_s - time.monotonic()) > 0:
            while len(self._received) >= 9:
                frame, length = Frame.parse_frame_header(memoryview(self._received[:9]))
                if len(self._received) < 9 + length:
                    break
                frame.parse_body(memoryview(self._received[9 : 9 + length]))
                self._received = self._received[9 + length :]
                self._note(frame)
                yield frame
            self._socket.settimeout(left_s)
            try:
                data = self._socket.recv(PIECE)
            except TimeoutError:
                return
            except ConnectionError:
                data = b""
            if not data:
                self.closed = True
                return
            self._received += data

    def _note(self, frame: Frame) -> None:
        """Keeps what a frame says of the end of a stream or of the connection."""
        if isinstance(frame, GoAwayFrame):
            self.goaway = frame.additional_data
        elif isinstance(frame, RstStreamFrame):
            self._ended.setdefault(frame.stream_id, Ended(f"RST_STREAM {frame.error_code}", ""))
        elif isinstance(frame, HeadersFrame):
            headers = {str(k): str(v) for k, v in self._headers.decode(frame.data)}
            if "grpc-status" in headers:
                told = Ended(headers["grpc-status"], headers.get("grpc-message", ""))
                self._ended.setdefault(frame.stream_id, told)

    def close(self) -> None:
        self._socket.close()
