"""Busy accounts, which another process keeps locked, and how long calls wait for them.

The wait belongs to the account and starts when it is first found busy. Calls that come after it has
passed are refused as soon as the account is found busy again; otherwise they would use up the
places for calls.
"""

import time
from collections.abc import Collection, Iterable
from typing import Final

WAIT_S: Final = 2.0
"""Longest wait for a busy account, seconds; shorter than a client's default deadline, 5 s."""
ANSWER_S: Final = 0.25
"""Time before a call's deadline by which its refusal must be sent, seconds."""
FORGET_S: Final = 1.0
"""Age at which a busy account that no call has asked for since is forgotten, seconds."""
PAUSE_S: Final = 0.01
"""Pause between two attempts while nothing else is to be done, seconds."""


class BusyAccounts:
    """The accounts found busy lately; for one thread."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[float, float]] = {}  # first and latest time seen busy

    def update(self, asked: Iterable[str], busy: Collection[str]) -> None:
        """Notes the result of a batch.

        Args:
            asked: accounts of the batch.
            busy: those of them that were busy.
        """
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
        """Whether to try a call again in a later batch.

        Args:
            account: the call's account, which is busy.
            deadline_s: the call's deadline, on time.monotonic().
        """
        since_s, now_s = self._seen[account]
        return now_s - since_s < WAIT_S and now_s + ANSWER_S < deadline_s
