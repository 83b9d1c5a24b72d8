"""Mutants: seeded bugs, one at a time, and whether the suite notices them.

A mutant is one plausible bug, reviewed, and written down in `prove/mutants/ROOM.toml`: a text that
occurs once in a file, the text with the bug, and the tests that must go red. It lives in a copy of
the repository. Servers that tests start in processes of their own run the copy too: PYTHONPATH
comes before what is installed.

Some mutants, or all of a room, by hand; with `--wide`, those that their tests let live are tried
against the whole suite, which takes minutes for each:

    PYTHONPATH=tests .venv/bin/python tests/kit/mutants.py [--wide] [ROOM | NAME | N/PARTS]…
"""

import ast
import itertools
import json
import os
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from typing import Final, NamedTuple

from kit.paths import ROOT
from kit.serving import uncovered

FOLDER: Final = ROOT / "tests/prove/mutants"
LEAST_KILLED: Final = 0.97
"""Smallest share of mutants that the suite must kill."""
HANG_S: Final = 60
"""Time after which a test hangs, seconds."""
RUN_S: Final = 300
"""Time after which the tests of a mutant hang, seconds. Hypothesis runs one that hung again."""
_LEFT_OUT: Final = shutil.ignore_patterns(
    *(".git", ".venv*", "node_modules", "__pycache__", ".*_cache", ".hypothesis", ".coverage*"),
    *("build", "dist", "results"),
)
_SUITE: Final = ("rules", "store", "service", "operations", "security", "client", "webhooks")
_PYTEST: Final = (
    *("-x", "-q", "--no-header", "-m", "not long"),
    *("-p", "no:schemathesis"),  # no test here uses it, and it takes a second to be imported
    *("-p", "no:cacheprovider"),
)
_FAILED: Final = 1  # pytest's exit code


class Mutant(NamedTuple):
    """One seeded bug.

    Attributes:
        room: the file that it is written down in.
        name: what the bug is; unique.
        file: where it is, from the root of the repository.
        old: the text that it replaces, which occurs once in the file.
        new: the text with the bug.
        tests: that must go red, as pytest takes them.
        survives: why it is harmless; "" for one that must not live.
    """

    room: str
    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    survives: str = ""

    def changed(self, text: str) -> str:
        """The file's text with the bug.

        Raises:
            ValueError: it does not apply.
        """
        if (count := text.count(self.old)) != 1:
            raise ValueError(f"{self.name}: `old` occurs {count} times in {self.file}")
        with_bug = text.replace(self.old, self.new)
        if with_bug == text:
            raise ValueError(f"{self.name}: `new` is `old`")
        return with_bug


class Verdict(StrEnum):
    """What became of a mutant."""

    KILLED = "killed"
    HUNG = "hung"
    """A test did not end, which the suite notices as well."""
    SURVIVED = "survived"
    FAULTY = "faulty"
    """Nothing was tried: the mutant or its tests cannot even be loaded."""


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


def written_down(folder: Path = FOLDER) -> list[Mutant]:
    """All mutants, by room and in the order of its file."""
    return [
        Mutant(path.stem, **entry | {"tests": tuple(entry["tests"])})
        for path in sorted(folder.glob("*.toml"))
        for entry in tomllib.loads(path.read_text())["mutant"]
    ]


def chosen(words: Sequence[str]) -> list[Mutant]:
    """The mutants of rooms, by names, or one part of several (2/5); all without a word."""
    mutants = written_down()
    if not words:
        return mutants
    found: dict[str, Mutant] = {}
    for word in words:
        part, slash, parts = word.partition("/")
        some = (
            mutants[int(part) - 1 :: int(parts)]
            if slash
            else [each for each in mutants if word in (each.room, each.name)]
        )
        if not some:
            raise SystemExit(f"there is no mutant and no room {word!r}")
        found |= {each.name: each for each in some}
    return list(found.values())


class Copy:
    """A copy of the repository, in which mutants live one at a time.

    Args:
        folder: where to make it; tests leave their files there as well.

    Attributes:
        environment: of the processes that run it.
    """

    def __init__(self, folder: Path) -> None:
        self._root = folder / "copy"
        self._log = folder / "log"
        self._pytest = (*_PYTEST, "--basetemp", str(folder / "tmp"))
        shutil.copytree(ROOT, self._root, symlinks=True, ignore=_LEFT_OUT)
        paths = self._root / "server", self._root / "clients/python/src"
        kept = {
            name: value
            for name, value in uncovered().items()
            if not name.startswith(("PYTEST_", "PROVE_"))
        }
        self.environment = kept | {"PYTHONPATH": os.pathsep.join(map(str, paths))}
        self._moments = itertools.count(1_000_000_000, 2)
        self._warm = subprocess.Popen(
            [sys.executable, "-P", str(self._root / "tests/kit/warm_pytest.py")],
            cwd=self._root,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def close(self) -> None:
        """Ends the process that runs tests."""
        self._warm.communicate()

    @contextmanager
    def with_bug(self, mutant: Mutant) -> Iterator[None]:
        """Puts a mutant in, and takes it out again."""
        path = self._root / mutant.file
        sound = path.read_text()
        self._write(path, mutant.changed(sound))
        try:
            yield
        finally:
            self._write(path, sound)

    def _write(self, path: Path, text: str) -> None:
        path.write_text(text)
        # Python knows a compiled file by its source's size and time, which has whole seconds.
        moment = next(self._moments)
        os.utime(path, (moment, moment))

    def run(
        self, tests: Iterable[str], *, hang_s: int = HANG_S, run_s: float = RUN_S
    ) -> tuple[Verdict, str]:
        """Runs tests in the copy, up to the first that fails.

        Args:
            tests: as pytest takes them.
            hang_s: time after which one test hangs, seconds.
            run_s: time after which all of them hang, seconds.

        Returns:
            the verdict, and the end of what pytest said.
        """
        bounded = ("--timeout", str(hang_s), "--hypothesis-seed", "0")
        request = {"arguments": [*self._pytest, *bounded, *tests], "log": str(self._log)}
        assert self._warm.stdin
        assert self._warm.stdout
        self._warm.stdin.write(f"{json.dumps(request)}\n".encode())
        self._warm.stdin.flush()
        pid = int(self._warm.stdout.readline())
        ended, _, _ = select.select([self._warm.stdout], [], [], run_s)
        # Servers that a test has left behind would keep the machine busy.
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        code = int(self._warm.stdout.readline())
        said = self._log.read_text(errors="replace")
        if not ended:
            return Verdict.HUNG, f"not done after {run_s} s"
        return _verdict(code, said), said[-2_000:]


@contextmanager
def temporary_copy() -> Iterator[Copy]:
    """A copy that is gone in the end. Its path is short: tests bind sockets below it."""
    with (
        tempfile.TemporaryDirectory(prefix="mutants-", ignore_cleanup_errors=True) as folder,
        closing(Copy(Path(folder))) as copy,
    ):
        yield copy


def _verdict(code: int, said: str) -> Verdict:
    if code == _FAILED:
        return Verdict.HUNG if "Failed: Timeout" in said else Verdict.KILLED
    return Verdict.FAULTY if code else Verdict.SURVIVED


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


def compiles(mutant: Mutant) -> None:
    """Checks that a mutant applies, and that its file still has the form that it must have.

    Raises:
        ValueError: it does not apply.
        SyntaxError: it is no Python.
    """
    path = ROOT / mutant.file
    text = mutant.changed(path.read_text())
    if path.suffix == ".py":
        ast.parse(text)


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
