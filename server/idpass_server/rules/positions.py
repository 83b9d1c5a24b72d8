"""Positions in an account's events, and which of them this history has. Pure.

A position is a sequence number up to which somebody has seen every event. Numbers have no gaps
except those recorded here, which arise in two ways:

* A restored backup begins a new history. What the former one added after the backup is gone, and
  whoever has seen it must not be given other events under the same numbers. So numbers skip ahead,
  to a number that no former history can have reached: a gap from the backup's newest event to
  there.
* A purge removes old events for good: a gap that begins below the first number.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

from idpass_server.rules.refusals import HistoryLost

PURGED: Final = -1
"""`after_sequence` of the gap that purging leaves."""


class Gap(NamedTuple):
    """Numbers that are missing.

    Attributes:
        after_sequence: the newest position before the gap that can be resumed from; PURGED if there
            is none.
        before_sequence: the oldest position behind it that can be resumed from. No event in between
            can be relied on, and none has this number unless the gap is that of a purge.
    """

    after_sequence: int
    before_sequence: int


class Positions(NamedTuple):
    """What is known of an account's positions.

    Attributes:
        history: id of the database's history.
        gaps: of the account.
    """

    history: str
    gaps: tuple[Gap, ...] = ()

    def of_pass(self) -> "Positions":
        """The positions for whoever reads one pass that is there: none of its events was purged."""
        return self._replace(gaps=tuple(g for g in self.gaps if g.after_sequence != PURGED))

    def check(self, position: int, history: str = "") -> None:
        """Checks that a position can be resumed from.

        Args:
            position: the sequence up to which everything was seen.
            history: id of the history that it is from; "" if that is not known.

        Raises:
            HistoryLost: it cannot.
        """
        if not resumable(position, self.gaps, same_history=history in ("", self.history)):
            raise HistoryLost(self.history, position, oldest_position(self.gaps))


def resumable(position: int, gaps: Iterable[Gap], *, same_history: bool = True) -> bool:
    """Whether every event after a position is there, and what was seen up to it still holds.

    Args:
        position: the sequence up to which everything was seen.
        gaps: of the account.
        same_history: false if the position is known to be from another history. Up to the newest
            restore, a former history and this one are the same.
    """
    gaps = tuple(gaps)
    if any(gap.after_sequence < position < gap.before_sequence for gap in gaps):
        return False
    return same_history or position == 0 or any(position <= gap.after_sequence for gap in gaps)


def oldest_position(gaps: Iterable[Gap]) -> int:
    """The smallest position that can be resumed from; 0 unless events were purged."""
    return max((gap.before_sequence for gap in gaps if gap.after_sequence == PURGED), default=0)


def skipped(position: int, gaps: Iterable[Gap]) -> int:
    """The same position, behind the gaps that begin there."""
    for gap in sorted(gaps):
        if gap.after_sequence == position:
            position = gap.before_sequence
    return position


def numbers_between(position: int, newest: int, gaps: Iterable[Gap]) -> int:
    """How many events there are from a position up to the newest, without the gaps."""
    missing = sum(
        max(0, min(gap.before_sequence, newest) - max(gap.after_sequence, position)) for gap in gaps
    )
    return newest - position - missing
