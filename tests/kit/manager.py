"""systemd, as far as a service of Type=notify is concerned."""

import contextlib
import queue
import socket
import tempfile
import threading
from collections.abc import Iterator

import pytest


class Manager:
    """Receives what a service tells systemd. Args: address: as in NOTIFY_SOCKET."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        self._messages: queue.SimpleQueue[dict[str, str]] = queue.SimpleQueue()
        # Always read: the kernel holds ten messages at most.
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        while text := self._socket.recv(4_096).decode():
            self._messages.put(dict(line.split("=", 1) for line in text.splitlines()))

    def next(self, timeout_s: float = 30) -> dict[str, str]:
        """The next message."""
        return self._messages.get(timeout=timeout_s)

    def until(self, name: str, value: str = "1") -> dict[str, str]:
        """The next message with an assignment."""
        while (message := self.next()).get(name) != value:
            pass
        return message

    def expect_silence(self, seconds: float) -> None:
        """Fails the test if messages still come after those that came before."""
        while not self._messages.empty():
            self.next()
        with pytest.raises(queue.Empty):
            self.next(seconds)

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
            last.sendto(b"", self._socket.getsockname())
        self._reader.join()
        self._socket.close()


@contextlib.contextmanager
def manager_at_a_path() -> Iterator[Manager]:
    with tempfile.TemporaryDirectory(prefix="idpass-test-") as folder:
        manager = Manager(f"{folder}/notify")
        try:
            yield manager
        finally:
            manager.close()
