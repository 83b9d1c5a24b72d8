"""The sandbox: a server with plausible passes in every status, in a throw-away database.

The database is created for it and deleted with it, so that nothing real can be shown or reset.
"""

import asyncio
import errno
import random
import socket
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

import structlog

from idpass_server.api.identity import DEMO
from idpass_server.config import Settings
from idpass_server.gateway.stages import Faults
from idpass_server.hosting.server import Server
from idpass_server.hosting.webhooks import for_a_trial
from idpass_server.ids import new_uuid
from idpass_server.rules.commands import Advance, Cancel, Command, Expire, Register
from idpass_server.rules.domain import DAY_US
from idpass_server.rules.records import Money, Reason, Status
from idpass_server.store.sqlite.store import SqliteStore
from idpass_server.trying.stage import Stage

SLOTS: Final = 60
"""Slot limit of the account."""
FEE: Final = Money("AUD", 4_500_000)
FORMER_FEE: Final = Money("AUD", 3_900_000)
"""Fee for a pass before it was raised."""
FEE_RAISED_DAYS: Final = 4.0
"""How long ago the fee was raised, days."""
HOUR_US: Final = DAY_US // 24
MINUTE_US: Final = HOUR_US // 60
PORTS_TRIED: Final = 100
"""Ports that are tried, from the one asked for upwards."""

log = structlog.get_logger()

GIVEN: Final = (
    *("Amara", "Anh", "Arjun", "Beatriz", "Chloe", "Daniel", "Elif", "Emma", "Fatima", "Grace"),
    *("Haruto", "Ines", "Isaac", "Jarrah", "Joon", "Kiri", "Lachlan", "Leila", "Lucía", "Marek"),
    *("Mia", "Noah", "Olivia", "Priya", "Ruby", "Samuel", "Sione", "Tane", "Wei", "Zoë"),
)
FAMILY: Final = (
    *("Adeyemi", "Baker", "Chen", "Costa", "Dubois", "Evans", "Farah", "Fraser", "García"),
    *("Hughes", "Ito", "Kaur", "Kelly", "Kim", "Kowalski", "Lee", "Malik", "Martin", "Mitchell"),
    *("Ngata", "Nguyen", "Obrien", "Okafor", "Patel", "Rossi", "Ryan", "Singh", "Taylor"),
    *("Tran", "Williams", "Yilmaz"),
)
WHY: Final = (
    (Reason.ABANDONED, "No answer to two reminders"),
    (Reason.REQUESTED_BY_APPLICANT, "Chose to verify in a branch"),
    (Reason.DUPLICATE, "Registered twice"),
    (Reason.FRAUD_SUSPECTED, ""),
    (Reason.OTHER, "Wrong product"),
)


class Story(NamedTuple):
    """What some passes have gone through.

    Args:
        way: their statuses after NEW.
        passes: number of passes.
        days_ago: range of their registration, days before now.
        validity_days: of their links.
    """

    way: tuple[Status, ...]
    passes: int
    days_ago: tuple[float, float]
    validity_days: int = 7


STORIES: Final = (
    Story((), 17, (0.001, 6.0)),
    Story((Status.OPENED,), 13, (0.02, 6.0)),
    Story((Status.OPENED, Status.IN_PROGRESS), 11, (0.03, 6.0)),
    Story((Status.OPENED, Status.IN_PROGRESS, Status.COMPLETE), 46, (0.1, 9.0)),
    Story((Status.OPENED, Status.IN_PROGRESS, Status.FAILED), 8, (0.2, 9.0)),
    Story((Status.EXPIRED,), 9, (3.2, 9.0), validity_days=3),
    Story((Status.OPENED, Status.EXPIRED), 4, (2.2, 8.0), validity_days=2),
    Story((Status.CANCELLED,), 9, (0.2, 8.0)),
    Story((Status.OPENED, Status.CANCELLED), 7, (0.3, 8.0)),
    Story((Status.OPENED, Status.IN_PROGRESS, Status.CANCELLED), 6, (0.3, 8.0)),
)


def on_free_ports(settings: Settings) -> Settings:
    """The settings, with each port in use replaced by the next free one."""
    listen = _next_free(settings.listen)
    return replace(settings, listen=listen, http=settings.http and _next_free(settings.http))


def _next_free(address: str) -> str:
    host, colon, port = address.rpartition(":")
    bare = host.strip("[]")
    if not colon or not port.isdecimal():
        return address
    for candidate in range(int(port), min(int(port) + PORTS_TRIED, 65_536)):
        family = socket.AF_INET6 if ":" in bare else socket.AF_INET
        try:
            socket.create_server((bare, candidate), family=family).close()
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                continue
            break  # the server reports what is wrong with it
        if candidate != int(port):
            log.warning("port_taken", wanted=address, takes=f"{host}:{candidate}")
        return f"{host}:{candidate}"
    return address


