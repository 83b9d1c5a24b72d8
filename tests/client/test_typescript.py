"""The TypeScript client's own tests, and the scenarios with it, against the real service.

`make typescript` installs what they need and builds the client; `make test` begins with it. Without
that, or without Node.js, they are skipped.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from kit.certificates import Authority
from kit.paths import ROOT
from kit.serving import COMMAND

CLIENT = ROOT / "clients/typescript"
BUILT = CLIENT / "build/ready"
NODE = shutil.which("node")
SCENARIOS = Path(__file__).with_name("scenarios.json")
OLDEST_NODE = 20


def missing() -> str:
    """Why the tests cannot run, or ""."""
    if NODE is None:
        return "Node.js is not installed"
    told = subprocess.run([NODE, "--version"], check=True, capture_output=True, text=True).stdout
    if int(told.removeprefix("v").partition(".")[0]) < OLDEST_NODE:
        return f"Node.js is older than {OLDEST_NODE}: {told.strip()}"
    sources = [*CLIENT.glob("src/**/*.*ts"), *CLIENT.glob("test/*.mts"), CLIENT / "package.json"]
    if not BUILT.exists() or BUILT.stat().st_mtime < max(p.stat().st_mtime for p in sources):
        return "the TypeScript client is not built as it stands: make typescript"
    return ""


WHY = missing()
pytestmark = pytest.mark.skipif(bool(WHY), reason=WHY)


def run(*files: str, **env: str) -> None:
    """Runs test files, compiled, in one process."""
    imports = ";".join(f"import './{name}.test.mjs'" for name in files)
    done = subprocess.run(
        [NODE or "node", "--input-type=module", "--eval", imports],
        cwd=CLIENT / "build",
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\n# pass 0\n" not in done.stdout, done.stdout


def test_the_scenarios_go_as_the_table_says(address: str) -> None:
    run("scenarios", IDPASS_ADDRESS=address, IDPASS_SCENARIOS=str(SCENARIOS))


def test_its_own_tests_pass(address: str, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ours")
    server, caller = authority.issue("localhost"), authority.issue("spiffe://here/caller")
    run(
        *sorted(
            path.name.removesuffix(".test.mts")
            for path in CLIENT.glob("test/*.test.mts")
            if path.name.partition(".")[0] not in {"scenarios", "restart"}
        ),
        IDPASS_ADDRESS=address,
        IDPASS_SERVER_PYTHON=COMMAND[0],
        IDPASS_CA=str(authority.path),
        IDPASS_OTHER_CA=str(Authority(tmp_path / "others").path),
        IDPASS_SERVER_PAIR=f"{server.cert}:{server.key}",
        IDPASS_CALLER_PAIR=f"{caller.cert}:{caller.key}",
    )
