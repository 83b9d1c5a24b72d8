"""Looks up dependencies among known vulnerabilities; `make vulnerabilities` runs it.

Those that are locked, and the oldest that the wheels admit.

It asks https://api.osv.dev, or the stored copy of it that OSV_URL names, and is skipped with the
reason where neither can be reached.
"""

import os
import subprocess
import sys
import tempfile
import tomllib
import urllib.error
import urllib.request
from itertools import chain
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement

ROOT: Final = Path(__file__).parents[2]
LOCKED: Final = ("server", "tests", "tests/bench", "protos")
PROJECTS: Final = {
    "idpass-server": ROOT / "pyproject.toml",
    "idpass-client": ROOT / "clients/python/pyproject.toml",
}
URL: Final = os.environ.get("OSV_URL", "https://api.osv.dev")
TIMEOUT_S: Final = 10


def unreachable() -> str | None:
    """Why the database cannot be asked, or None."""
    try:
        urllib.request.urlopen(URL, timeout=TIMEOUT_S).close()
    except urllib.error.HTTPError:
        return None  # it has an answer
    except OSError as error:
        return str(error)
    return None


def vulnerable(locked: Path) -> bool:
    """Prints what is known of a file's dependencies. Returns whether anything is."""
    command = [
        *(sys.executable, "-m", "pip_audit", "--requirement", str(locked), "--disable-pip"),
        *("--no-deps", "--progress-spinner", "off"),
        *("--vulnerability-service", "osv", "--osv-url", f"{URL}/v1/query"),
    ]
    print(locked, flush=True)
    return subprocess.run(command, check=False).returncode != 0


def oldest(project: Path) -> list[str]:
    """The dependencies of a wheel, extras included, each pinned to the oldest it admits."""
    declared = tomllib.loads(project.read_text())["project"]
    extras = declared.get("optional-dependencies", {}).values()
    needed = [Requirement(each) for each in chain(declared["dependencies"], *extras)]
    return [
        f"{each.name}=={bound.version}"
        for each in needed
        for bound in each.specifier
        if bound.operator == ">="
    ]


def main() -> int:
    if why := unreachable():
        print(f"Known vulnerabilities are not looked up: {URL} cannot be reached ({why})")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        floors = [Path(folder, f"oldest-for-{name}.txt") for name in PROJECTS]
        for floor, project in zip(floors, PROJECTS.values(), strict=True):
            floor.write_text("\n".join(oldest(project)))
        files = [*(ROOT / each / "requirements.txt" for each in LOCKED), *floors]
        return max([vulnerable(file) for file in files])


if __name__ == "__main__":
    sys.exit(main())
