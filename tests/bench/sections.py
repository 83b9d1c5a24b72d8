"""The questions that are asked, each answered by rounds taken in turn on real servers."""

import asyncio
import base64
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from bench import hooks, machine, observed, overload
from bench.flooder import QUIET_CALLS_PER_S, QUIET_S, quiet_p99_s
from bench.load import Grpc, GrpcBatch, Http, Round, serving
from bench.report import Goal, at_least, at_most
from bench.seed import Seeded, seed
from bench.servers import (
    Process,
    audited_s,
    idpass_server,
    idpass_server_http,
    known_callers,
    module,
    unlimited_callers,
)
from bench.targets import Key, Results, Served, Target, interleaved

IN_FLIGHT: Final = (1, 8, 32, 128)
AT: Final = 32
BATCH: Final = 500
WATCHERS: Final = 100
STARTS: Final = 5
SLOW_DISK_US: Final = 2_000
SLOW_DISK_IN_FLIGHT: Final = 128
OVERLOAD_DISK_US: Final = 20_000

MEASURED: Final = ("--metrics", "127.0.0.1:0")

EMPTY: Final = "empty handler"
CANCEL: Final = "CancelIdPass"
ORDINARY: Final = "ordinary: threads, a commit per call"
FASTAPI: Final = "FastAPI + SQLAlchemy"
BATCHES: Final = f"BatchCancelIdPasses of {BATCH}"


class Settings(NamedTuple):
    rounds: int
    window_s: float
    passes: int  # in the large database


