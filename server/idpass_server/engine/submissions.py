"""What waits for the writer thread: the commands of calls, checks, and other work."""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from idpass_server.rules.commands import Command, Outcome
from idpass_server.rules.refusals import StoreUnavailable
from idpass_server.store import Store


class Submission(NamedTuple):
    """The commands of one call, which are committed and answered together.

    Attributes:
        commands: at least one, all of one account.
        deadline_s: of the call, on time.monotonic().
        submitted_s: when it was, on time.monotonic().
        answer: gets one outcome for each command.
    """

    commands: Sequence[Command]
    deadline_s: float
    submitted_s: float
    answer: "asyncio.Future[list[Outcome]]"

    @property
    def account(self) -> str:
        """Name of the commands' account."""
        return self.commands[0].account

    def abandoned(self) -> bool:
        """Whether the caller has left or the deadline has passed."""
        return self.answer.cancelled() or time.monotonic() >= self.deadline_s


class Taken(NamedTuple):
    """A batch that was given to the store, for whoever traces calls. Times: on time.monotonic().

    Attributes:
        submissions: in it.
        taken_s: when the writer began with it.
        ended_s: when the store was done with it.
        stored: false if the store failed, and nothing was changed or the outcome is unknown.
    """

    submissions: Sequence[Submission]
    taken_s: float
    ended_s: float
    stored: bool


class Check(NamedTuple):
    """Asks whether a change could be stored now.

    Attributes:
        answer: gets the refusal, or None.
    """

    answer: "asyncio.Future[StoreUnavailable | None]"


class Work(NamedTuple):
    """Something short that is to be done with the store between two batches.

    Attributes:
        work: does it.
        answer: gets what it returns or raises.
    """

    work: Callable[[Store], Any]
    answer: "asyncio.Future[Any]"


def count(submissions: Iterable[Submission]) -> int:
    """Number of commands of all submissions together."""
    return sum(len(submission.commands) for submission in submissions)


def by_submission(
    submissions: Iterable[Submission], outcomes: list[Outcome]
) -> Iterator[tuple[Submission, list[Outcome]]]:
    """Yields each submission with the outcomes of its commands."""
    start = 0
    for submission in submissions:
        end = start + len(submission.commands)
        yield submission, outcomes[start:end]
        start = end
