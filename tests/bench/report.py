"""What is told: one table, one list of goals, one plot."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tabulate import tabulate

from bench.load import Round

Results = Mapping[Any, Sequence[Round]]
"""Rounds by the name of what was called and the number of calls in flight."""


class Goal(NamedTuple):
    what: str
    target: str
    measured: str
    reached: bool | None  # None: nothing to reach
    short: str = ""


def at_least(what: str, measured: float, bound: float, unit: str) -> Goal:
    short = "" if measured >= bound else f", {100 * (1 - measured / bound):.0f} % short"
    return Goal(what, f"≥ {_show(bound, unit)}", _show(measured, unit), measured >= bound, short)


def at_most(what: str, measured: float, bound: float, unit: str) -> Goal:
    short = "" if measured <= bound else f", {100 * (measured / bound - 1):.0f} % over"
    return Goal(what, f"≤ {_show(bound, unit)}", _show(measured, unit), measured <= bound, short)


def _show(value: float, unit: str) -> str:
    number = f"{value:,.0f}" if value >= 100 else f"{value:.2f}"
    return f"{number} {unit}"


def goals_table(goals: Sequence[Goal]) -> str:
    rows = [
        (
            goal.what,
            goal.target,
            goal.measured,
            "" if goal.reached is None else ("yes" if goal.reached else "NO" + goal.short),
        )
        for goal in goals
    ]
    return tabulate(rows, ("", "target", "measured", "reached"), "github", disable_numparse=True)


def table(results: Results, empty: str, peak_rss_mb: Mapping[str, float]) -> str:
    """One line for each way to call with so many in flight; medians over the rounds."""
    rows: list[tuple[object, ...]] = []
    before = None
    for (name, in_flight), rounds in results.items():
        passes_per_s = _median(rounds, "passes_per_s")
        of_empty = "1.00"
        if name != empty:
            # More rounds in one line than in another would be of no use here.
            pairs = zip(rounds, results[empty, in_flight], strict=True)
            times = statistics.median(one.passes_per_s / other.passes_per_s for one, other in pairs)
            of_empty = f"{times:.2f}"
        rows.append(
            (
                in_flight if in_flight != before else "",
                name,
                f"{passes_per_s:,.0f}",
                of_empty,
                f"{_median(rounds, 'p50_s') * 1e3:.2f}",
                f"{_median(rounds, 'p99_s') * 1e3:.2f}",
                f"{_median(rounds, 'cpu_per_pass_s') * 1e6:,.0f}",
                f"{peak_rss_mb[name]:.0f}",
            )
        )
        before = in_flight
    heads = (
        "in flight",
        "server",
        "passes/s",
        "x empty",
        "p50 ms",
        "p99 ms",
        "CPU µs/pass",
        "peak RSS MB",
    )
    return tabulate(
        rows, heads, "github", disable_numparse=True, colalign=("right", "left", *["right"] * 6)
    )


def plot(results: Results, path: Path) -> None:
    """Throughput and p99 latency over the calls in flight, as a PNG."""
    # Here, since only a whole run draws.
    import matplotlib as mpl  # type: ignore[import-not-found,unused-ignore]  # noqa: PLC0415

    mpl.use("agg")
    from matplotlib import pyplot as plt  # type: ignore[import-not-found,unused-ignore]  # noqa: PLC0415
    from matplotlib import ticker  # type: ignore[import-not-found,unused-ignore]  # noqa: PLC0415

    figure, (throughput, latency) = plt.subplots(1, 2, figsize=(12, 5))
    for name in dict.fromkeys(name for name, _ in results):
        levels = [in_flight for other, in_flight in results if other == name]
        rounds = [results[name, in_flight] for in_flight in levels]
        style = {"marker": "o", "label": name}
        throughput.plot(levels, [_median(r, "passes_per_s") for r in rounds], **style)
        latency.plot(levels, [_median(r, "p99_s") * 1e3 for r in rounds], **style)
    levels = sorted({in_flight for _, in_flight in results})
    for axes, title in ((throughput, "passes per second"), (latency, "p99 latency of a call, ms")):
        axes.set(title=title, xlabel="calls in flight", xscale="log", yscale="log")
        axes.set_xticks(levels, map(str, levels), minor=False)
        axes.minorticks_off()
        axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:,g}")
        axes.grid(alpha=0.3)
    figure.legend(*throughput.get_legend_handles_labels(), loc="lower center", ncols=5)
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    figure.savefig(path, dpi=110)


def _median(rounds: Sequence[Round], field: str) -> float:
    return statistics.median(float(getattr(one, field)) for one in rounds)
