"""A copy of the repository in which mutants live one at a time, and its tests run.

Servers that tests start in processes of their own run the copy too: PYTHONPATH comes before what is
installed.
"""

import itertools
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from typing import Final

from kit.mutant_list import Mutant
from kit.paths import ROOT
from kit.serving import uncovered

HANG_S: Final = 60
"""Time after which a test hangs, seconds."""
RUN_S: Final = 300
"""Time after which the tests of a mutant hang, seconds. Hypothesis runs one that hung again."""
_LEFT_OUT: Final = shutil.ignore_patterns(
    *(".git", ".venv*", "node_modules", "__pycache__", ".*_cache", ".hypothesis", ".coverage*"),
    *("build", "dist", "results"),
)
_PYTEST: Final = (
    *("-x", "-q", "--no-header", "-m", "not long"),
    *("-p", "no:schemathesis"),  # no test here uses it, and it takes a second to be imported
    *("-p", "no:cacheprovider"),
)
_FAILED: Final = 1  # pytest's exit code


class Verdict(StrEnum):
    """What became of a mutant."""

    KILLED = "killed"
    HUNG = "hung"
    """A test did not end, which the suite notices as well."""
    SURVIVED = "survived"
    FAULTY = "faulty"
    """Nothing was tried: the mutant or its tests cannot even be loaded."""


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
