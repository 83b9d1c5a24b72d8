"""Watchers that take nothing for a while."""

from typing import Any

from hyperframe.frame import DataFrame, WindowUpdateFrame

from idpass.v1.id_pass_pb2 import IdPassEvent
from idpass.v1.id_pass_service_pb2 import WatchRequest
from kit.http2 import INITIAL_WINDOW, Connection, call, call_headers, message

WINDOW = 256
"""What a stream may be sent while it takes nothing, bytes: an event or two."""
WIDE = 1 << 30


class Stalled:
    """Streams of WatchIdPasses on one connection, whose flow control has the server wait.

    Args:
        address: HOST:PORT of the server.
        after: sequence after which they watch.
        streams: number of them.
    """

    def __init__(self, address: str, after: int, streams: int) -> None:
        self._connection = Connection(address, settings={INITIAL_WINDOW: WINDOW})
        body = message(WatchRequest(after_sequence=after).SerializeToString())
        for stream in range(1, 2 * streams, 2):
            self._connection.send(call(stream, body, call_headers("WatchIdPasses")))
        self._connection.wait_quiet()
        self._received = bytearray()

    def catch_up(self, last: int) -> list[IdPassEvent]:
        """The events of the first stream, which takes them from now on, up to a sequence."""
        for stream in (0, 1):
            self._connection.send(WindowUpdateFrame(stream, window_increment=WIDE).serialize())
        found: list[IdPassEvent] = []
        for frame in self._connection.frames(60):
            if frame.stream_id == 1:
                self._note(frame)
            found += self._events()
            if found and found[-1].sequence >= last:
                break
        return found

    def _note(self, frame: Any) -> None:
        if isinstance(frame, DataFrame):
            self._received += frame.data

    def _events(self) -> list[IdPassEvent]:
        found = []
        while len(self._received) >= 5:
            end = 5 + int.from_bytes(self._received[1:5], "big")
            if len(self._received) < end:
                break
            found.append(IdPassEvent.FromString(bytes(self._received[5:end])))
            del self._received[:end]
        return found

    def close(self) -> None:
        self._connection.close()
