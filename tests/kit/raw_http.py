"""HTTP as bytes on a socket, for what no client library would send."""

import contextlib
import json
import socket
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import httpx

TIMEOUT_S = 30


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        return dict(json.loads(self.body))

    @property
    def reference(self) -> str:
        """Of an error, as its body tells it."""
        (info,) = (d for d in self.json["details"] if d["@type"].endswith(".RequestInfo"))
        return str(info["request_id"])


class Raw:
    """A connection to a server; what is sent on it is up to the test."""

    def __init__(self, url: str | httpx.URL) -> None:
        address = httpx.URL(url)
        self.socket = socket.create_connection((address.host, address.port or 0), TIMEOUT_S)
        self._received = b""

    def send(self, *pieces: bytes) -> None:
        """Each piece in a packet of its own, as far as the kernel goes along."""
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            self.socket.sendall(piece)

    def reply(self) -> Reply:
        while b"\r\n\r\n" not in self._received:
            self._receive()
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        line, *lines = head.decode("latin-1").split("\r\n")
        headers = {n.lower(): v for n, v in (each.split(": ", 1) for each in lines)}
        length = int(headers.get("content-length", "0"))
        while len(self._received) < length:
            self._receive()
        body, self._received = self._received[:length], self._received[length:]
        return Reply(int(line.split(" ")[1]), headers, body)

    def goes_on(self) -> bool:
        """Whether the server has not hung up."""
        self.socket.setblocking(False)
        try:
            while self.socket.recv(65_536):
                pass
        except BlockingIOError:
            return True
        return False

    def _receive(self) -> None:
        data = self.socket.recv(65_536)
        if not data:
            raise EOFError(self._received)
        self._received += data

    def ends(self) -> bool:
        """Whether the server hangs up without another byte; waits until it does."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True

    def flood(self, piece: bytes, times: int) -> int:
        """Sends a piece again and again until the server hangs up. Returns how often it went."""
        for sent in range(times):
            try:
                self.socket.sendall(piece)
            except OSError:
                return sent
        return times

    def close(self) -> None:
        self.socket.close()


@contextlib.contextmanager
def raw(url: str | httpx.URL) -> Iterator[Raw]:
    connection = Raw(url)
    try:
        yield connection
    finally:
        connection.close()


def request(
    line: bytes = b"GET /idpass/account HTTP/1.1",
    headers: Iterable[bytes] = (b"Host: localhost",),
    body: bytes = b"",
) -> bytes:
    return b"\r\n".join([line, *headers, b"", body])


def post(body: bytes, *headers: bytes, path: bytes = b"/idpass/cancel") -> bytes:
    """Args: headers: beside the usual ones, Content-Length among them."""
    usual = [b"Host: localhost", b"Content-Type: application/json"]
    length = b"Content-Length: %d" % len(body)
    return request(b"POST " + path + b" HTTP/1.1", [*usual, length, *headers], body)


def chunked(*chunks: bytes, trailers: bytes = b"", path: bytes = b"/idpass/cancel") -> bytes:
    headers = [b"Host: localhost", b"Content-Type: application/json", b"Transfer-Encoding: chunked"]
    body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    line = b"POST " + path + b" HTTP/1.1"
    return request(line, headers, body + b"0\r\n" + trailers + b"\r\n")
