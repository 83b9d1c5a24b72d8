"""Standard output and error of the command line: text that cannot control the terminal, and writes
whose failure is reported where that is possible.
"""

import contextlib
import errno
import io
import os
from typing import IO, Any, TextIO

import rich.console


class CannotWrite(Exception):
    """Standard output cannot be written. What was asked for may be done all the same."""

    def __init__(self, error: OSError) -> None:
        super().__init__(error.strerror or str(error))
        self.reader_left = error.errno == errno.EPIPE


class _Guarded:
    """A stream whose failing writes raise CannotWrite, or are ignored if it is not needed."""

    def __init__(self, stream: IO[str], *, needed: bool) -> None:
        self._stream = stream
        self._needed = needed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        self._try(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._try(self._stream.flush)

    def _try(self, act: Any) -> None:
        try:
            act()
        except OSError as error:
            # What is left in the buffer must not fail again when Python exits.
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
            if self._needed:
                raise CannotWrite(error) from error


def console(stream: IO[str], *, needed: bool, **settings: Any) -> rich.console.Console:
    """A console on a stream. `needed`: whether a failing write is an error."""
    if isinstance(stream, io.TextIOWrapper):
        # An applicant's name that the terminal's encoding cannot express is not a failure.
        stream.reconfigure(errors="backslashreplace")
    guarded: Any = _Guarded(stream, needed=needed)
    return rich.console.Console(
        file=guarded, markup=False, emoji=False, highlight=False, **settings
    )


def encodes_everything(stream: TextIO) -> bool:
    return (stream.encoding or "").lower().replace("-", "").startswith("utf")
