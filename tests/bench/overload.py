"""What becomes of the calls when more are offered than the server can answer."""

from pathlib import Path
from typing import Final

from bench.offering import offer
from bench.open_loop import Phase, Result
from bench.report import Goal, at_least, at_most
from bench.servers import Process

PASSES: Final = 150_000
IN_FLIGHT: Final = 64
DEADLINE_S: Final = 1.0
PHASE_S: Final = 4.0
TIMES: Final = (1.0, 2.0, 4.0, 0.3)
"""Rates that are offered one right after the other, in multiples of the capacity."""


async def goals(process: Process, ids: list[str], folder: Path, title: str = "") -> list[Goal]:
    """Offers a server its capacity, twice and four times that, and then a third again.

    The capacity is what it answers to callers who wait for their answers.

    Args:
        process: the server.
        ids: of PASSES passes in flight.
        folder: for scratch files.
        title: what is out of the ordinary.
    """
    closed = Phase(0, PHASE_S / 2, 30.0, IN_FLIGHT)
    warm_up = [closed, closed]
    capacity_per_s = _good_per_s((await offer(process.address, ids[:25_000], warm_up, folder))[1])
    phases = [Phase(times * capacity_per_s, PHASE_S, DEADLINE_S) for times in TIMES]
    cpu_before_s = process.cpu_s()
    results = await offer(process.address, ids[25_000:], phases, folder)
    cpu_s = process.cpu_s() - cpu_before_s
    what = f"open loop{title}, {capacity_per_s:,.0f} calls/s answered to who waits; at "
    found = []
    for times, result in zip(TIMES, results, strict=True):
        good = _good_per_s(result) / capacity_per_s
        if times > 1:
            found.append(at_least(f"{what}{times:g} x: answered OK", good, 0.8, "x"))
        else:
            found.append(Goal(f"{what}{times:g} x: answered OK", "", f"{good:.2f} x", None))
        found.append(at_most("  p99 of these", result.p99_s, DEADLINE_S / 2, "s"))
        found.append(Goal("  gRPC statuses", "", _shown(result), None))
    found += [
        at_most("  time until all is as before", results[-1].normal_after_s, 1.0, "s"),
        at_most("  peak RSS", process.peak_rss_mb(), 250, "MB"),
        Goal("  server CPU over all phases", "", f"{cpu_s / PHASE_S / len(TIMES):.2f} cores", None),
    ]
    return found


def _good_per_s(result: Result) -> float:
    return result.by_status.get("0", 0) / result.seconds


def _shown(result: Result) -> str:
    ordered = sorted(result.by_status.items(), key=lambda each: -each[1])
    return ", ".join(f"{status}: {count:,}" for status, count in ordered)
