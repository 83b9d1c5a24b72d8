"""Measures the service beside an empty handler and two ordinary implementations of the same.

Everything is measured from outside: real servers as processes of their own on copies of one
database, called by this process. Compare figures of one run only, and best the ratios: each
is the median over rounds that were taken in turn. Nothing here passes or fails.
"""

import argparse
import gc
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import uvloop

from bench import machine, report
from bench.sections import EMPTY, Bench
from bench.stand import Settings

RESULTS = Path(__file__).with_name("results")
SECTIONS = (
    *("table", "tail", "flat", "http", "startup", "slow-disk", "watchers", "webhooks", "flood"),
    *("metrics", "audit", "overload"),
)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few short rounds, for trying it")
    parser.add_argument(
        "--only", action="append", choices=SECTIONS, help="a part; may be given more than once"
    )
    parser.add_argument("--seconds", type=float, help="length of a round (1.2; quick: 0.6)")
    parser.add_argument("--rounds", type=int, help="rounds of each kind (5; quick: 2)")
    parser.add_argument("--passes", type=int, default=1_000_000, help="in the large database")
    parser.add_argument(
        "--ten-million",
        action="store_true",
        help="measure flat with 10,000,000 passes too, which stay in build/ for five days",
    )
    parser.add_argument(
        "--dir", default="/var/tmp", help="where databases go: on the disk to measure, 2 GB free"
    )
    return parser.parse_args()


async def main(arguments: argparse.Namespace) -> None:
    start_s = time.perf_counter()
    settings = Settings(
        rounds=arguments.rounds or (2 if arguments.quick else 5),
        window_s=arguments.seconds or (0.6 if arguments.quick else 1.2),
        passes=arguments.passes,
        tail_s=5.0 if arguments.quick else 60.0,
        most_passes=10_000_000 if arguments.ten_million else 0,
    )
    chosen = arguments.only or SECTIONS
    with tempfile.TemporaryDirectory(prefix="idpass-bench-", dir=arguments.dir) as name:
        folder = Path(name)
        told = [machine.describe(folder), machine.load()]
        rounds = f"{settings.rounds} rounds of {settings.window_s} s"
        told.append(f"{rounds}, taken in turn: median (least to most)")
        print(*told, sep="\n", flush=True)
        bench = Bench(folder, settings)
        # The million ids are there to stay; looking at them again and again takes time.
        gc.disable()
        try:
            if "table" in chosen:
                results, peak_rss_mb = await bench.table()
                told.append("\n" + report.table(results, EMPTY, peak_rss_mb))
                told.append("\n" + report.threads_table(results))
                print(*told[-2:], sep="\n", flush=True)
                RESULTS.mkdir(exist_ok=True)
                report.plot(results, RESULTS / "bench.png")
            others = {
                "tail": bench.tail,
                "flat": bench.flat,
                "http": bench.http,
                "startup": bench.startup,
                "slow-disk": bench.slow_disk,
                "watchers": bench.watchers,
                "webhooks": bench.webhooks,
                "flood": bench.flood,
                "metrics": bench.metrics,
                "audit": bench.audit,
                "overload": bench.overload,
            }
            for section, measure in others.items():
                if section in chosen:
                    await measure()
        finally:
            bench.stop()
    closing = ["\n" + report.goals_table(bench.goals)]
    if bench.rounds:
        closing.append("\n" + machine.quietness(bench.rounds))
    print(*closing, sep="\n")
    told += closing
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "bench.md").write_text("\n".join(told) + "\n")
    print(f"\n{time.perf_counter() - start_s:.0f} s; in {RESULTS.relative_to(Path.cwd())}/")


if __name__ == "__main__":
    uvloop.run(main(_arguments()))
