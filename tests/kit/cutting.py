"""Commands that are killed at a change they make to the disk (see cutting_disk.c)."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

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
        environment = {"LD_PRELOAD": str(self._library), "COUNTING_DISK": str(self._count)}
        if at is not None:
            environment["CUTTING_DISK"] = str(at)
        return subprocess.run(
            [sys.executable, "-m", "idpass_server", *arguments],
            env=os.environ | environment,
            capture_output=True,
            check=False,
            timeout=120,
        ).returncode

    def changes(self, *arguments: str) -> int:
        """Runs a command to its end. Returns how many changes it makes to the disk."""
        assert self.run(*arguments) == 0
        return int(self._count.read_text())
