"""SIGHUP has two meanings: the terminal is gone, or files are to be read again.

Which it is shows in the terminal: a process that was started from one, and has none any more, is
to end with it. One that never had a terminal, as under systemd, or that was started to outlive it
(nohup), reads its files again.
"""

import os
import signal


class Terminal:
    """The terminal that controls this process. Make it before SIGHUP gets a handler."""

    def __init__(self) -> None:
        outlives = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        self._expected = _is_there() and not outlives

    def is_gone(self) -> bool:
        """Whether the process had a terminal to end with, and that has been closed."""
        return self._expected and not _is_there()


def _is_there() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True
