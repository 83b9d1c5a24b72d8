"""Makes one call to the operating system fail, or kills the process before it (logged_disk.c)."""

import shutil
import subprocess
from pathlib import Path

import pytest

from kit.paths import KIT


class Faults:
    """
    Args:
        scratch: for what is needed; whoever is to meet the faults can write there.
        folder: whose files are meant by calls about files; as the processes name it.

    Attributes:
        environment: of the processes that meet them.
    """

    def __init__(self, scratch: Path, folder: Path | str) -> None:
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            pytest.skip("a C compiler is needed to have calls fail")
        library, source = scratch / "logged_disk.so", KIT / "logged_disk.c"
        subprocess.run(
            [compiler, "-O1", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True
        )
        self._fault, self._fired = scratch / "fault", scratch / "fault.fired"
        self.environment = {
            "LD_PRELOAD": str(library),
            "LOGGED_FOLDER": str(folder),
            "DISK_FAULT": str(self._fault),
        }

    def set_fault(self, action: str, call: str, number: int, process: int = 0) -> None:
        """Has the next process, or one in which nothing was set yet, meet a fault, once.

        Args:
            action: an errno, "kill", or "short".
            call: as in logged_disk.c.
            number: of the call of that kind, from now on.
            process: number of the one that is meant; 0 for any.
        """
        self._fired.unlink(missing_ok=True)
        partial = self._fault.with_suffix(".partial")
        partial.write_text(f"{action} {call} {number} {process}")
        partial.replace(self._fault)

    def fired(self) -> bool:
        """Whether the fault that was set has happened."""
        return self._fired.exists()

    def clear_fault(self) -> bool:
        """Ends what `set_fault` began. Returns whether it happened."""
        self._fault.unlink(missing_ok=True)
        return self.fired()