class Sandbox:
    """Runs as a Server does; `reset` replaces it with another one with new data.

    Args:
        settings: as of Server; the database is ignored.

    Raises:
        OperatorError: as Server.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._folder = tempfile.TemporaryDirectory(prefix="idpass-sandbox-")
        self._webhooks = for_a_trial(Path(self._folder.name))
        self._made = 0
        self._again: asyncio.Future[None] | None = None

    async def start(self) -> str:
        """Begins to serve. Returns the address, with the port that was taken."""
        self._made += 1
        path = Path(self._folder.name) / f"sandbox-{self._made}.db"
        await asyncio.to_thread(seed, path)
        settings = replace(self._settings, db=f"sqlite:///{path}", **self._webhooks)
        self._server = Server(settings)
        address = await self._server.start()
        # After a reset, clients reconnect to the same address.
        self._settings = replace(self._settings, listen=address)
        return address

    def drain(self) -> None:
        """As Server.drain."""
        self._server.drain()

    def stop(self) -> None:
        """Asks it to stop, which `wait` carries out."""
        self._server.stop()

    async def wait(self) -> bool:
        """Serves until asked to stop, and stops. Returns false if the store broke."""
        try:
            while (healthy := await self._server.wait()) and self._again:
                await self.start()
                again, self._again = self._again, None
                again.set_result(None)
            return healthy
        finally:
            self._folder.cleanup()

    async def reload(self) -> None:
        """A no-op: there is nothing to reread."""

    async def reset(self) -> None:
        """Replaces all data; concurrent calls share one reset."""
        if self._again is None:
            self._again = asyncio.get_running_loop().create_future()
            self._server.stop()
        await asyncio.shield(self._again)

    def open_stage(self, faults: Faults) -> Stage:
        """Makes a service with faults beside this one, for a show."""
        return Stage(Path(self._folder.name), faults)


def seed(path: Path) -> None:
    """Fills a database with passes of the account `demo`, as if it had served for days."""
    now_us = time.time_ns() // 1_000
    steps = sorted(_steps(now_us, random.Random(11)), key=lambda step: step[0])  # noqa: S311
    raised_us = now_us - int(FEE_RAISED_DAYS * DAY_US)
    store = SqliteStore(path)
    try:
        store.set_account(DEMO.account, slot_limit=SLOTS, fee=FORMER_FEE)
        raised = False
        for time_us, command in steps:
            if not raised and time_us >= raised_us:
                raised = store.set_account(DEMO.account, slot_limit=None, fee=FEE)
            store.commit([command], time_us)
    finally:
        store.close()


def _steps(now_us: int, rng: random.Random) -> Iterator[tuple[int, Command]]:
    """Commands with the times at which they were given, in no order."""
    names = [f"{given} {family}" for given in GIVEN for family in FAMILY]
    rng.shuffle(names)
    for story in STORIES:
        for _ in range(story.passes):
            latest, earliest = story.days_ago
            ago_us = int((latest + (earliest - latest) * rng.random() ** 2) * DAY_US)
            yield from _story(story, now_us - ago_us, now_us, names.pop(), rng)


def _story(
    story: Story, start_us: int, now_us: int, name: str, rng: random.Random
) -> Iterator[tuple[int, Command]]:
    who = (DEMO.account, DEMO.name)
    pass_id = _uuid7(start_us // 1_000, rng)
    yield (
        start_us,
        Register(*who, new_uuid(), None, pass_id, story.validity_days, applicant_reference=name),
    )
    longest_us = (now_us - start_us - MINUTE_US) // (len(story.way) or 1)
    time_us = start_us
    for before, status in pairwise((Status.NEW, *story.way)):
        usual_us = rng.randint(2 * MINUTE_US, 20 * HOUR_US if before is Status.NEW else HOUR_US)
        time_us += max(int(min(usual_us, longest_us) * rng.uniform(0.3, 1)), 1)
        if status is Status.EXPIRED:
            yield start_us + story.validity_days * DAY_US, Expire(who[0], new_uuid(), pass_id)
        elif status is Status.CANCELLED:
            reason, note = rng.choice(WHY)
            yield time_us, Cancel(*who, new_uuid(), None, pass_id, reason, note)
        else:
            yield time_us, Advance(*who, new_uuid(), None, pass_id, status)


def _uuid7(time_ms: int, rng: random.Random) -> str:
    """A UUIDv7 of a given time (RFC 9562): lists are ordered by id."""
    value = time_ms << 80 | 0x7 << 76 | rng.getrandbits(12) << 64
    return str(uuid.UUID(int=value | 0x2 << 62 | rng.getrandbits(62)))
