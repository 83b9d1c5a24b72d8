"""The questions that are asked, each answered by rounds taken in turn on real servers."""

import asyncio
import base64
import statistics
import time
from collections.abc import Sequence
from typing import Final

from bench import hooks, machine, observed, overload, rival, rival_check
from bench.flooder import QUIET_CALLS_PER_S, QUIET_S, quiet_p99_s
from bench.load import Grpc, GrpcBatch, Http, Round, serving
from bench.report import Goal, at_least, at_most, told
from bench.servers import (
    Process,
    audited_s,
    idpass_server,
    idpass_server_http,
    known_callers,
    module,
    unlimited_callers,
)
from bench.stand import Stand
from bench.targets import Key, Results, Served, Target

IN_FLIGHT: Final = (1, 8, 32, 128)
AT: Final = 32
MOST_IN_FLIGHT: Final = max(IN_FLIGHT)
BATCH: Final = 500
WATCHERS: Final = 100
STARTS: Final = 5
SLOW_DISK_US: Final = 2_000
SLOW_DISK_IN_FLIGHT: Final = 128
OVERLOAD_DISK_US: Final = 20_000

QUIETEST: Final = ("--log-calls", "failed")
MEASURED: Final = ("--metrics", "127.0.0.1:0")

EMPTY: Final = "empty handler"
CANCEL: Final = "CancelIdPass"
ORDINARY: Final = "ordinary: threads, a commit per call"
RIVAL: Final = "C++, a commit per call"
FASTAPI: Final = "FastAPI + SQLAlchemy"
BATCHES: Final = f"BatchCancelIdPasses of {BATCH}"


