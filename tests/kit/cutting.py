"""Commands that are killed at a change they make to the disk (see cutting_disk.c)."""

import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from kit.serving import uncovered, url_of
from kit.support import Service, problems

KIT: Final = Path(__file__).parent


class Cutter:
    """Runs idpass-server, to its end or to a chosen change to the disk.

    Args:
        folder: for what it needs.
    """

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            pytest.skip("a C compiler is needed to cut a command short")
        self._library, self._count = folder / "cut.so", folder / "count"
        source = KIT / "cutting_disk.c"
        subprocess.run(
            [compiler, "-shared", "-fPIC", "-o", self._library, source, "-ldl"], check=True
        )

    def run(self, *arguments: str, at: int | None = None) -> int:
        """Runs a command.

        Args:
            at: number of the change before which it is killed; None for its end.

        Returns:
            the exit code, negative for the number of a signal.
        """
        environment = {
            "LD_PRELOAD": str(self._library),
            "COUNTING_DISK": str(self._count),
            "PYTHONDONTWRITEBYTECODE": "1",  # or the first run makes more changes
        }
        if at is not None:
            environment["CUTTING_DISK"] = str(at)
        done = subprocess.run(
            [sys.executable, "-m", "idpass_server", *arguments],
            env=uncovered() | environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        print(done.stderr)  # shown where the test fails
        return done.returncode

    def changes(self, *arguments: str) -> int:
        """Runs a command to its end. Returns how many changes it makes to the disk."""
        assert self.run(*arguments) == 0
        return int(self._count.read_text())


class RestoreCuts:
    """Restores that are cut off: one database is whole then, the former or the restored one.

    Args:
        db: the former database, as it was left; it is only copied.
        backup: what is restored; it has fewer passes.
        folder: for what is needed.

    Attributes:
        changes: number of changes to the disk that a whole restore makes.
    """

    def __init__(self, db: Path, backup: Path, folder: Path) -> None:
        self._folder, self._backup = folder / "cuts", backup
        self._former = folder / "former"
        self._former.mkdir()
        for name in (db.name, f"{db.name}-wal", f"{db.name}-shm"):
            if (db.parent / name).exists():
                shutil.copy(db.parent / name, self._former)
        self._cutter = Cutter(folder)
        self._passes, self._history = self._state(self._copied(db.name))
        self._name = db.name
        self.changes = self._cutter.changes(*self._command(self._copied(db.name)))
        self._restored_passes, _ = self._state(self._folder / db.name)
        assert self._restored_passes < self._passes

    def cut(self, at: int) -> str:
        """Cuts a restore off before a change. Returns which database is there."""
        db = self._copied(self._name)
        assert self._cutter.run(*self._command(db), at=at) == -signal.SIGKILL
        passes, history = self._state(db)
        assert problems(db) == []
        if (passes, history) == (self._passes, self._history):
            found = "former"
        else:
            assert passes == self._restored_passes
            assert history != self._history
            found = "restored"
        # And it can be run again.
        assert self._cutter.run(*self._command(db)) == 0
        return found

    def _command(self, db: Path) -> tuple[str, ...]:
        return "restore", str(self._backup), "--db", url_of(db), "--yes"

    def _copied(self, name: str) -> Path:
        shutil.rmtree(self._folder, ignore_errors=True)
        shutil.copytree(self._former, self._folder)
        return self._folder / name

    def _state(self, db: Path) -> tuple[int, str]:
        """The number of passes and the history that a server shows."""
        service = Service(db)
        try:
            return len(service.list_all()), service.account().history
        finally:
            service.stop()
