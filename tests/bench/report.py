"""What is told: one table, one list of goals, one plot."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from tabulate import tabulate

from bench.load import Round

Results = Mapping[Any, Sequence[Round]]
"""Rounds by the name of what was called and the number of calls in flight."""

THREAD_SHOWN_S: Final = 1e-6
"""Processor time per pass from which a thread is told of, seconds."""


class Goal(NamedTuple):
    what: str
    target: str
    measured: str
    reached: bool | None  # None: nothing to reach
    short: str = ""


Measured = float | Sequence[float]
"""A figure, or one of each round: then the median counts, and the least and the most are told."""


def at_least(what: str, measured: Measured, bound: float, unit: str) -> Goal:
    value = _middle(measured)
    short = "" if value >= bound else f", {100 * (1 - value / bound):.0f} % short"
    return Goal(what, f"≥ {_show(bound, unit)}", show(measured, unit), value >= bound, short)


def at_most(what: str, measured: Measured, bound: float, unit: str) -> Goal:
    value = _middle(measured)
    short = "" if value <= bound else f", {100 * (value / bound - 1):.0f} % over"
    return Goal(what, f"≤ {_show(bound, unit)}", show(measured, unit), value <= bound, short)


def told(what: str, measured: Measured, unit: str) -> Goal:
    """With nothing to reach."""
    return Goal(what, "", show(measured, unit), None)


def show(measured: Measured, unit: str) -> str:
    shown = _show(_middle(measured), unit)
    if isinstance(measured, Sequence):
        shown += f" ({_number(min(measured))} to {_number(max(measured))})"
    return shown


def spread(values: Sequence[float], form: str) -> str:
    """The median, the least and the most."""
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def _middle(measured: Measured) -> float:
    return statistics.median(measured) if isinstance(measured, Sequence) else measured


def _show(value: float, unit: str) -> str:
    return f"{_number(value)} {unit}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


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
    """One line for each way to call with so many in flight: medians, and of what is compared the
    least and the most."""
    rows: list[tuple[object, ...]] = []
    before = None
    for (name, in_flight), rounds in results.items():
        of_empty = ""
        if name != empty:
            # More rounds in one line than in another would be of no use here.
            pairs = zip(rounds, results[empty, in_flight], strict=True)
            times = statistics.median(one.passes_per_s / other.passes_per_s for one, other in pairs)
            of_empty = f"{times:.2f}"
        rows.append(
            (
                in_flight if in_flight != before else "",
                name,
                spread([one.passes_per_s for one in rounds], ",.0f"),
                of_empty,
                f"{_median(rounds, 'p50_s') * 1e3:.2f}",
                f"{_median(rounds, 'p99_s') * 1e3:.2f}",
                spread([one.cpu_per_pass_s * 1e6 for one in rounds], ",.0f"),
                f"{_median(rounds, 'callers_per_pass_s') * 1e6:,.0f}",
                f"{peak_rss_mb[name]:.0f}",
            )
        )
        before = in_flight
    heads = (
        *("in flight", "server", "passes/s", "x empty", "p50 ms", "p99 ms"),
        *("server CPU µs/pass", "callers' CPU", "peak RSS MB"),
    )
    return tabulate(
        rows, heads, "github", disable_numparse=True, colalign=("right", "left", *["right"] * 7)
    )


def threads_table(results: Results) -> str:
    """What each of a server's threads takes of the processor."""
    rows = []
    for (name, in_flight), rounds in results.items():
        threads = {
            thread: statistics.median(one.threads_per_pass_s.get(thread, 0.0) for one in rounds)
            for thread in {thread for one in rounds for thread in one.threads_per_pass_s}
        }
        dearest = sorted(threads.items(), key=lambda each: -each[1])
        shown = [f"{thread} {s * 1e6:,.0f}" for thread, s in dearest if s >= THREAD_SHOWN_S]
        if shown:
            rows.append((in_flight, name, ", ".join(shown)))
    return tabulate(rows, ("in flight", "server", "CPU of its threads, µs/pass"), "github")


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
