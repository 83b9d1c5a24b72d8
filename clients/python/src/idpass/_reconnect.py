"""When a broken stream is opened again. Does no I/O but logging."""

from typing import Any, NoReturn

from idpass import _failure, _log
from idpass._failure import Explain
from idpass._policy import RetryPolicy
from idpass._retry import Backoff, delay_before_next_s
from idpass.errors import IdPassError, Overloaded, Unavailable

OPEN_S = 1.0
"""A stream that lasts this long was accepted: refusals come at once. Seconds."""


class Reconnects:
    """The streams of one iteration over events.

    An overloaded server is waited for only once a stream has been open. A watcher refused from
    the start learns of it at once: there may be too many streams, and for long.

    Args:
        method: name of the rpc.
        policy: `reconnect_for` says how long there may be no stream before that is an error.
        now_s: monotonic.
        explain: as for `Attempts`.
    """

    def __init__(self, method: str, policy: RetryPolicy, now_s: float, explain: Explain) -> None:
        self._method = method
        self._policy = policy
        self._explain = explain
        self._give_up_s = now_s + policy.reconnect_for
        self._backoff = Backoff(policy)
        self._attempt = 1
        self._connected = False
        self._was_open = False
        self._waited_for: IdPassError | None = None

    @property
    def waiting(self) -> bool:
        """Whether the next stream has to wait for a connection first."""
        return self._waited_for is not None

    def remaining_s(self, now_s: float) -> float:
        """How long to go on without a stream."""
        return max(self._give_up_s - now_s, 0.0)

    def connected(self) -> None:
        if not self._connected:
            if self._waited_for:
                _log.back(self._method, self._attempt)
            self._connected = True
            self._waited_for = None
            self._backoff = Backoff(self._policy)
            self._attempt = 1

    def gave_up(self) -> NoReturn:
        """The stream was cancelled here, because the server did not begin to answer in time.

        Raises:
            IdPassError: that of the last stream.
        """
        assert self._waited_for  # noqa: S101 nothing else has a time limit
        _log.gave_up(_log.WATCH, self._method, self._attempt, self._waited_for)
        raise self._waited_for

    def failed(self, rpc_error: Any, now_s: float) -> float:
        """As for `Attempts`."""
        error, _ = _failure.read(rpc_error, self._method, None, self._explain)
        overloaded = isinstance(error, Overloaded)
        # The server begins its answer before it counts the streams: one that is refused as
        # Overloaded was connected, and never open.
        if self._connected and not overloaded:
            self._was_open = True
            self._give_up_s = now_s + self._policy.reconnect_for
        self._connected = False
        if isinstance(error, Unavailable) or overloaded:
            waits = not overloaded or self._was_open
            delay_s = delay_before_next_s(error, rpc_error, self._backoff) if waits else -1.0
            if 0 <= delay_s < self._give_up_s - now_s:
                self._waited_for = error
                _log.retried(_log.WATCH, self._method, self._attempt, error, delay_s)
                self._attempt += 1
                return delay_s
            _log.gave_up(_log.WATCH, self._method, self._attempt, error)
        raise error
