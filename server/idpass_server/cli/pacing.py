"""Long work on a database in use: in short transactions, with pauses for the server's own.

SQLite has one lock for writing, which the server needs for every batch; PostgreSQL one for each
account. So a transaction takes a few milliseconds, and a pause of several times as long follows.
"""

import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Final, TypeVar

import click

from idpass_server.rules.refusals import StoreUnavailable

TRANSACTION_S: Final = 0.004
"""Time that a transaction should take, waiting for the lock included, seconds."""
FEWEST, MOST = 10, 200
"""Number of passes in a transaction."""
PAUSE_TIMES: Final = 4
"""Pause after a transaction, in multiples of its time."""
LONGEST_PAUSE_S: Final = 0.1
"""Longest pause, seconds."""
PATIENCE_S: Final = 60.0
"""How long to try again while the database is busy, seconds."""

Item = TypeVar("Item")
T = TypeVar("T")


class Interrupted(Exception):
    """The operator has interrupted the work, between two transactions."""


class Pace:
    """The pace of one command's work.

    Args:
        interrupted: returns whether the operator wants it to end.
    """

    def __init__(self, interrupted: Callable[[], bool]) -> None:
        self._interrupted = interrupted
        self._size = FEWEST

    def chunks(self, items: Sequence[Item]) -> Iterator[Sequence[Item]]:
        """Yields the items in chunks, each for one transaction, and pauses in between.

        Raises:
            Interrupted: the operator wants the work to end.
        """
        start = 0
        while start < len(items):
            if self._interrupted():
                raise Interrupted
            chunk = items[start : start + self._size]
            began_s = time.monotonic()
            yield chunk
            took_s = time.monotonic() - began_s
            start += len(chunk)
            size = self._size // 2 if took_s > TRANSACTION_S else self._size + 2
            self._size = max(FEWEST, min(MOST, size))
            time.sleep(min(PAUSE_TIMES * took_s, LONGEST_PAUSE_S))


def patiently(work: Callable[[], T]) -> T:
    """Runs a transaction, again and again while the database is busy.

    Raises:
        StoreUnavailable: it still is after PATIENCE_S.
    """
    until_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            return work()
        except StoreUnavailable:
            if time.monotonic() >= until_s:
                raise
        time.sleep(LONGEST_PAUSE_S)


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Lets SIGINT and SIGTERM end the work between two transactions; a second one ends it at once.

    Yields a function that returns whether one has come.
    """
    came: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        if came:
            raise KeyboardInterrupt
        came.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def progress(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """Shows how far the work is, on standard error if that is a terminal.

    Args:
        label: what is being done.
        total: number of steps.
    """
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    with click.progressbar(length=total, label=label, file=sys.stderr) as bar:
        yield bar.update
