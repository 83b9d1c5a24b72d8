"""Accounts that somebody else keeps locked in the database: how long their calls wait for them.

An account is waited for as a whole, from when it was first found busy. Calls that come after
that are refused as soon as it is found busy once more: they would fill the room for calls.
"""

import time
from collections.abc import Collection, Iterable
from typing import Final

WAIT_S: Final = 2.0
"""Time that a busy account is waited for, seconds; shorter than callers usually wait, 5 s."""
ANSWER_S: Final = 0.25
"""Time before a call's deadline at which its refusal must be on its way, seconds."""
FORGET_S: Final = 1.0
"""Time after which an account that was busy and was not asked for again is waited for anew."""
PAUSE_S: Final = 0.01
"""Time between two tries where nothing else is to be done, seconds."""


class BusyAccounts:
    """For one thread."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[float, float]] = {}  # since when, and when last

    def update(self, asked: Iterable[str], busy: Collection[str]) -> None:
        """Args: asked, busy: the accounts of a batch, and those of them that it did not get."""
        if not busy and not self._seen:
            return
        now_s = time.monotonic()
        for account in asked:
            if account not in busy:
                self._seen.pop(account, None)
        recent = {
            account: seen for account, seen in self._seen.items() if now_s - seen[1] < FORGET_S
        }
        for account in busy:
            recent[account] = (recent[account][0] if account in recent else now_s, now_s)
        self._seen = recent

    def worth_waiting(self, account: str, deadline_s: float) -> bool:
        """Whether a call may go into a later batch.

        Args:
            account: a busy one.
            deadline_s: of the call, on time.monotonic().
        """
        since_s, now_s = self._seen[account]
        return now_s - since_s < WAIT_S and now_s + ANSWER_S < deadline_s
