"""Rounds of histories: a server, groups of callers on accounts of their own, and faults.

Groups come in waves, one to three at once: storms, in which everyone calls as fast as may be, and
calm ones, where few calls are under way at any time and an answer that is a moment old shows.
"""

import asyncio
import contextlib
import itertools
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import grpc

from idpass.v1.id_pass_service_pb2_grpc import IdPassServiceStub
from idpass_server.rules.records import Account
from idpass_server.store.opening import make_store, open_store
from idpass_server.store.postgres.news import POLL_S
from kit.guarded import caller
from kit.history_group import Group, Seen, Shape, Surroundings
from kit.linear import Step
from kit.serving import url_of
from kit.support import Process
from kit.witness import CHANNEL_OPTIONS

LINKS: Final = 8
WAVES: Final = 12
"""Number of waves of a round."""
MOST_AT_ONCE: Final = 3
"""Number of groups in the largest wave."""
LOOKS_ALONE: Final = (40, 0.3)
"""Surroundings.looks and least_s of a server that stores all changes itself."""
LOOKS_AMONG_OTHERS: Final = (80, 0.5)
"""The same of a server that hears of changes from others: about half of the time after which it
looks for news that nobody told it of."""
DEAF_S: Final = 2 * POLL_S
"""Longest time after a fault for which such a server does not hear of them, seconds."""
SLOTS: Final = 5
"""Slot limit of each account: fewer than the passes that its callers make."""
CALM: Final = Shape(callers=3, calls=9, pause_s=0.006, hurried=False)


def storm(draw: random.Random) -> Shape:
    return Shape(callers=draw.randint(8, 16), calls=4)


@dataclass
class Tally:
    """What was seen in all rounds."""

    histories: int = 0
    contended: int = 0
    steps: int = 0
    longest: int = 0
    calls: int = 0
    unknown: int = 0
    delivered: int = 0
    latest_ms: float = 0.0
    faults: int = 0
    wrong: list[str] = field(default_factory=list)

    def add(self, seen: Seen) -> None:
        self.histories += len(seen.histories)
        self.contended += sum(map(_contended, seen.histories))
        self.steps += sum(map(len, seen.histories))
        self.longest = max([self.longest, *map(len, seen.histories)])
        self.calls += seen.calls
        self.unknown += seen.unknown
        self.delivered += seen.delivered
        self.latest_ms = max(self.latest_ms, seen.latest_ms)
        self.wrong += seen.wrong

    def __str__(self) -> str:
        return (
            f"{self.histories} histories, {self.contended} of them with changes at once; "
            f"{self.steps / max(self.histories, 1):.0f} calls on a pass, at most {self.longest}; "
            f"{self.calls} calls, {self.unknown} without an answer; {self.delivered} events to "
            f"watchers, the latest after {self.latest_ms:.0f} ms; {self.faults} faults; "
            f"{len(self.wrong)} wrong"
        )


def _contended(history: Sequence[Step]) -> bool:
    """Whether two calls that might change the pass were under way at once."""
    changes = sorted(
        (step.began, step.ended or step.began) for step in history if step.asked.kind != "see"
    )
    return any(later[0] <= sooner[1] for sooner, later in itertools.pairwise(changes))


Fault = Callable[["Round", random.Random], Awaitable[None]]


class Round:
    """A server whose accounts are each used by one group.

    Args:
        db: an empty database, or the path for one.
        folder: for the callers file.
        names: of the accounts.
        options: of `serve`.
        server: runs it.

    Attributes:
        process: that serves.
        faults: how many there were.
    """

    def __init__(
        self,
        db: Path | str,
        folder: Path,
        names: Sequence[str],
        *options: str,
        server: type[Process] = Process,
    ) -> None:
        self.db = db
        self.faults = 0
        self._changes = 0
        self._deaf_until_s = 0.0  # on time.monotonic()
        self._up = asyncio.Event()
        self._names = iter(names)
        self._server = server
        file = folder / "callers.toml"
        file.write_text("\n".join(caller(name, name) for name in names))
        _make_accounts(db, names)
        self._options = ["--callers", str(file), "--log-calls", "sampled", *options]
        self.process = server(db, *self._options)

    def end(self) -> None:
        self.process.kill()

    async def kill(self) -> None:
        """Kills the server at once, and starts another in its place."""
        address = self.process.address
        again = [*self._options, "--listen", address]
        self._up.clear()

        def restart() -> None:
            self.process.process.kill()
            self.process.kill()
            self.process = self._server(self.db, *again)

        await self.meanwhile(restart)
        self._up.set()

    async def kill_worker(self, draw: random.Random) -> None:
        """Kills one of the workers; the supervisor starts another in its place."""
        while not (workers := list(self.process.workers().values())):
            await asyncio.sleep(0.01)
        pid = draw.choice(workers)

        def kill() -> None:
            os.kill(pid, signal.SIGKILL)
            self.process.wait_for_line(lambda line: _is_death(line, pid))

        await self.meanwhile(kill)

    async def meanwhile(self, fault: Callable[[], object]) -> None:
        """Does something to the server or its database while calls go on."""
        self.faults += 1
        self._changes += 1
        try:
            await asyncio.to_thread(fault)
        finally:
            self._changes += 1
            if not isinstance(self.db, Path):
                self._deaf_until_s = time.monotonic() + DEAF_S

    def _disturbed(self) -> int:
        """A number that changes with each fault, and with each look as long as one lasts."""
        if time.monotonic() < self._deaf_until_s:
            self._changes += 1
        return self._changes

    @contextlib.asynccontextmanager
    async def surroundings(self) -> AsyncIterator[Surroundings]:
        """What groups need, with connections of their own."""
        self._up.set()
        address = self.process.address
        channels = [grpc.aio.insecure_channel(address, CHANNEL_OPTIONS) for _ in range(LINKS)]
        links = [IdPassServiceStub(channel) for channel in channels]
        try:
            looks = LOOKS_ALONE if isinstance(self.db, Path) else LOOKS_AMONG_OTHERS
            yield Surroundings(links, self._up, self._disturbed, *looks)
        finally:
            for channel in channels:
                await channel.close()

    async def run(self, tally: Tally, wanted: int, draw: random.Random, fault: Fault) -> None:
        """Runs waves of groups: one in four is calm, and one in four meets a fault.

        Args:
            tally: of what is seen.
            wanted: number of histories in it after which it ends.
            draw: for what is random.
            fault: what happens to the server.
        """
        async with self.surroundings() as around:
            for number in range(WAVES):
                if tally.histories >= wanted:
                    break
                shapes = [storm(draw) for _ in range(draw.randint(1, MOST_AT_ONCE))]
                if number % 4 == 0:
                    shapes = [CALM]
                work = [
                    Group(around, next(self._names), f"{draw.random()}", shape).run()
                    for shape in shapes
                ]
                hurting = [fault(self, draw)] if number % 4 == 2 else []
                found, _ = await asyncio.gather(asyncio.gather(*work), asyncio.gather(*hurting))
                for seen in found:
                    tally.add(seen)
        tally.faults += self.faults


def _is_death(line: dict[str, Any], pid: int) -> bool:
    return (line["event"], line.get("pid")) == ("worker_died", pid)


def _make_accounts(db: Path | str, names: Sequence[str]) -> None:
    if isinstance(db, Path) and not db.exists():
        make_store(url_of(db))
    store = open_store(url_of(db), exclusive=False)
    for name in names:
        store.create_account(Account(name, SLOTS, 0, "AUD", 4_500_000, 0, 0, 0))
    store.close()
