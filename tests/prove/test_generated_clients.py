"""Promise: whoever generates a client from the OpenAPI document gets one that compiles and works.

By: openapi-python-client and openapi-typescript, pinned, on the committed document; type checkers
over a program that uses each, and the program against the real server.
Blind to: other generators, and the operations that the two programs leave out (the event stream,
webhooks), which are compiled and not called.
"""

import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from idpass_server.gateway import openapi
from kit.http import Http, served

HERE = Path(__file__).with_name("generated")
DOCUMENT = Path(openapi.__file__).with_name("openapi.json")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Http]:
    with served(tmp_path / "idpass.db") as running:
        yield running


def done(*command: object, cwd: Path, path: Path | None = None) -> str:
    """Runs a command that has to succeed. Returns what it wrote.

    Args:
        cwd: where.
        path: folder of further programs.
    """
    paths = [str(path)] * (path is not None) + [os.environ["PATH"]]
    run = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=os.environ | {"PATH": os.pathsep.join(paths)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=600,
    )
    assert run.returncode == 0, f"{command}\n{run.stdout[-5_000:]}"
    return run.stdout


def installed(*command: object, cwd: Path) -> None:
    """Installs what a test needs; skips it where that cannot be had."""
    run = subprocess.run(
        list(map(str, command)), cwd=cwd, capture_output=True, text=True, check=False, timeout=600
    )
    if run.returncode:
        pytest.skip(f"{command[0]} cannot install what is pinned: {run.stderr[-500:]}")


def test_a_client_by_openapi_python_client_is_typed_and_works(server: Http, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv/bin/python"
    installed(
        *(python, "-m", "pip", "install", "--quiet", "--require-hashes"),
        *("-r", HERE / "requirements.txt"),
        cwd=tmp_path,
    )
    program = shutil.copy(HERE / "use_openapi_python.txt", tmp_path / "use_openapi_python.py")
    generated = done(
        *(python.with_name("openapi-python-client"), "generate", "--path", DOCUMENT),
        *("--output-path", "idpass_http", "--meta", "none", "--fail-on-warning"),
        cwd=tmp_path,
        path=python.parent,  # it formats with ruff
    )
    assert "Unable to parse" not in generated
    done(python, "-m", "compileall", "-q", "idpass_http", cwd=tmp_path)
    done(
        *(sys.executable, "-m", "mypy", "--python-executable", python),
        *("--config-file", HERE / "mypy.ini", "--cache-dir", "cache", program),
        cwd=tmp_path,
    )
    assert done(python, program, server.url, cwd=tmp_path) == "done\n"


@pytest.mark.skipif(shutil.which("npm") is None, reason="npm brings the generator")
def test_a_client_by_openapi_typescript_is_typed_and_works(server: Http, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(HERE, tmp_path / "typescript"))
    installed("npm", "ci", "--no-audit", "--no-fund", "--silent", cwd=folder)
    done("npx", "openapi-typescript", DOCUMENT, "-o", "schema.d.ts", cwd=folder)
    done("npx", "tsc", cwd=folder)
    told = done("node", "out/use_openapi_typescript.js", server.url, cwd=folder)
    assert told == "done\n"
