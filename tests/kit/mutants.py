"""Mutants: seeded bugs, one at a time, and whether the suite notices them.

A mutant is one plausible bug, reviewed, and written down in `prove/mutants/ROOM.toml`: a text that
occurs once in a file, the text with the bug, and the tests that must go red.

Some mutants, or all of a room, by hand; with `--wide`, those that their tests let live are tried
against the whole suite, which takes minutes for each:

    PYTHONPATH=tests .venv/bin/python -m kit.mutants [--wide] [ROOM | NAME | N/PARTS]…
"""

import resource
import sys
from collections import Counter, defaultdict
from typing import Final, NamedTuple

from kit.mutant_list import Mutant, chosen
from kit.mutated_copy import Copy, Verdict, temporary_copy

LEAST_KILLED: Final = 0.97
"""Smallest share of mutants that the suite must kill."""
_SUITE: Final = ("rules", "store", "service", "operations", "security", "client", "webhooks")


class Tried(NamedTuple):
    """A mutant that was tried.

    Attributes:
        mutant: which.
        verdict: on it.
        told: the end of what pytest said.
    """

    mutant: Mutant
    verdict: Verdict
    told: str


class Round:
    """Mutants that are tried one after the other.

    Args:
        copy: where.
        wide: try those that their tests let live against the whole suite.

    Attributes:
        tried: those tried so far.
    """

    def __init__(self, copy: Copy, *, wide: bool = False) -> None:
        self._copy = copy
        self._wide = wide
        self.tried: list[Tried] = []

    def attempt(self, mutant: Mutant) -> Tried:
        """Tries one."""
        with self._copy.with_bug(mutant):
            verdict, said = self._copy.run(mutant.tests)
            if verdict is Verdict.SURVIVED and self._wide and not mutant.survives:
                verdict, said = self._copy.run([f"tests/{each}" for each in _SUITE], run_s=3_600)
        self.tried.append(Tried(mutant, verdict, said))
        return self.tried[-1]

    def unsound(self) -> str | None:
        """What fails of the same tests without any mutant: then a kill means nothing."""
        tests = dict.fromkeys(test for each in self.tried for test in each.mutant.tests)
        verdict, told = self._copy.run(tests, run_s=3_600)
        return None if verdict is Verdict.SURVIVED else told

    def problems(self) -> list[str]:
        """What must not be: mutants that lived, and reasons that do not hold."""
        wrong = []
        for mutant, verdict, told in self.tried:
            if verdict is Verdict.FAULTY:
                wrong.append(f"{mutant.name} cannot be tried:\n{told}")
            elif verdict is Verdict.SURVIVED and not mutant.survives:
                wrong.append(f"{mutant.name} survives {', '.join(mutant.tests)}")
            elif verdict is not Verdict.SURVIVED and mutant.survives:
                wrong.append(f"{mutant.name} does not survive; remove the reason why it would")
        killed = sum(each.verdict in (Verdict.KILLED, Verdict.HUNG) for each in self.tried)
        if killed < LEAST_KILLED * len(self.tried):
            wrong.append(f"{killed} of {len(self.tried)} were killed, less than {LEAST_KILLED:.0%}")
        return wrong

    def lines(self) -> list[str]:
        """The counts by room, and each mutant that lived or hung."""
        rooms: defaultdict[str, Counter[Verdict]] = defaultdict(Counter)
        for mutant, verdict, _ in self.tried:
            rooms[mutant.room][verdict] += 1
        lines = [
            f"{room}: {', '.join(f'{count} {verdict}' for verdict, count in counts.items())}"
            for room, counts in rooms.items()
        ]
        lines += [
            f"{verdict}: {mutant.name} in {mutant.file}"
            + (f" ({mutant.survives})" if mutant.survives else "")
            for mutant, verdict, _ in self.tried
            if verdict is not Verdict.KILLED
        ]
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return [*lines, f"CPU of all tests: {used.ru_utime + used.ru_stime:.0f} s"]


def _main(words: list[str]) -> int:
    wide = "--wide" in words
    mutants = chosen([word for word in words if not word.startswith("--")])
    with temporary_copy() as copy:
        these = Round(copy, wide=wide)
        for mutant in mutants:
            tried = these.attempt(mutant)
            sys.stdout.write(f"{tried.verdict:9}{mutant.room}/{mutant.name}\n")
            if tried.verdict is Verdict.FAULTY:
                sys.stdout.write(f"{tried.told}\n")
            sys.stdout.flush()
    problems = these.problems()
    sys.stdout.write("\n".join(["", *these.lines(), *problems, ""]))
    return bool(problems)


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
