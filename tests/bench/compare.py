"""Compares the service of two checkouts: CancelIdPass with calls in flight, and one at a time.

Both run on this interpreter and its packages, each on a database that its own code made, and
their rounds are taken in turn. What a call takes of the processor is the figure that repeats.
"""

import argparse
import gc
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

import uvloop
from tabulate import tabulate

from bench import machine
from bench.load import Grpc, Round
from bench.report import THREAD_SHOWN_S, spread
from bench.seed import Seeded
from bench.targets import Key, Served, Target, interleaved

HERE: Final = Path(__file__).parents[2]
NAMES: Final = ("base", "other")
SEED: Final = """
import sys
from pathlib import Path
from bench.seed import seed
print(*seed(Path(sys.argv[1]), in_flight=int(sys.argv[2])).in_flight)
"""
FIGURES: Final[dict[str, tuple[Callable[[Round], float], str]]] = {
    "calls/s": (lambda one: one.passes_per_s, ",.0f"),
    "p50, ms": (lambda one: one.p50_s * 1e3, ".2f"),
    "p99, ms": (lambda one: one.p99_s * 1e3, ".2f"),
    "callers' CPU, µs/call": (lambda one: one.callers_per_pass_s * 1e6, ",.0f"),
    "server CPU, µs/call": (lambda one: one.cpu_per_pass_s * 1e6, ",.0f"),
}


class Checkout(NamedTuple):
    """The environment in which its code runs, and a database that this code made."""

    environment: dict[str, str]
    seeded: Seeded


def checkout(root: Path, db: Path, passes: int) -> Checkout:
    """Args: root: of a checkout, which needs no environment of its own."""
    if not (root / "server" / "idpass_server").is_dir():
        raise SystemExit(f"{root} is no checkout: it has no server/idpass_server")
    code = [root / "server", root / "clients" / "python" / "src"]
    names = HERE / "tests" / "bench" / "named_threads"
    seeding = os.pathsep.join(map(str, [*code, root / "tests"]))
    ids = subprocess.run(
        [sys.executable, "-c", SEED, str(db), str(passes)],
        env=os.environ | {"PYTHONPATH": seeding},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    serving = {"PYTHONPATH": os.pathsep.join(map(str, [*code, names]))}
    *_, last_line = ids.stdout.splitlines()  # others may be of the log
    return Checkout(serving, Seeded(db, last_line.split()))


def serve(db: Path) -> list[str]:
    url = f"sqlite:///{db}"
    program = [sys.executable, "-m", "idpass_server"]
    return [*program, "serve", "--listen", "127.0.0.1:0", "--db", url, "--rate", "0"]


def table(base: Sequence[Round], other: Sequence[Round]) -> str:
    """The median, the least and the most of each figure, and of the ratios of the pairs."""
    figures = dict(FIGURES)
    names = {name for one in (*base, *other) for name in one.threads_per_pass_s}
    for thread in sorted(names):

        def of_thread(one: Round, thread: str = thread) -> float:
            return one.threads_per_pass_s.get(thread, 0.0) * 1e6

        figures[f"  thread {thread}"] = (of_thread, ",.0f")
    rows = []
    for what, (figure, form) in figures.items():
        values = [[figure(one) for one in rounds] for rounds in (base, other)]
        if max(map(max, values)) < THREAD_SHOWN_S * 1e6:
            continue
        ratios = [b / a for a, b in zip(*values, strict=True) if a]
        shown = spread(ratios, ".3f") if len(ratios) == len(base) else ""
        rows.append((what, *(spread(each, form) for each in values), shown))
    return tabulate(
        rows, ("", *NAMES, "other / base"), "github", disable_numparse=True, colglobalalign="right"
    )


async def main(arguments: argparse.Namespace) -> None:
    roots = [arguments.base.resolve(), arguments.other.resolve()]
    with tempfile.TemporaryDirectory(prefix="idpass-compare-", dir=arguments.dir) as name:
        folder = Path(name)
        print(machine.load(), flush=True)
        targets = []
        for which, root in zip(NAMES, roots, strict=True):
            made = checkout(root, folder / f"{which}.seed", arguments.passes)
            served = Served(which, folder, made.seeded, serve, made.environment)
            targets.append(Target(which, served, Grpc()))
            print(f"{which}: {root}")
        gc.disable()
        try:
            for in_flight in arguments.in_flight:
                random.shuffle(targets)  # so that it is not always the same that comes first
                results = await interleaved(targets, in_flight, arguments.rounds, arguments.seconds)
                both = [results[Key(which, in_flight)] for which in NAMES]
                print(
                    f"\n{in_flight} in flight, {arguments.rounds} rounds of "
                    f"{arguments.seconds} s in turn: median (least to most)\n{table(*both)}\n"
                    f"{machine.quietness([*both[0], *both[1]])}",
                    flush=True,
                )
        finally:
            for target in targets:
                await target.close()
                target.served.stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("base", type=Path, help="checkout to compare with")
    parser.add_argument("other", type=Path, nargs="?", default=HERE, help="default: this checkout")
    parser.add_argument("--in-flight", type=int, nargs="+", default=[32, 1])
    parser.add_argument("--rounds", type=int, default=6, help="of each (6)")
    parser.add_argument("--seconds", type=float, default=1.5, help="length of a round (1.5)")
    parser.add_argument("--passes", type=int, default=100_000, help="in the database")
    parser.add_argument(
        "--dir", default="/var/tmp", help="where databases go: on the disk to measure"
    )
    uvloop.run(main(parser.parse_args()))
