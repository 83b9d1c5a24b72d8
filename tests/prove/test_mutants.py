"""Attacks the tests: the code gets one bug at a time, and `make test` must notice.

* Promise: that all others are watched. A promise that a plausible slip could break unnoticed is one
  that the next change may break.
* Means: `prove/mutants/*.toml`, a reviewed list. Each entry is one bug and the tests that must go
  red. They run in a copy of the repository, and so do the servers that they start. 97 % must be
  killed; one that survives needs a reason why it is harmless.
* Controls: the same tests are green in the copy as it is; a change that breaks nothing survives,
  and is told; a bug that only a server in a process of its own meets is killed; a test that hangs
  counts as red and is told apart; a mutant that cannot be loaded is a fault of the list.
* Blind spots: bugs that nobody thought of. Python only: no mutants of the page or the TypeScript
  client. Long drills are not asked, so what only they would notice counts as unnoticed.
"""

import random
from collections.abc import Iterator

import pytest

from kit.mutant_list import Mutant, written_down
from kit.mutants import Round, Tried
from kit.mutated_copy import Copy, Verdict, temporary_copy
from kit.proving import times
from kit.support import report

SEED = 20261126
CHOSEN = times(every_day=2, a_minute=4)
POSITIONS = "server/idpass_server/rules/positions.py"
COUNTING = "tests/rules/test_positions.py"
LOST = f"{COUNTING}::test_a_lost_position_is_refused_with_what_there_is"
STARTS = "tests/service/test_server.py::test_the_environment_sets_what_the_options_do"


@pytest.fixture(scope="module")
def copy() -> Iterator[Copy]:
    with temporary_copy() as made:
        yield made


def test_the_suite_notices_seeded_bugs(copy: Copy, request: pytest.FixtureRequest) -> None:
    mutants = written_down()
    some = random.Random(SEED).sample(mutants, min(CHOSEN, len(mutants)))
    tries = Round(copy)
    for mutant in some:
        tries.attempt(mutant)
    tell(request, f"seed {SEED}: {len(some)} of {len(mutants)} tried", *tries.lines())
    assert tries.problems() == []
    assert tries.unsound() is None


def tell(request: pytest.FixtureRequest, *lines: str) -> None:
    for line in lines:
        report(request, "mutants", line)


# -- controls


END = "    return newest - position - missing\n"


def mutant(
    new: str, *, old: str = END, file: str = POSITIONS, test: str = COUNTING, survives: str = ""
) -> Mutant:
    return Mutant("control", "control", file, old, new, (test,), survives)


@pytest.mark.parametrize(
    ("control", "verdict"),
    [
        (mutant("    return newest - missing - position\n"), Verdict.SURVIVED),
        (mutant("    return newest - position\n"), Verdict.KILLED),
        (
            mutant(
                "    while True:\n        pass\n    return max((gap.before",
                old="    return max((gap.before",
                test=LOST,
            ),
            Verdict.HUNG,
        ),
        (mutant("    return newest - position - missing\n\n\nimport nowhere\n"), Verdict.FAULTY),
        (
            mutant(
                "main = exit",
                old="from idpass_server.cli import main",
                file="server/idpass_server/__main__.py",
                test=STARTS,
            ),
            Verdict.KILLED,
        ),
    ],
    ids=["harmless", "bug", "endless", "unloadable", "in-a-server-of-its-own"],
)
def test_each_verdict_is_reached(copy: Copy, control: Mutant, verdict: Verdict) -> None:
    with copy.with_bug(control):
        assert copy.run(control.tests, hang_s=5)[0] is verdict


def test_the_copy_itself_is_sound_and_stays_so(copy: Copy) -> None:
    with copy.with_bug(mutant("    return newest - position\n")):
        pass
    assert copy.run([COUNTING])[0] is Verdict.SURVIVED


@pytest.mark.parametrize(
    ("verdict", "reason", "wrong"),
    [
        (Verdict.SURVIVED, "", "survives"),
        (Verdict.FAULTY, "", "cannot be tried"),
        (Verdict.KILLED, "it is harmless", "does not survive"),
    ],
)
def test_what_must_not_be_is_told(verdict: Verdict, reason: str, wrong: str) -> None:
    tries = a_round(100, Verdict.KILLED)
    assert tries.problems() == []
    tries.tried.append(Tried(mutant("", survives=reason), verdict, "said"))
    (told,) = tries.problems()
    assert wrong in told


@pytest.mark.parametrize(("survivors", "enough"), [(3, True), (4, False)])
def test_few_may_survive_for_a_reason(survivors: int, *, enough: bool) -> None:
    tries = a_round(100 - survivors, Verdict.HUNG)
    harmless = mutant("", survives="it is harmless")
    tries.tried += [Tried(harmless, Verdict.SURVIVED, "")] * survivors
    assert (tries.problems() == []) is enough


def a_round(count: int, verdict: Verdict) -> Round:
    tries = Round(None)  # type: ignore[arg-type]
    tries.tried += [Tried(mutant(""), verdict, "")] * count
    return tries
