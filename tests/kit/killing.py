"""Kills processes under callers that keep a ledger, by the clock or before a call to the system."""

import contextlib
import itertools
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from kit.faults import Faults
from kit.ledger import Ledger
from kit.support import eventually, problems, set_slots
from kit.witness import OPEN, Access, Call, Witness, callers

CALLERS: Final = 3
ENOUGH: Final = 25
"""Number of answers after which a call to the system that was not met is given up."""
MOST_ANSWERS: Final = 6
"""Most answers before a kill by the clock."""
MOMENT_S: Final = 0.004
"""Longest time from an answer to a kill by the clock, seconds."""
AGAIN: Final = 5
"""Number of older answers that are asked for again after each kill."""
SLOTS: Final = 1_000_000
CLOCK: Final = "clock"


class Kill(NamedTuple):
    """When a process is killed.

    Attributes:
        when: what goes on.
        how: "clock", or a call as in logged_disk.c.
        number: of the call.
    """

    when: str
    how: str
    number: int = 0


class Target(NamedTuple):
    """What is killed.

    Attributes:
        kill: kills it.
        gone: whether it was killed.
        process: its number; 0 if any process that meets the faults is meant.
    """

    kill: Callable[[], None]
    gone: Callable[[], bool]
    process: int = 0


class Drill:
    """Callers, whose ledger must be true after each kill.

    Args:
        url: of the database.
        seed: of what is random.
        access: of the callers.

    Attributes:
        url: of the database.
        draw: what is random.
        ledger: of the database that there is.
        kills: number of kills, by when and how.
        bad: what was not as promised.
    """

    def __init__(self, url: str, seed: int, access: Access = OPEN) -> None:
        self.draw = random.Random(seed)
        self.ledger = Ledger()
        self.kills: Counter[tuple[str, str]] = Counter()
        self.bad: list[str] = []
        self.url, self._access = url, access
        self._made: list[Call] = []
        self._names = itertools.count()
        self._answers = 0
        self._found: Counter[str] = Counter()

    def begin_anew(self) -> None:
        """The database is gone."""
        self._answers += len(self.ledger.calls)
        self._found += self.ledger.found
        self.ledger = Ledger()

    @property
    def unchecked(self) -> bool:
        """Whether calls were made since the last check."""
        return bool(self._made)

    def plan(self, calls: Mapping[str, Mapping[str, int]], weights: Mapping[str, int]) -> Kill:
        """Draws a kill: every third by the clock, the others before a call.

        Args:
            calls: the most of each call, by what goes on.
            weights: how often what goes on is drawn.
        """
        (when,) = self.draw.choices(list(weights), list(weights.values()))
        if self.draw.random() < 1 / 3:
            return Kill(when, CLOCK)
        how = self.draw.choice(list(calls[when]))
        return Kill(when, how, self.draw.randint(1, calls[when][how]))

    def load(self, address: str, strike: Callable[[Witness], None]) -> None:
        """Has callers call while something strikes."""
        witness = Witness(next(self._names), may_drop=True)
        try:
            with callers(address, witness, CALLERS, self._access):
                strike(witness)
        except AssertionError as error:  # a caller sees what it should not, or waits in vain
            self.bad.append(repr(error))
        self._made += witness.take()

    def strike(self, witness: Witness, kill: Kill, target: Target, faults: Faults) -> None:
        """Kills under load."""
        if kill.how == CLOCK:
            if answers := self.draw.randint(0, MOST_ANSWERS):
                witness.wait_for_answers(answers)
            time.sleep(self.draw.random() * MOMENT_S)
            target.kill()
            self.count(kill)
            return
        faults.set_fault("kill", kill.how, kill.number, target.process)
        eventually(lambda: target.gone() or witness.answered >= ENOUGH)
        met = faults.clear_fault()
        if not met:
            target.kill()
        self.count(kill, met=met)

    def count(self, kill: Kill, *, met: bool = True) -> None:
        self.kills[kill.when, kill.how if met else f"{kill.how} not met, so {CLOCK}"] += 1

    def check(self, address: str, *, given_by: str | None = None, everything: bool = False) -> None:
        """What was answered is answered again, all adds up, and the audit is clean.

        Args:
            address: of the service.
            given_by: address of who answers for the service, if it is not the service itself.
            everything: also what was checked before, not only some of it.
        """
        if not self.ledger.calls:
            set_slots(self.url, SLOTS)
        with contextlib.ExitStack() as stack:
            calls = OPEN.calls_to(address)
            stack.callback(calls.channel.close)
            gateway = None
            if given_by is not None:
                gateway = self._access.calls_to(given_by)
                stack.callback(gateway.channel.close)
            older = self.ledger.calls
            if not everything:
                older = self.draw.sample(older, min(AGAIN, len(older)))
            self.bad += self.ledger.again(calls, older)
            made, self._made = self._made, []
            self.bad += self.ledger.settle(calls, made, gateway)
        self.bad += problems(self.url)

    def __str__(self) -> str:
        when: Counter[str] = Counter()
        how: Counter[str] = Counter()
        for (during, by), number in self.kills.items():
            when[during] += number
            how[by] += number
        answers = self._answers + len(self.ledger.calls)
        found = self._found + self.ledger.found
        return (
            f"{self.kills.total()} kills, {len(self.bad)} faults; {dict(when)}; "
            f"{dict(how.most_common())}; {answers} calls, of those without an answer {dict(found)}"
        )
