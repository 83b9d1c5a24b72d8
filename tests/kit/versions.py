"""Versions of the program on disk, one of which is installed: what an upgrade replaces."""

import itertools
import shutil
import subprocess
import tarfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Final

from kit.paths import ROOT

RELEASED: Final = "99c2664fdfa02f5942a5cafa729d92c386a4bb2c"
"""The commit of version 0.1.0."""
BESIDE: Final = "468976b65d1b461e0d9195291d801f6998244fa4"
"""A commit whose program may serve a database of this one, and knows fewer migrations."""
PACKAGE: Final = ROOT / "server" / "idpass_server"


class Installed:
    """A place that Python finds the program in, and that is replaced at once by an upgrade.

    Args:
        folder: for all versions.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count()
        self._current = folder / "current"
        self.env = {"PYTHONPATH": str(self._current)}
        self.install({})

    def install(self, changes: Mapping[str, tuple[str, str]]) -> None:
        """Installs this program with changes.

        Args:
            changes: by module file, a text that occurs once and what replaces it.
        """
        version = self._folder / f"version-{next(self._numbers)}"
        ignored = shutil.ignore_patterns("static")
        shutil.copytree(PACKAGE, version / "idpass_server", ignore=ignored)
        if (PACKAGE / "gateway" / "static").exists():
            (version / "idpass_server/gateway/static").symlink_to(PACKAGE / "gateway" / "static")
        for name, (before, after) in changes.items():
            module = version / "idpass_server" / name
            text = module.read_text()
            assert text.count(before) == 1, f"{name}: {before}"
            module.write_text(text.replace(before, after))
        link = self._folder / "next"
        link.symlink_to(version)
        link.replace(self._current)


NEXT: Final = {
    "store/sqlite/schema.py": (
        "\n\nSCHEMA: Final",
        "\n\n@migrations()\ndef from_the_next_version(db: Database) -> None:\n"
        '    db.execute("CREATE TABLE novelties (id INTEGER PRIMARY KEY) STRICT")\n'
        "\n\nSCHEMA: Final",
    )
}
"""The next version of the program: its schema has a table more."""


BROKEN: Final = {
    "processes/running.py": ("import asyncio\n", "raise ImportError('a broken installation')\n"),
}
"""A version that does not start."""


def unpack(commit: str, folder: Path) -> dict[str, str] | None:
    """Unpacks an earlier version.

    Returns:
        the environment in which `python -m idpass_server` is that; None where its commit is not at
        hand, as in a clone that is not full.
    """
    archive = subprocess.run(
        ["git", "archive", commit, "server", "clients/python/src"],
        capture_output=True,
        cwd=ROOT,
        check=False,
    )
    if archive.returncode:
        return None
    with tarfile.open(fileobj=BytesIO(archive.stdout)) as files:
        files.extractall(folder, filter="data")
    return {"PYTHONPATH": f"{folder / 'server'}:{folder / 'clients' / 'python' / 'src'}"}
