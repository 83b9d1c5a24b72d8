"""A caller that watches an account's events, whatever happens to its stream."""

import threading
from typing import Self

import grpc

from idpass.v1 import id_pass_pb2 as pb
from kit.support import Calls
from kit.witness import CHANNEL_OPTIONS, RETRY_S


class Watcher:
    """Watches from one event on, and after each break from where it was.

    Args:
        after: sequence of the event before the first.

    Attributes:
        seen: the events so far.
        skipped: how often an event did not have the sequence after the one before it.
    """

    def __init__(self, address: str, after: int = 0) -> None:
        self._after = after
        self.seen: list[pb.IdPassEvent] = []
        self.skipped = 0
        self._progress = threading.Condition()
        self._stop = threading.Event()
        self._channel = grpc.insecure_channel(address, CHANNEL_OPTIONS)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._channel.close()
        self._thread.join()

    def wait_for(self, sequence: int, timeout_s: float = 60) -> None:
        """Returns when it has seen an event."""
        with self._progress:
            assert self._progress.wait_for(lambda: self._last() >= sequence, timeout_s), (
                f"seen up to {self._last()}, not {sequence}"
            )

    def _last(self) -> int:
        return self.seen[-1].sequence if self.seen else self._after

    def _run(self) -> None:
        calls = Calls(self._channel)
        while not self._stop.is_set():
            try:
                for event in calls.watch(after_sequence=self._last()):
                    with self._progress:
                        self.skipped += event.sequence != self._last() + 1
                        self.seen.append(event)
                        self._progress.notify_all()
            except grpc.RpcError:
                self._stop.wait(RETRY_S)
            except ValueError:  # the channel was closed
                return