class Bench:
    """
    Args:
        folder: for databases and logs; several copies of the large database go there.
    """

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.folder = folder
        self.settings = settings
        self.goals: list[Goal] = []
        self._served: dict[str, Served] = {}
        self._templates: dict[str, Seeded] = {}

    def stop(self) -> None:
        for served in self._served.values():
            served.stop()

    async def table(self) -> tuple[Results, dict[str, float]]:
        """Everybody, with 1 to 128 calls in flight. Returns the rounds and each one's peak RSS."""
        real = self._real()
        targets = [
            Target(EMPTY, self._serve("empty", None, lambda _db: module("empty_server")), Grpc()),
            Target(CANCEL, real, Grpc()),
            Target(ORDINARY, self._peer("ordinary_server"), Grpc()),
            Target(FASTAPI, self._peer("fastapi_server"), Http()),
            # A window has to hold many of its long calls.
            Target(
                BATCHES,
                real,
                GrpcBatch(BATCH),
                max_in_flight=32,
                max_passes_per_s=40_000,
                window=1.5,
            ),
        ]
        results: Results = {}
        fdatasyncs_s = []
        for in_flight in IN_FLIGHT:
            results |= await self._rounds(targets, in_flight)
            fdatasyncs_s.append(machine.fdatasync_s(self.folder))
        self._judge(results, statistics.median(fdatasyncs_s))
        return results, {target.name: target.served.peak_rss_mb() for target in targets}

    def _judge(self, results: Results, fdatasync_s: float) -> None:
        cancel = results[Key(CANCEL, AT)]
        for other, times in ((EMPTY, 0.80), (ORDINARY, 2.0), (FASTAPI, 5.0)):
            measured = ratio(cancel, results[Key(other, AT)])
            self.goals.append(at_least(f"{CANCEL} / {other}, {AT} in flight", measured, times, "x"))
        batch = results[Key(BATCHES, AT)]
        among = f"ids at random among {self.settings.passes:,}"
        passes_per_s = statistics.median(r.passes_per_s for r in batch)
        self.goals += [
            at_least(f"{BATCHES}, {among}, {AT} in flight", passes_per_s, 10_000, "passes/s"),
            at_least(f"{BATCHES} / {CANCEL}, {AT} in flight", ratio(batch, cancel), 4.0, "x"),
        ]
        alone = zip(results[Key(CANCEL, 1)], results[Key(EMPTY, 1)], strict=True)
        longer_s = statistics.median(mine.p50_s - empty.p50_s for mine, empty in alone)
        what = (
            f"{CANCEL}, one caller: p50 less the empty handler's, in fdatasyncs "
            f"of {fdatasync_s * 1e6:.0f} µs"
        )
        self.goals.append(at_most(what, longer_s / fdatasync_s, 2.5, "x"))

    async def flat(self) -> None:
        """Few passes stored against many."""
        small = Target("few", self._serve("few", self._few(), idpass_server), Grpc())
        large = Target("many", self._real(), Grpc())
        results = await self._rounds([small, large], AT)
        few, many = results[Key("few", AT)], results[Key("many", AT)]
        passes = f"{self.settings.passes:,}"
        self.goals += [
            at_least(f"{CANCEL}, {passes} passes stored / few", ratio(many, few), 0.9, "x"),
            at_most("peak RSS, few passes stored", small.served.peak_rss_mb(), 150, "MB"),
            at_most(f"peak RSS, {passes} passes stored", large.served.peak_rss_mb(), 150, "MB"),
        ]

    async def http(self) -> None:
        """POST /idpass/cancel against the gRPC call, and against the FastAPI peer."""
        few = self._few()
        hop = Served("http", self.folder, few, idpass_server_http, ready="gateway")
        self._served["http"] = hop
        peer = self._serve("http-peer", few, lambda db: module("fastapi_server", str(db)))
        targets = [
            Target("grpc", self._serve("few", few, idpass_server), Grpc()),
            Target("http", hop, Http()),
            Target("peer", peer, Http()),
        ]
        results = await self._rounds(targets, AT)
        of = {key.target: rounds for key, rounds in results.items()}
        post = "POST /idpass/cancel"
        self.goals += [
            at_least(f"{post} / {CANCEL}, {AT} in flight", ratio(of["http"], of["grpc"]), 0.5, "x"),
            Goal(f"{post} / {FASTAPI}", "", f"{ratio(of['http'], of['peer']):.2f} x", None),
        ]

    async def startup(self) -> None:
        """From the start of the process to the first answer that it is serving."""
        real = self._real()
        real.hold(0)
        real.stop()
        db = real.db
        assert db is not None
        taken_s = []
        for _ in range(STARTS):
            process = Process(idpass_server(db), self.folder / "start.log")
            await serving(process.address)
            taken_s.append(time.perf_counter() - process.spawned_s)
            process.stop()
        what = f"start-up on {self.settings.passes:,} passes"
        self.goals.append(at_most(what, statistics.median(taken_s), 1.0, "s"))

    async def slow_disk(self) -> None:
        """What a disk that takes longer to say that it is done costs whoever waits for it."""
        what = (
            f"{CANCEL}, fdatasync + {SLOW_DISK_US // 1000} ms / as it is, "
            f"{SLOW_DISK_IN_FLIGHT} in flight"
        )
        try:
            slow = machine.slow_disk(self.folder, SLOW_DISK_US)
        except RuntimeError as error:
            self.goals.append(Goal(what, "≥ 0.70 x", f"not measured: {error}", None))
            return
        few = self._few()
        ordinary = lambda db: module("ordinary_server", str(db))  # noqa: E731
        targets = [
            Target("fast", self._serve("fast", few, idpass_server), Grpc()),
            Target("slow", self._serve("slow", few, idpass_server, slow), Grpc()),
            Target("ordinary", self._serve("fast-ordinary", few, ordinary), Grpc()),
            Target("ordinary slow", self._serve("slow-ordinary", few, ordinary, slow), Grpc()),
        ]
        results = await self._rounds(targets, SLOW_DISK_IN_FLIGHT)
        of = {key.target: rounds for key, rounds in results.items()}
        self.goals.append(at_least(what, ratio(of["slow"], of["fast"]), 0.7, "x"))
        beside = ratio(of["ordinary slow"], of["ordinary"])
        self.goals.append(Goal("  the ordinary server beside it", "", f"{beside:.2f} x", None))

    async def watchers(self) -> None:
        """Unary calls while many streams are open."""
        real = self._real()
        target = Target("unary", real, Grpc())
        without: list[Round] = []
        beside: list[Round] = []
        for _ in range(self.settings.rounds):
            without.append(await target.round(AT, self.settings.window_s))
            watching = self._watching(real.hold(0), WATCHERS)
            beside.append(await target.round(AT, self.settings.window_s))
            watching.stop()
        await target.close()
        what = f"{CANCEL} beside {WATCHERS} watchers / none, {AT} in flight: "
        p99 = statistics.median(b.p99_s / w.p99_s for b, w in zip(beside, without, strict=True))
        self.goals += [
            Goal(what + "passes/s", "", f"{ratio(beside, without):.2f} x", None),
            Goal(
                what + "p99", "", f"{p99:.2f} x ({_p99_ms(beside)} / {_p99_ms(without)} ms)", None
            ),
        ]

    async def webhooks(self) -> None:
        """Unary calls with many endpoints and with none; then how fast one of them is."""
        few = self._few()
        receiver = Process(module("hooks"), self.folder / "receiver.log")
        key = self.folder / "webhook.key"
        key.write_bytes(base64.b64encode(bytes(32)))
        key.chmod(0o600)
        options = ("--webhook-key", str(key), "--webhook-allow", "127.0.0.0/8")
        command = lambda db: idpass_server(db, *options)  # noqa: E731
        none = Target("none", self._serve("hooks-none", few, command), Grpc())
        many = Target("many", self._serve("hooks-many", few, command), Grpc())
        without: list[Round] = []
        beside: list[Round] = []
        for _ in range(self.settings.rounds):
            without.append(await none.round(AT, self.settings.window_s))
            needed = int(8_000 * (self.settings.window_s + 0.25)) + AT
            process = many.served.hold(needed)
            await hooks.make(process.address, receiver.address, hooks.ENDPOINTS)
            beside.append(await many.round(AT, self.settings.window_s))
            # What it still has to deliver is not to disturb the next round of the other.
            await many.close()
            many.served.stop()
        await none.close()
        process = none.served.hold(hooks.SAMPLES)
        events = 2_000
        per_s = await hooks.delivered_per_s(process.address, receiver.address, events)
        none.served.stop()
        process = none.served.hold(hooks.SAMPLES)
        await hooks.make(process.address, receiver.address, 1)
        ids = none.served.take(hooks.SAMPLES)
        taken_s = await hooks.latencies_s(process.address, receiver.address, ids)
        receiver.stop()
        what = f"{CANCEL} with {hooks.ENDPOINTS} webhooks / none, {AT} in flight"
        self.goals += [
            at_least(what, ratio(beside, without), 0.9, "x"),
            at_least("deliveries to one webhook that is behind", per_s, 500, "/s"),
            at_most(
                f"{CANCEL} to the POST on an idle server, p50",
                statistics.median(taken_s) * 1e3,
                50,
                "ms",
            ),
        ]

    async def metrics(self) -> None:
        """Calls while what happens is measured, and while it is not."""
        few = self._few()
        measured = self._serve("measured", few, lambda db: idpass_server(db, *MEASURED))
        targets = [
            Target("without", self._serve("few", few, idpass_server), Grpc()),
            Target("with", measured, Grpc()),
        ]
        results = await self._rounds(targets, AT)
        times = ratio(results[Key("with", AT)], results[Key("without", AT)])
        alone_us = observed.per_cancel_s() * 1e6
        self.goals += [
            Goal(f"{CANCEL} with --metrics / without, {AT} in flight", "", f"{times:.2f} x", None),
            at_most("  what they take of one alone in its batch", alone_us, 3, "µs"),
        ]

    async def audit(self) -> None:
        """Every invariant of the large database."""
        taken_s = await asyncio.to_thread(audited_s, f"sqlite:///{self._many().path}")
        self.goals.append(at_most(f"audit of {self.settings.passes:,} passes", taken_s, 20, "s"))

    async def flood(self) -> None:
        """A caller who makes 20 calls a second, while another has 128 in flight whatever comes."""
        few = self._few()
        p99_s: dict[str, list[float]] = {"limited": [], "unlimited": []}
        alone_s: dict[str, list[float]] = {"limited": [], "unlimited": []}
        for _ in range(self.settings.rounds):
            for name, command in (("limited", known_callers), ("unlimited", unlimited_callers)):
                served = self._serve(f"flood-{name}", few, command)
                calls = int(QUIET_CALLS_PER_S * QUIET_S)
                address = served.hold(2 * calls).address
                alone_s[name].append(await quiet_p99_s(address, served.take(calls)))
                flooding = Process(
                    module("flooder", address), self.folder / "flooder.log", ready="flooding"
                )
                # What a rested caller may do at once is over by then.
                await asyncio.sleep(2)
                p99_s[name].append(await quiet_p99_s(address, served.take(calls)))
                flooding.stop()
        what = "p99 of a quiet caller, GetIdPass and CancelIdPass: beside a flooding one / alone"
        for name, goal in (("limited", 2.0), ("unlimited", None)):
            pairs = zip(p99_s[name], alone_s[name], strict=True)
            times = statistics.median(beside / alone for beside, alone in pairs)
            beside_s, alone = statistics.median(p99_s[name]), statistics.median(alone_s[name])
            shown = f"{beside_s * 1e3:.1f} ms beside, {alone * 1e3:.1f} ms alone"
            if goal is None:
                self.goals.append(Goal("  with --rate 0", "", f"{times:.2f} x ({shown})", None))
            else:
                self.goals.append(at_most(f"{what} ({shown})", times, goal, "x"))

    async def overload(self) -> None:
        """More calls than can be answered, by callers who do not wait for one another."""
        await self._overload("overload", "")
        await self._overload("watched", f" beside {WATCHERS} watchers", watchers=WATCHERS)
        title = f" with fdatasync + {OVERLOAD_DISK_US // 1000} ms"
        try:
            slow = machine.slow_disk(self.folder, OVERLOAD_DISK_US)
        except RuntimeError as error:
            self.goals.append(Goal(f"open loop{title}", "", f"not measured: {error}", None))
        else:
            await self._overload("slow-overload", title, environment=slow)

    async def _overload(
        self, name: str, title: str, *, watchers: int = 0, environment: dict[str, str] | None = None
    ) -> None:
        template = self._seed("overload.seed", in_flight=overload.PASSES, history=0)
        served = self._serve(name, template, idpass_server, environment)
        process = served.hold(overload.PASSES)
        watching = self._watching(process, watchers) if watchers else None
        ids = served.take(overload.PASSES)
        self.goals += await overload.goals(process, ids, self.folder, title)
        if watching is not None:
            watching.stop()
        served.stop()

    def _watching(self, process: Process, streams: int) -> Process:
        """A process that holds so many streams of a server open."""
        command = module("watchers", process.address, str(streams))
        return Process(command, self.folder / "watchers.log", ready="watching")

    async def _rounds(self, targets: list[Target], in_flight: int) -> Results:
        settings = self.settings
        try:
            return await interleaved(targets, in_flight, settings.rounds, settings.window_s)
        finally:
            for target in targets:
                await target.close()

    def _real(self) -> Served:
        return self._serve("idpass-server", self._many(), idpass_server)

    def _peer(self, name: str) -> Served:
        return self._serve(name, self._many(), lambda db: module(name, str(db)))

    def _serve(
        self,
        name: str,
        template: Seeded | None,
        command: Callable[[Path], list[str]],
        environment: dict[str, str] | None = None,
    ) -> Served:
        if name not in self._served:
            self._served[name] = Served(name, self.folder, template, command, environment)
        return self._served[name]

    def _many(self) -> Seeded:
        return self._seed("many.seed", in_flight=self.settings.passes, history=0)

    def _few(self) -> Seeded:
        # Beside the thousand, the passes that a few rounds cancel: not every round is to meet a
        # server that has only just started.
        in_flight = int(3 * 8_000 * (self.settings.window_s + 0.25))
        return self._seed("few.seed", in_flight=in_flight, history=1_000)

    def _seed(self, name: str, *, in_flight: int, history: int) -> Seeded:
        if name not in self._templates:
            path = self.folder / name
            self._templates[name] = seed(path, in_flight=in_flight, history=history)
        return self._templates[name]


def ratio(one: list[Round], other: list[Round]) -> float:
    """How many times the throughput: of rounds taken one right after the other, the median."""
    pairs = zip(one, other, strict=True)
    return statistics.median(a.passes_per_s / b.passes_per_s for a, b in pairs)


def _p99_ms(rounds: list[Round]) -> str:
    return f"{statistics.median(r.p99_s for r in rounds) * 1e3:.1f}"
