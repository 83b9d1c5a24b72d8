"""One stream of the sync client.

Instrumentation may have replaced gRPC's call object by a plain generator, which begins the call
when it is asked for the first message, does not tell whether the server has begun to answer, and
cannot be ended by another thread.
"""

import threading
import time
from collections.abc import Iterator
from typing import Any

from idpass._reconnect import OPEN_S


class Stream:
    """
    Args:
        call: what the stub returned.

    Attributes:
        gave_up: whether `opened` cancelled the stream, for want of an answer.
        metadata: what the server began its answer with, once it has; None if that is not told.
    """

    def __init__(self, call: Any) -> None:
        self._call = call
        self._whole = hasattr(call, "initial_metadata")
        self.gave_up = False
        self.metadata: Any = None
        self._made_s = time.monotonic()

    def opened(self, patience_s: float | None) -> bool:
        """Waits until the server begins to answer. Returns whether the stream is open then.

        Args:
            patience_s: seconds after which the stream is cancelled; None for no limit.
        """
        if not self._whole:
            return False
        give_up = threading.Timer(patience_s or 0.0, self._give_up)
        if patience_s is not None:
            give_up.start()
        try:
            # Comes at once, however long there are no events.
            self.metadata = self._call.initial_metadata()
        finally:
            give_up.cancel()
        return bool(self._call.is_active())

    def _give_up(self) -> None:
        self.gave_up = True
        self._call.cancel()

    def seems_open(self) -> bool:
        """Whether a generator's stream has lasted too long to have been refused."""
        return not self._whole and time.monotonic() - self._made_s > OPEN_S

    def cancel(self) -> None:
        if self._whole:
            self._call.cancel()
        elif hasattr(self._call, "close"):  # an iterator of an interceptor's own may have neither
            self._call.close()

    def __iter__(self) -> Iterator[Any]:
        return iter(self._call)
