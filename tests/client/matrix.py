"""Runs the client's tests where its callers are: the wheel, with old and new dependencies.

    python tests/client/matrix.py

The wheel is built and installed into new environments: the oldest grpcio and protobuf that it
allows and the newest there are, each on the oldest Python that it allows and the newest that this
machine has. The service runs in the environment that this script is run with.
"""

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
CLIENT = ROOT / "clients" / "python"
PYPROJECT = (CLIENT / "pyproject.toml").read_text()
DEPENDENCIES = {
    "oldest": ("grpcio==1.76.*", "protobuf==6.33.5"),
    "newest": ("grpcio", "protobuf"),
}
TESTS = (
    "pytest",
    "grpcio-testing",
    "trustme",
    "h2",  # the frames of answers that no gRPC server gives
    # What takes gRPC's channels over in callers' services.
    "opentelemetry-instrumentation-grpc",
    "opentelemetry-sdk",
    "sentry-sdk",
)
# These test the server's side, or the type checker's, and not the wheel, or need servers that only
# the server's package can make.
NOT_HERE = (
    "test_cli_commands.py",
    "test_protos.py",
    "test_public.py",
    "test_readme.py",
    "test_testing.py",
    "test_typescript.py",
)
AT_ONCE = 2
ASK = (
    "import json, sys, venv, ensurepip; "
    "print(json.dumps([sys.implementation.name, *sys.version_info[:3], sys.version_info[3]]))"
)
INSTALLED = (
    "import grpc, google.protobuf, idpass; "
    "print(idpass.__file__, grpc.__version__, google.protobuf.__version__)"
)

Version = tuple[int, ...]


class Place(NamedTuple):
    python: str
    version: Version
    dependencies: str

    def __str__(self) -> str:
        return f"Python {'.'.join(map(str, self.version))}, {self.dependencies} dependencies"


def main() -> int:
    found = dict(sorted(pythons()))
    if not found:
        sys.exit("no Python was found that the client allows")
    chosen = dict.fromkeys([min(found), max(found)])
    places = [
        Place(found[version], version, dependencies)
        for version, dependencies in itertools.product(chosen, DEPENDENCIES)
    ]
    with tempfile.TemporaryDirectory(prefix="idpass-matrix-") as folder:
        wheel = build(Path(folder))
        with ThreadPoolExecutor(AT_ONCE) as pool:
            runs = pool.map(
                lambda numbered: run(numbered[1], wheel, Path(folder, str(numbered[0]))),
                enumerate(places),
            )
            failed = 0
            for place, (ok, output) in zip(places, runs, strict=True):
                print(f"{'passed' if ok else 'FAILED'}  {place}: {output.splitlines()[-1]}")
                if not ok:
                    failed += 1
                    print(output)
    return 1 if failed else 0


def pythons() -> Iterator[tuple[Version, str]]:
    """Every CPython on this machine that the client allows."""
    match = re.search(r'requires-python = ">=(\d+)\.(\d+)"', PYPROJECT)
    assert match
    least = (int(match[1]), int(match[2]))
    candidates = {sys.executable}
    for minor in range(least[1], least[1] + 20):
        candidates.update(filter(None, [shutil.which(f"python3.{minor}")]))
    if shutil.which("pyenv"):
        root = subprocess.run(["pyenv", "root"], capture_output=True, text=True, check=False)
        versions = Path(root.stdout.strip() or ".", "versions")
        candidates.update(map(str, versions.glob("*/bin/python")))
    for python in sorted(candidates):
        asked = subprocess.run([python, "-c", ASK], capture_output=True, text=True, check=False)
        if asked.returncode == 0:
            name, *version, level = json.loads(asked.stdout)
            if name == "cpython" and level == "final" and tuple(version[:2]) >= least:
                yield tuple(version), python


def build(folder: Path) -> Path:
    options = ["--quiet", "--wheel", "--no-isolation", "--outdir", str(folder)]
    subprocess.run([sys.executable, "-m", "build", *options, str(CLIENT)], check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def run(place: Place, wheel: Path, folder: Path) -> tuple[bool, str]:
    """Installs and tests in one place. Returns whether all went well, and what was said."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL"))}
    environment["IDPASS_SERVER_PYTHON"] = sys.executable
    subprocess.run([place.python, "-m", "venv", str(folder)], check=True, env=environment)
    python = str(folder / "bin" / "python")
    settings = folder / "pytest.ini"
    settings.write_text(
        f"[pytest]\npythonpath = {ROOT / 'tests'}\nfaulthandler_timeout = 120\n"
        "markers =\n    long\n    scaled\n"
    )
    install = ["pip", "install", "--quiet", "--disable-pip-version-check"]
    test = ["pytest", "-q", "--import-mode=importlib", "-p", "no:cacheprovider"]
    here = [
        "-c",
        str(settings),
        "--rootdir",
        str(folder),
        "--confcutdir",
        str(ROOT / "tests/client"),
    ]
    but = [f"--ignore={ROOT / 'tests/client' / name}" for name in NOT_HERE]
    commands = (
        [*install, f"{wheel}[cli]", *DEPENDENCIES[place.dependencies], *TESTS],
        ["pip", "check"],
        [*test, *here, *but, str(ROOT / "tests/client")],
    )
    said = ""
    for command in commands:
        ran = subprocess.run(
            [python, "-m", *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            cwd=folder,
            env=environment,
        )
        said += ran.stdout
        if ran.returncode:
            return False, said or "failed without a word"
    installed = subprocess.run(
        [python, "-c", INSTALLED], capture_output=True, text=True, check=True, cwd=folder
    )
    where, *versions = installed.stdout.split()
    if not Path(where).is_relative_to(folder):
        return False, f"{said}What was tested is not the wheel but {where}"
    return True, "{}; grpcio {}, protobuf {}".format(said.strip().splitlines()[-1], *versions)


if __name__ == "__main__":
    sys.exit(main())
