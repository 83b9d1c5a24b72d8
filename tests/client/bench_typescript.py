"""What the TypeScript client costs over bare grpc-js: `test/bench.mts`, against a real service.

python tests/client/bench_typescript.py
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from bench.seed import seed  # noqa: E402 found by the line above
from kit.client import ServerProcess  # noqa: E402 likewise
from kit.typescript import CLIENT, NODE, missing  # noqa: E402 likewise

PASSES = 2 * (9 + 1) * 500
"""Cancelled in all: by two ways, in nine rounds and one before them, 500 each."""


def main() -> int:
    if why := missing():
        print(f"typescript: not measured, since {why}")
        return 0
    with tempfile.TemporaryDirectory(prefix="idpass-bench-") as folder:
        db, ids = Path(folder, "idpass.db"), Path(folder, "ids.json")
        ids.write_text(json.dumps(list(seed(db, in_flight=PASSES).in_flight)))
        server = ServerProcess(db)
        try:
            return subprocess.run(
                [NODE, "bench.mjs"],
                cwd=CLIENT / "build",
                env=os.environ | {"IDPASS_ADDRESS": server.address, "IDPASS_IDS": str(ids)},
                check=False,
            ).returncode
        finally:
            server.kill()


if __name__ == "__main__":
    sys.exit(main())
