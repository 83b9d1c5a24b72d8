"""Runs the callers of `open_loop` in a process of their own."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.open_loop import Outcome, Phase, Result
from bench.servers import module


async def offer(
    address: str,
    ids: Sequence[str],
    phases: Sequence[Phase],
    folder: Path,
    outcomes: Path | None = None,
) -> list[Result]:
    """Offers a server calls at the rates of some phases, one right after the other.

    Args:
        address: HOST:PORT of the server.
        ids: of passes in flight, at least one for each call.
        folder: for a file with them.
        outcomes: gets what became of each call.

    Raises:
        RuntimeError: the callers have failed; their standard error says why.
    """
    file = folder / "open_loop.ids"
    file.write_text("\n".join(ids))
    pipe = asyncio.subprocess.PIPE
    callers = await asyncio.create_subprocess_exec(
        *module("open_loop", address, str(file), *([str(outcomes)] if outcomes else [])),
        stdin=pipe,
        stdout=pipe,
        cwd=Path(__file__).parents[1],
    )
    plan = json.dumps([phase._asdict() for phase in phases]) + "\n"
    out, _ = await callers.communicate(plan.encode())
    if callers.returncode:
        raise RuntimeError(f"the callers ended with {callers.returncode}")
    results: list[dict[str, Any]] = json.loads(out)
    return [Result(**result) for result in results]


def read(outcomes: Path) -> list[Outcome]:
    """What became of each call, as `offer` has it written."""
    return [Outcome(*json.loads(line)) for line in outcomes.read_text().splitlines()]
