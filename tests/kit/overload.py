"""A server that is offered more calls than it can answer, and what is wrong with what came of them.

The calls are made by `bench.open_loop`, a process of its own.
"""

import base64
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from google.rpc import status_pb2

from bench import machine
from bench.offering import offer, read
from bench.open_loop import Outcome, Phase, Result
from bench.seed import seed
from idpass_server.hosting.channel_options import MAX_UNTAKEN
from idpass_server.ids import new_uuid
from idpass_server.rules.commands import Register
from idpass_server.store.opening import open_store
from kit.memory import PEAK, forget_peak, rss_mb
from kit.probing import scrape, total
from kit.serving import url_of
from kit.support import Process, details_of, make_accounts, problems, set_slots

IN_FLIGHT = 400
"""Calls in flight while the capacity is measured: half of what gRPC lets wait."""
WARM_S = 0.4
WARM_CALLS = 10_000
"""More than are answered while the capacity is measured."""
QUEUES = 2
"""Length of a phase, in times that the longest queue takes."""
DEADLINE = 2
"""Deadline of a call, in phases; it must be well above what calls wait where they may."""
OVER = (1, 2, 4)
LESS = 0.3
ROUND_CALLS = int((sum(OVER) + 2 * LESS) * QUEUES * MAX_UNTAKEN) + 10
PATIENCE_S = 30.0
"""Deadline of calls that have time enough also if the machine stands still, seconds."""
BATCH = 1_000
EVENTS = 1_000
RETRY_MS = 200
"""Shortest retry delay that a refusal may suggest, milliseconds."""
DETAILS = "grpc-status-details-bin"
GAUGES = {"idpass_calls_in_flight", "idpass_pending_commands"}
_RUN = """
from idpass_server.cli import main
main(prog_name="idpass-server")
"""


class Pace(NamedTuple):
    """What a server can do here and now.

    Attributes:
        per_s: calls that it answers a second.
    """

    per_s: float

    @property
    def phase_s(self) -> float:
        """Length of a phase, seconds: the slower the machine, the longer."""
        return QUEUES * MAX_UNTAKEN / self.per_s

    def a_round(
        self, over: Sequence[int] = OVER, *, deadline_s: float | None = None
    ) -> list[Phase]:
        """The capacity, twice and four times that, then a third for twice as long.

        Args:
            over: the first phases, in multiples of the capacity.
            deadline_s: of their calls; by default DEADLINE.
        """
        deadline_s = deadline_s or DEADLINE * self.phase_s
        phases = [Phase(times * self.per_s, self.phase_s, deadline_s) for times in over]
        return [*phases, Phase(LESS * self.per_s, 2 * self.phase_s, PATIENCE_S)]


class Offered(NamedTuple):
    """Args: peak_mb: of the server's memory meanwhile."""

    results: list[Result]
    outcomes: list[Outcome]
    peak_mb: float

    def late(self, phase: int) -> Counter[str]:
        """The calls that came in the second half of a phase, by status."""
        from_s = self.results[phase].seconds / 2
        return Counter(
            each.status for each in self.outcomes if each.phase == phase and each.due_s >= from_s
        )

    def told(self) -> str:
        """For people: of each phase how it went."""
        return "; ".join(
            f"{result.calls:,} calls in {result.seconds:.1f} s: p99 {result.p99_s * 1e3:.0f} ms, "
            + ", ".join(f"{status}: {n:,}" for status, n in Counter(result.by_status).most_common())
            for result in self.results
        )


