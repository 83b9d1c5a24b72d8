"""What is called: servers on fresh copies of a database, and rounds of calls to them in turn."""

import os
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from bench.cpu import usage
from bench.load import Client, Round, measure
from bench.servers import Process

RAMP_S: Final = 0.25
MAX_HELD: Final = 1_000_000
"""Number of passes that are chosen at random of those that a database has, to be cancelled."""
NOBODY: Final = "00000000-0000-7000-8000-000000000000"


class Template(Protocol):
    """A database at rest, and the ids of its passes in flight in the order of registration."""

    @property
    def in_flight(self) -> Sequence[str]: ...

    def copy(self, folder: Path, name: str) -> Path | str:
        """A database that is the same. Returns its file, or its URL."""


class Served:
    """A server and the passes on it that are still to be cancelled.

    Args:
        folder: for the database and the log.
        template: copied for the server; None for a server without a store.
        command: what starts the server on a database.
        ready: the event in its log that has the address to call.
        beside_s: the processor time so far of what it calls in turn.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        template: Template | None,
        command: Callable[[Any], list[str]],
        environment: Mapping[str, str] | None = None,
        *,
        ready: str = "serving",
        beside_s: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.db: Path | str | None = None
        self.beside_s = beside_s
        self._name = name
        self._folder = folder
        self._log = folder / f"{name}.log"
        self._template = template
        self._command = command
        self._environment = environment
        self._ready = ready
        self._ids: list[str] = []
        self._peak_rss_mb = 0.0
        self.process: Process | None = None

    def hold(self, passes: int) -> Process:
        """Makes sure that so many passes can be cancelled, on a new server if need be."""
        wanted = min(passes, len(self._template.in_flight) if self._template else 0)
        if self.process is None or len(self._ids) < wanted:
            self.stop()
            if self._template is not None:
                self.db = self._template.copy(self._folder, self._name)
                ids = self._template.in_flight
                self._ids = random.Random(1).sample(ids, min(len(ids), MAX_HELD))
            self.process = Process(
                self._command(self.db), self._log, self._environment, self._ready
            )
        return self.process

    def take(self, passes: int) -> list[str]:
        if self._template is None:
            return [NOBODY] * passes
        if len(self._ids) < passes:
            raise RuntimeError("all passes are cancelled; give more --passes")
        taken = self._ids[-passes:]
        del self._ids[-passes:]
        return taken

    def peak_rss_mb(self) -> float:
        if self.process is not None:
            self._peak_rss_mb = max(self._peak_rss_mb, self.process.peak_rss_mb())
        return self._peak_rss_mb

    def stop(self) -> None:
        if self.process is not None:
            self.peak_rss_mb()
            self.process.stop()
            self.process = None


class Measurable(Protocol):
    """One line of a table.

    Attributes:
        max_in_flight: with more it is left out.
    """

    name: str
    max_in_flight: int

    async def round(self, in_flight: int, window_s: float) -> Round: ...


class Target:
    """A way to call a server.

    Args:
        max_in_flight: with more it is left out.
        max_passes_per_s: more than it does; so many passes are held ready for it.
        window: how much longer its rounds are than others'.
    """

    def __init__(
        self,
        name: str,
        served: Served,
        client: Client,
        *,
        max_in_flight: int = 1_000,
        max_passes_per_s: int = 8_000,
        window: float = 1.0,
    ) -> None:
        self.name = name
        self.served = served
        self.max_in_flight = max_in_flight
        self._client = client
        self._window = window
        self._address: str | None = None
        self._max_passes_per_s = max_passes_per_s

    async def round(self, in_flight: int, window_s: float) -> Round:
        ramp_s, window_s = RAMP_S * self._window, window_s * self._window
        in_calls = in_flight * self._client.passes_per_call
        process = self.served.hold(int(self._max_passes_per_s * (ramp_s + window_s)) + in_calls)
        if self._address != process.address:
            await self.close()
            await self._client.open(process.address)
            self._address = process.address
        # What the round before left to be written to the disk is not to be paid for in this one.
        os.sync()
        return await measure(
            self._client,
            self.served.take,
            lambda: usage(process.pid, self.served.beside_s),
            in_flight=in_flight,
            ramp_s=ramp_s,
            window_s=window_s,
        )

    async def close(self) -> None:
        if self._address is not None:
            await self._client.close()
            self._address = None


class Key(NamedTuple):
    target: str
    in_flight: int


Results = dict[Key, list[Round]]


async def interleaved(
    targets: Sequence[Measurable], in_flight: int, rounds: int, window_s: float
) -> Results:
    """Measures A B C A B C …: what disturbs the machine meanwhile disturbs all of them."""
    taking_part = [target for target in targets if in_flight <= target.max_in_flight]
    results: Results = {Key(target.name, in_flight): [] for target in taking_part}
    for _ in range(rounds):
        for target in taking_part:
            done = await target.round(in_flight, window_s)
            results[Key(target.name, in_flight)].append(done)
    return results
