"""A disk with a cache, whose power can be cut: a server of Linux' network block devices (NBD).

The cache is lost with the power, but for what it held when a flush began that has ended: of what
was written later a cut leaves any sectors, as sectors.py has it. Client and server agree on the
disk beforehand (see attach_disk.py), so nothing is negotiated. For the rest of the protocol see
https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md
"""

import contextlib
import io
import random
import socket
import struct
import threading
from typing import Final, NamedTuple

from kit.sectors import SECTOR, File, drawn, take

_REQUEST: Final = struct.Struct(">IHHQQI")
_REPLY: Final = struct.Struct(">IIQ")
_REQUEST_MAGIC: Final = 0x25609513
_REPLY_MAGIC: Final = 0x67446698
_READ, _WRITE, _FLUSH = 0, 1, 3


class Cut(NamedTuple):
    """What a cut met.

    Attributes:
        policy: that says what was left of the cache.
        changes: number of writes and flushes that were done since the disk was switched on.
        cached: number of writes that the cache held.
    """

    policy: str
    changes: int
    cached: int


class NetworkDisk:
    """A disk, off at first.

    Args:
        content: what it holds.

    Attributes:
        size: of the disk, bytes.
        changes: number of writes and flushes that were done since it was switched on.
        stopped: set when it does nothing any more: see `stop_after`.
    """

    def __init__(self, content: bytes) -> None:
        self.size = len(content)
        self.changes = 0
        self.stopped = threading.Event()
        self._safe = bytearray(content)
        self._file = File()
        self._last: int | None = None
        self._listener: socket.socket
        self._connection: socket.socket | None
        self._thread: threading.Thread

    def on(self, host: str, stop_after: int | None = None) -> int:
        """Waits for its client.

        Args:
            host: address to listen on.
            stop_after: as for that method.

        Returns:
            The port.
        """
        self._file = File(bytearray(self._safe), size=self.size)
        self.changes, self._last = 0, stop_after
        self.stopped.clear()
        self._connection = None
        self._listener = socket.create_server((host, 0))
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        port: int = self._listener.getsockname()[1]
        return port

    def stop_after(self, changes: int) -> None:
        """Answers nothing any more from the first flush after so many writes and flushes.

        What the cache then holds, and a policy leaves of it, is every moment before that flush.
        """
        self._last = self.changes + changes

    def off(self, policy: str, draw: random.Random) -> Cut:
        """Loses what was in the cache, but for what a policy leaves. The client is off already.

        Args:
            policy: one of sectors.POLICIES.
            draw: for what is random.
        """
        while self._thread.is_alive():
            for each in (self._listener, self._connection):
                if each is not None:
                    with contextlib.suppress(OSError):
                        each.shutdown(socket.SHUT_RDWR)
            self._thread.join(0.01)
        self._listener.close()
        taken = take(policy, self._file.pending, [], draw)
        _, sectors = drawn(self._file, taken, draw)
        for number, content in sectors.items():
            self._safe[number * SECTOR : (number + 1) * SECTOR] = content
        return Cut(policy, self.changes, len(self._file.pending))

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            self._connection, _ = self._listener.accept()
            self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._connection, self._connection.makefile("rwb") as stream:
                while self._request(stream):
                    stream.flush()
                # What fails here is power, not the disk: its client hears nothing.
                while self._connection.recv(1 << 16):
                    pass

    def _request(self, stream: io.BufferedRWPair) -> bool:
        """Does what one request asks for. Returns whether there may be another."""
        head = stream.read(_REQUEST.size)
        if len(head) < _REQUEST.size:
            return False
        magic, _, kind, cookie, offset, length = _REQUEST.unpack(head)
        assert magic == _REQUEST_MAGIC
        data = stream.read(length) if kind == _WRITE else b""
        if kind != _READ and not self._change(kind, offset, data):
            return False
        stream.write(_REPLY.pack(_REPLY_MAGIC, 0, cookie))
        if kind == _READ:
            stream.write(self._file.seen[offset : offset + length])
        return True

    def _change(self, kind: int, offset: int, data: bytes) -> bool:
        if kind == _FLUSH and self._last is not None and self.changes >= self._last:
            self.stopped.set()
            return False
        self.changes += 1
        if kind == _WRITE:
            self._file.write(self.changes, offset, data)
        else:
            assert kind == _FLUSH
            self._file.synced(self.changes)
        return True