class Bench(Stand):
    async def table(self) -> tuple[Results, dict[str, float]]:
        """Everybody, with 1 to 128 calls in flight. Returns the rounds and each one's peak RSS."""
        real = self._real()
        targets = [
            Target(EMPTY, self._serve("empty", None, lambda _db: module("empty_server")), Grpc()),
            Target(CANCEL, real, Grpc()),
            Target(ORDINARY, self._peer("ordinary_server"), Grpc()),
            *self._rival(),
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

    def _rival(self) -> list[Target]:
        """Nothing where it cannot be built."""
        try:
            program = rival.build()
        except rival.CannotBuild as error:
            what = f"{CANCEL} / {RIVAL}, {AT} in flight"
            self.goals.append(Goal(what, "≥ 1.15 x", f"not measured: {error}", None))
            return []
        rival_check.check(program, self.folder)
        served = self._serve("rival", self._many(), lambda db: rival.command(program, db))
        return [Target(RIVAL, served, Grpc())]

    def _judge(self, results: Results, fdatasync_s: float) -> None:
        def of(name: str, in_flight: int = AT) -> list[Round]:
            return results[Key(name, in_flight)]

        for other, in_flight, times in (
            *((EMPTY, AT, 0.72), (EMPTY, MOST_IN_FLIGHT, 0.85), (ORDINARY, AT, 2.2)),
            *((RIVAL, AT, 1.15), (FASTAPI, AT, 5.0)),
        ):
            if Key(other, in_flight) in results:
                measured = ratios(of(CANCEL, in_flight), of(other, in_flight))
                what = f"{CANCEL} / {other}, {in_flight} in flight"
                self.goals.append(at_least(what, measured, times, "x"))
        dearer = ratios(of(CANCEL), of(EMPTY), "cpu_per_pass_s")
        slower = ratios(of(CANCEL, 1), of(ORDINARY, 1), "p50_s")
        among = f"ids at random among {self.settings.passes:,}"
        per_s = [one.passes_per_s for one in of(BATCHES)]
        alone = zip(of(CANCEL, 1), of(EMPTY, 1), strict=True)
        syncs = [(mine.p50_s - empty.p50_s) / fdatasync_s for mine, empty in alone]
        self.goals += [
            at_most(f"server CPU of {CANCEL} / {EMPTY}, {AT} in flight", dearer, 1.40, "x"),
            at_most(f"{CANCEL}, one caller: p50 / that of {ORDINARY}", slower, 1.0, "x"),
            at_most(
                f"{CANCEL}, one caller: p50 less the empty handler's, in fdatasyncs "
                f"of {fdatasync_s * 1e6:.0f} µs",
                syncs,
                2.5,
                "x",
            ),
            at_least(f"{BATCHES}, {among}, {AT} in flight", per_s, 18_000, "passes/s"),
            at_least(
                f"{BATCHES} / {CANCEL}, {AT} in flight", ratios(of(BATCHES), of(CANCEL)), 4.0, "x"
            ),
        ]

    async def tail(self) -> None:
        """The slowest calls of a minute, in which there is more than one checkpoint."""
        served = self._serve("tail", self._many(), idpass_server)
        target = Target("tail", served, Grpc(), max_passes_per_s=5_000)
        one = await target.round(AT, self.settings.tail_s)
        await target.close()
        served.stop()
        self.rounds.append(one)
        what = f"{CANCEL}, {self.settings.passes:,} passes stored, {AT} in flight for "
        shown = f"{one.p999_s * 1e3:.1f} / {one.p50_s * 1e3:.1f} ms"
        what += f"{self.settings.tail_s:.0f} s: p99.9 / p50 ({shown})"
        self.goals += [
            at_most(what, one.p999_s / one.p50_s, 5.0, "x"),
            told("  the worst", one.worst_s * 1e3, "ms"),
            told("  calls", one.passes_per_s, "/s"),
        ]

    async def flat(self) -> None:
        """Few passes stored against many."""
        small = Target("few", self._serve("few", self._few(), idpass_server), Grpc())
        large = {self.settings.passes: Target("many", self._real(), Grpc())}
        if self.settings.most_passes:
            served = self._serve("most", self._most(), idpass_server)
            large[self.settings.most_passes] = Target("most", served, Grpc())
        results = await self._rounds([small, *large.values()], AT)
        few = results[Key("few", AT)]
        self.goals.append(
            at_most("peak RSS, few passes stored", small.served.peak_rss_mb(), 150, "MB")
        )
        for passes, target in large.items():
            times = ratios(results[Key(target.name, AT)], few)
            self.goals += [
                at_least(f"{CANCEL}, {passes:,} passes stored / few", times, 0.9, "x"),
                at_most(
                    f"peak RSS, {passes:,} passes stored", target.served.peak_rss_mb(), 150, "MB"
                ),
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
            at_least(
                f"{post} / {CANCEL}, {AT} in flight", ratios(of["http"], of["grpc"]), 0.5, "x"
            ),
            told(f"{post} / {FASTAPI}", ratios(of["http"], of["peer"]), "x"),
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
        beside = ratios(of["ordinary slow"], of["ordinary"])
        self.goals += [
            at_least(what, ratios(of["slow"], of["fast"]), 0.7, "x"),
            told("  the ordinary server beside it", beside, "x"),
        ]

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
            told(what + "passes/s", ratios(beside, without), "x"),
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
            at_least(what, ratios(beside, without), 0.9, "x"),
            at_least("deliveries to one webhook that is behind", per_s, 500, "/s"),
            at_most(
                f"{CANCEL} to the POST on an idle server, p50",
                statistics.median(taken_s) * 1e3,
                50,
                "ms",
            ),
        ]

    async def metrics(self) -> None:
        """Calls while what happens is measured and each has a line in the log, and without both."""
        few = self._few()
        on = self._serve("measured", few, lambda db: idpass_server(db, *MEASURED))
        off = self._serve("unmeasured", few, lambda db: idpass_server(db, *QUIETEST))
        results = await self._rounds([Target("on", on, Grpc()), Target("off", off, Grpc())], AT)
        both = results[Key("on", AT)], results[Key("off", AT)]
        dearer = [100 * (times - 1) for times in ratios(*both, "cpu_per_pass_s")]
        slower = [100 * (1 - times) for times in ratios(*both)]
        what = f"{CANCEL} with --metrics and a log line a call / without, {AT} in flight: "
        self.goals += [
            at_most(what + "fewer calls/s", slower, 5, "%"),
            at_most("  more server CPU", dearer, 5, "%"),
            at_most(
                "  what metrics take of one alone in its batch",
                observed.per_cancel_s() * 1e6,
                3,
                "µs",
            ),
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


def ratios(
    one: Sequence[Round], other: Sequence[Round], figure: str = "passes_per_s"
) -> list[float]:
    """How many times the figure, in each pair of rounds that were taken one right after the other.

    Args:
        figure: the attribute of a round.
    """
    pairs = zip(one, other, strict=True)
    return [getattr(a, figure) / getattr(b, figure) for a, b in pairs]


def _p99_ms(rounds: list[Round]) -> str:
    return f"{statistics.median(r.p99_s for r in rounds) * 1e3:.1f}"
