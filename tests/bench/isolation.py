"""Measures whether time tells a pass of another account from one that never was.

A caller of one account calls, in random order, for passes of another account and for ids that
nobody has. Beside the quantiles of how long each answer took stands the Kolmogorov-Smirnov
statistic D, the largest distance between the two distributions, and how likely one as large is
where there is no difference. A pass of the caller's own is there to see that a difference shows.
"""

import argparse
import math
import random
import statistics
import sys
import tempfile
import time
from bisect import bisect_right
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parents[1]))

import grpc
from tabulate import tabulate

from bench.seed import seed
from bench.servers import Process, idpass_server
from kit.guarded import caller
from kit.support import Calls, make_accounts

FOREIGN: Final = "foreign"
ABSENT: Final = "absent"
OWN: Final = "own"
QUANTILES: Final = (0.1, 0.5, 0.9, 0.99)

WAYS: Final[dict[str, Callable[[Calls, str], Any]]] = {
    "GetIdPass": lambda calls, pass_id: calls.get(pass_id),
    "CancelIdPass": lambda calls, pass_id: calls.cancel(pass_id),
    "AdvanceIdPass": lambda calls, pass_id: calls.advance(pass_id, "opened"),
    "RegisterIdPass supersedes": lambda calls, pass_id: calls.register(supersedes=pass_id),
    "WatchIdPasses": lambda calls, pass_id: next(calls.watch(id=pass_id)),
}


def distance(one: Sequence[float], other: Sequence[float]) -> tuple[float, float]:
    """The two-sample Kolmogorov-Smirnov statistic, and its asymptotic probability."""
    a, b = sorted(one), sorted(other)
    largest = max(
        abs(bisect_right(a, value) / len(a) - bisect_right(b, value) / len(b)) for value in a + b
    )
    scaled = largest * math.sqrt(len(a) * len(b) / (len(a) + len(b)))
    terms = ((-1) ** (k - 1) * math.exp(-2 * k * k * scaled * scaled) for k in range(1, 101))
    return largest, min(1.0, max(0.0, 2 * sum(terms))) if scaled > 0.2 else 1.0


def absent_like(pass_id: str, rng: random.Random) -> str:
    """An id of the same time, so that it lies among those that there are."""
    return f"{pass_id[:24]}{rng.getrandbits(48):012x}"


def measure(
    calls: Calls, way: Callable[[Calls, str], Any], ids: list[tuple[str, str]]
) -> dict[str, list[float]]:
    """How long each call took, in µs, by what kind of id it was for."""
    taken: dict[str, list[float]] = {}
    for kind, pass_id in ids:
        start_s = time.perf_counter()
        try:
            way(calls, pass_id)
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.NOT_FOUND:
                raise
        taken.setdefault(kind, []).append((time.perf_counter() - start_s) * 1e6)
    return taken


def main(arguments: argparse.Namespace) -> None:
    rng = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory(prefix="idpass-isolation-", dir=arguments.dir) as name:
        db, file = Path(name, "idpass.db"), Path(name, "callers.toml")
        foreign = seed(db, in_flight=arguments.passes).in_flight
        make_accounts(db, "beta")
        file.write_text(caller("owner", "demo") + caller("prober", "beta"))
        server = Process([*idpass_server(db), "--callers", str(file)], Path(name, "log"))
        channel = grpc.insecure_channel(server.address)
        prober = Calls(channel, token="prober-token")
        try:
            own = [prober.register().id_pass.id for _ in range(200)]

            def ids(kinds: Sequence[str], calls: int) -> list[tuple[str, str]]:
                # Made beforehand: what this process did just before would show in the times.
                order = list(kinds) * calls
                rng.shuffle(order)
                chosen = [rng.choice(own if kind == OWN else foreign) for kind in order]
                return [
                    (kind, absent_like(pass_id, rng) if kind == ABSENT else pass_id)
                    for kind, pass_id in zip(order, chosen, strict=True)
                ]

            rows = []
            for method, way in WAYS.items():
                kinds = (FOREIGN, ABSENT, OWN) if method == "GetIdPass" else (FOREIGN, ABSENT)
                measure(prober, way, ids(kinds, 100))
                taken = measure(prober, way, ids(kinds, arguments.calls))
                for kind in kinds:
                    cuts = statistics.quantiles(taken[kind], n=100)
                    row = [method, kind, *(f"{cuts[round(q * 100) - 1]:,.0f}" for q in QUANTILES)]
                    if kind != ABSENT:
                        largest, probability = distance(taken[kind], taken[ABSENT])
                        row += [f"{largest:.4f}", f"{probability:.2g}"]
                    rows.append(row)
            headers = ("", "pass", *(f"p{q * 100:.0f} µs" for q in QUANTILES), "D", "by chance")
            print(f"{arguments.calls} calls of each kind, {arguments.passes} foreign passes")
            print(tabulate(rows, headers, "github", disable_numparse=True))
        finally:
            channel.close()
            server.stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--calls", type=int, default=4_000, help="of each kind")
    parser.add_argument("--passes", type=int, default=100_000, help="of the other account")
    parser.add_argument("--seed", type=int, default=1, help="of the order and the ids")
    parser.add_argument("--dir", default="/var/tmp", help="where the database goes")
    main(parser.parse_args())