class Overloaded:
    """A server with passes to cancel. Close it in the end.

    Args:
        folder: for scratch files.
        db: a file that does not exist, or the URL of an empty database.
        rounds: of calls that there are passes for.
        patch: Python that the server runs first.
        slow_us: how much longer each sync of the disk takes, microseconds.
    """

    def __init__(
        self, folder: Path, db: Path | str, rounds: int = 1, *, patch: str = "", slow_us: int = 0
    ) -> None:
        class Patched(Process):
            command = (sys.executable, "-c", patch + _RUN)

        self.url = url_of(db)
        self._folder = folder
        self._ids = _passes(db, WARM_CALLS + rounds * ROUND_CALLS)
        env = machine.slow_disk(folder, slow_us) if slow_us else {}
        self.server = Patched(db, "--metrics", "127.0.0.1:0", "--log-calls", "failed", env=env)
        self._metrics = self.server.wait_for("metrics")["listen"]
        self.outcomes: list[Outcome] = []

    def close(self) -> None:
        self.server.kill()

    async def pace(self) -> Pace:
        """Measures what the server can do, with calls of callers who wait for one another."""
        closed = Phase(0, WARM_S, 60.0, IN_FLIGHT)
        *_, result = (await self.offer([closed, closed], WARM_CALLS)).results
        return Pace(result.by_status["0"] / result.seconds)

    async def offer(self, phases: Sequence[Phase], calls: int = ROUND_CALLS) -> Offered:
        """Offers calls. Args: calls: largest number of them."""
        ids = [self._ids.pop() for _ in range(calls)]
        pid = self.server.process.pid
        forget_peak(pid)
        file = self._folder / "outcomes"
        results = await offer(self.server.address, ids, phases, self._folder, file)
        outcomes = read(file)
        self.outcomes += outcomes
        return Offered(results, outcomes, rss_mb(pid, PEAK))

    def busy(self) -> dict[str, float]:
        """The gauges that are to be 0 once nothing is asked for any more, and are not."""
        shown = scrape(self._metrics)
        return {name: value for name in sorted(GAUGES) if (value := total(shown, name))}

    def watchers(self) -> float:
        return total(scrape(self._metrics), "idpass_watchers")

    def untrue(self) -> list[str]:
        """What callers were told and is not so, once the server has answered everything."""
        return list(_untrue(self.outcomes, self._cancelled())) + problems(self.url)

    def _cancelled(self) -> set[str]:
        """The passes that were cancelled, each by the request_id that it was to be."""
        found: set[str] = set()
        with closing(open_store(self.url, exclusive=False)) as store:
            after = 0
            while events := store.events("demo", after, EVENTS):
                after = events[-1].sequence
                found |= {e.id_pass_id for e in events if e.request_id == e.id_pass_id}
        return found


def _passes(db: Path | str, count: int) -> list[str]:
    """Registers passes in a new database. Returns their ids."""
    if isinstance(db, Path):
        return seed(db, in_flight=count).in_flight
    make_accounts(db, "demo")
    set_slots(db, count + 1_000)
    ids = [new_uuid() for _ in range(count)]
    with closing(open_store(db)) as store:
        for at in range(0, count, BATCH):
            some = ids[at : at + BATCH]
            commands = [Register("demo", "demo", new_uuid(), None, id_) for id_ in some]
            store.commit(commands, time.time_ns() // 1_000)
    return ids


def _untrue(outcomes: Iterable[Outcome], cancelled: set[str]) -> Iterator[str]:
    for each in outcomes:
        stored = each.id_pass in cancelled
        if each.status == "0" and not stored:
            yield f"answered OK, and not stored: {each}"
        if stored and unchanged(each):
            yield f"told that nothing was changed, and it was: {each}"


def unchanged(outcome: Outcome) -> bool:
    """Whether the caller can know that nothing was changed."""
    told = outcome.trailers.get("grpc-message", "")
    return outcome.status in {"1", "8", "unsent", "reset 7"} or "before it was started" in told


def unclear(outcomes: Iterable[Outcome]) -> list[str]:
    """Ends of calls that are not among the documented ones, by kind."""
    return [
        f"not documented, {count} times: {kind}"
        for kind, count in Counter(map(_fault, outcomes)).items()
        if kind
    ]


def _fault(outcome: Outcome) -> str:
    """What is wrong with how a call has ended; "" for nothing."""
    told = outcome.trailers
    match outcome.status:
        case "0" | "late" | "unsent" | "4":  # the deadline has passed: seen there, or here
            return ""
        case "1" | "reset 7" if DETAILS not in told:  # by gRPC: its queue, the connection is full
            return ""
        case "8":
            return _refusal_fault(told)
    return f"status {outcome.status} {told.get('grpc-message')}"


def _refusal_fault(told: Mapping[str, str]) -> str:
    details = _details(told)
    if details["ErrorInfo"].reason != "OVERLOADED":
        return f"reason {details['ErrorInfo'].reason}"
    if "Nothing was changed" not in told["grpc-message"]:
        return f"does not say that nothing was changed: {told['grpc-message']}"
    retry_ms = details["RetryInfo"].retry_delay.ToMilliseconds()
    if not RETRY_MS <= retry_ms == int(told["grpc-retry-pushback-ms"]):
        return f"suggests to retry after {retry_ms} ms"
    return ""


def _details(told: Mapping[str, str]) -> dict[str, Any]:
    packed = told.get(DETAILS, "")
    raw = base64.b64decode(packed + "=" * (-len(packed) % 4))
    return details_of(status_pb2.Status.FromString(raw))
