"""The two meanings of SIGHUP: the terminal was closed, or files are to be reread.

The terminal tells them apart: a process that was started from one that is now gone should stop. A
process that never had a terminal, as under systemd, or that was started to outlive it (nohup),
rereads its files.
"""

import os
import signal


class Terminal:
    """This process's controlling terminal. Create it before installing a SIGHUP handler."""

    def __init__(self) -> None:
        outlives = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        self._expected = _is_there() and not outlives

    def is_gone(self) -> bool:
        """Whether the process was to end with its terminal, and that has been closed."""
        return self._expected and not _is_there()


def _is_there() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True
