"""Starts the guided fuzzer on a target, and reads what came of it."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Final, NamedTuple

from kit.paths import ROOT

SLOWEST_S: Final = 20
"""Time after which one input counts as a fault, seconds."""


class Run(NamedTuple):
    """What came of a run.

    Attributes:
        inputs: number of those tried.
        branches: number of those reached.
        took_s: wall time, seconds.
        why: what was wrong with the input that ended the run; "" if all were as they should be.
        data: that input.
    """

    inputs: int
    branches: int
    took_s: float
    why: str = ""
    data: bytes = b""


def fuzz(
    target: str,
    folder: Path,
    *,
    seed: int,
    inputs: int = -1,
    seconds: int = 0,
    product: Path | None = None,
) -> Run:
    """Tries inputs until one is wrong.

    Args:
        target: name of a module beside this one.
        folder: for what it needs and finds; inputs that reached something new are gone on from
            where it was used before.
        seed: decides everything, where the folder is new.
        inputs: number of those to try; -1 for no limit.
        seconds: time limit; 0 for none.
        product: folder with the packages under test; None for the installed ones.
    """
    path = [*([] if product is None else [str(product)]), str(ROOT / "tests")]
    command = [
        *(sys.executable, "-m", "kit.guided.child", target, str(folder)),
        *(f"-seed={seed}", f"-runs={inputs}", f"-timeout={SLOWEST_S}"),
        *([f"-max_total_time={seconds}"] if seconds else []),
    ]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path), "PYTHONHASHSEED": "0"}
    begun_s = time.monotonic()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    took_s = time.monotonic() - begun_s
    said = done.stderr
    tried = re.search(r"^stat::number_of_executed_units: *(\d+)$", said, re.MULTILINE)
    reached = re.findall(r"\bcov: (\d+)", said)
    assert tried, said[-3_000:]
    run = Run(int(tried[1]), int(reached[-1]) if reached else 0, took_s)
    if done.returncode == 0:
        return run
    why = folder / "why"
    found = [path for kind in ("crash", "timeout", "oom") for path in folder.glob(f"{kind}-*")]
    return run._replace(
        why=why.read_text() if why.exists() else said[-3_000:],
        data=found[0].read_bytes() if found else b"",
    )
