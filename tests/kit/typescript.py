"""The TypeScript client as `make typescript` builds it, and its compiled tests."""

import os
import shutil
import subprocess
from typing import Final

from kit.paths import ROOT

CLIENT: Final = ROOT / "clients/typescript"
NODE: Final = shutil.which("node") or "node"
OLDEST_NODE: Final = 20


def missing() -> str:
    """Why it cannot be tested, or ""."""
    if shutil.which(NODE) is None:
        return "Node.js is not installed"
    told = subprocess.run([NODE, "--version"], check=True, capture_output=True, text=True).stdout
    if int(told.removeprefix("v").partition(".")[0]) < OLDEST_NODE:
        return f"Node.js is older than {OLDEST_NODE}: {told.strip()}"
    built = CLIENT / "build/ready"
    sources = [*CLIENT.glob("src/**/*.*ts"), *CLIENT.glob("test/*.mts"), CLIENT / "package.json"]
    if not built.exists() or built.stat().st_mtime < max(p.stat().st_mtime for p in sources):
        return "the TypeScript client is not built as it stands: make typescript"
    return ""


def run_tests(*names: str, **env: str) -> None:
    """Runs files of its tests, all in one process."""
    imports = ";".join(f"import './{name}.test.mjs'" for name in names)
    done = subprocess.run(
        [NODE, "--input-type=module", "--eval", imports],
        cwd=CLIENT / "build",
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\n# pass 0\n" not in done.stdout, done.stdout
