"""Gives the system the names of threads, which Python does by itself from 3.14 on.

Python imports this at its start in every process that has this folder on PYTHONPATH.
"""

import ctypes
import re
import sys
import threading
from typing import Final

PR_SET_NAME: Final = 15
MAX_NAME: Final = 15  # bytes
UNNAMED: Final = re.compile(r"Thread-\d+ \((.*)\)")
"""What Python calls a thread that was given a function and no name."""

if sys.platform == "linux" and sys.version_info < (3, 14):
    _prctl = ctypes.CDLL(None).prctl
    # What runs in every thread, of whichever class it is.
    _run = threading.Thread._bootstrap_inner  # type: ignore[attr-defined]

    def _named(thread: threading.Thread) -> None:
        name = UNNAMED.sub(r"\1", thread.name)
        _prctl(PR_SET_NAME, name.encode()[:MAX_NAME], 0, 0, 0)
        _run(thread)

    threading.Thread._bootstrap_inner = _named  # type: ignore[attr-defined]
