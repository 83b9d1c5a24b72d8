"""Promises: the first commit wins; a retry gets the first answer; a fee is refunded at most once;
all or nothing; OK means that everyone sees it; watchers miss nothing.

Means: groups of 8 to 16 callers, each group with an account and few passes of its own, call all
methods of the real server at once over eight connections, with deadlines of 1 to 30 ms and calls
cancelled by their own callers; retries, request_ids used again, batches, supersedes; pages, totals
and streams are read meanwhile. Servers, workers and PostgreSQL's backends are killed; a primary is
lost, and its synchronous standby promoted. All that was seen is then explained, or is a fault:

* of each pass, one order is searched in which all calls on it could have been made one by one, as
  told by a model that shares no code with the server (kit/linear.py, kit/pass_rules.py);
* of each account, every call gets a place in the order of its events: in real time, so that who
  calls after an answer, over whatever connection and worker, is told of no earlier state; totals
  and pages are true at one place; nobody sees the half of one call's changes; every event has its
  call (kit/account_order.py);
* every stream has each event once, in order, and once all is quiet gets the rest while its own
  server answers forty calls or more, one after the other, but after a fault (kit/history_group.py).

A history is what was asked of one pass from its registration on: 25 to 30 calls on average.

Controls: one server breaks one promise in each account whose name says which (kit/untrue.py): a
receipt is not looked for, nor that a pass has ended; answers before commits; torn totals; a batch
in two transactions; an event missing in a stream; a watcher not woken, or its stream not ended; a
refund not due; reads that are 25 ms old, and 3 ms. Each is caught within the number of histories
that stands below.

Blind spots: all callers are on one machine and one clock; answers of less than about a millisecond
ago are not told apart. Nothing expires, no account is changed, nothing is purged or restored. Calls
without an answer may have any outcome, so a fault that only they meet is not seen. A watcher that
is not woken is told only if no other event follows before the next rest. The controls are on
SQLite. A primary is stopped before its standby is promoted: telling that it is lost, and keeping it
from coming back, is the operator's stack's part (see test_high_availability, which has the control
with asynchronous standbys).
"""

import asyncio
import itertools
import random
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

import pytest
import uvloop

from idpass_server.store.opening import migrate_store
from kit.history_group import Group
from kit.history_rounds import CALM, MOST_AT_ONCE, WAVES, Fault, Round, Tally, storm
from kit.paths import KIT
from kit.postgres import Postgres
from kit.proving import MINUTES, times
from kit.support import Process, problems, report

SEED: Final = random.getrandbits(32) if MINUTES > 3 else 14
HISTORIES: Final = times(120, 340) if MINUTES > 3 else 120
"""Number of histories on each store."""
FAILED_OVER: Final = times(30, 30)
"""Number of histories while primaries are lost."""
WORKERS: Final = "2"
CAUGHT_WITHIN: Final = {
    "receipt": 30,
    "terminal": 30,
    "early": 60,
    "torn": 60,
    "split": 240,
    "gap": 60,
    "asleep": 240,
    "endless": 60,
    "refund": 240,
    "stale25": 30,
    "stale3": 120,
}
"""Number of histories within which each control is caught."""
GROUPS: Final = 40
"""Number of accounts for each control."""
KILL_ONE: Final = """
    SELECT pg_terminate_backend(pid) FROM
        (SELECT pid FROM pg_stat_activity WHERE datname = %s ORDER BY random() LIMIT 1) AS one"""


class Untrue(Process):
    """A server with the controls."""

    command = (
        sys.executable,
        "-c",
        f"import sys; sys.path.insert(0, {str(KIT.parent)!r}); from kit.untrue import run; run()",
    )


def test_histories_on_sqlite(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    tally, draw = Tally(), random.Random(f"sqlite {SEED}")
    while tally.histories < HISTORIES and not tally.wrong:
        folder = _new_folder(tmp_path)
        _one_round(folder / "idpass.db", folder, tally, draw, _kill)
    _tell(request, f"SQLite, seed {SEED}: {tally}")
    assert tally.wrong == []


def test_histories_on_postgresql(
    tmp_path: Path,
    request: pytest.FixtureRequest,
    postgres: Postgres,
    postgres_databases: Callable[[], AbstractContextManager[str]],
) -> None:
    tally, draw = Tally(), random.Random(f"postgresql {SEED}")
    hurt = _hurt(postgres)
    while tally.histories < HISTORIES and not tally.wrong:
        with postgres_databases() as url:
            _one_round(url, _new_folder(tmp_path), tally, draw, hurt, "--workers", WORKERS)
    _tell(request, f"PostgreSQL, seed {SEED}: {tally}")
    assert tally.wrong == []


def test_histories_while_primaries_are_lost(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    tally, draw = Tally(), random.Random(f"failover {SEED}")
    with Postgres() as first:
        pair = Pair(first)
        while tally.histories < FAILED_OVER and not tally.wrong:
            folder = _new_folder(tmp_path)
            url, options = pair.new_database(), ("--workers", WORKERS)
            _one_round(url, folder, tally, draw, pair.lose_primary, *options, wanted=FAILED_OVER)
    _tell(request, f"PostgreSQL with a standby, seed {SEED}: {tally}")
    assert tally.wrong == []


class Pair:
    """A primary, and a synchronous standby that takes its place. Args: first: without a standby."""

    def __init__(self, first: Postgres) -> None:
        self._primary, self._standby = first, first.standby()
        self._numbers = itertools.count()

    def new_database(self) -> str:
        """Makes a database ready to be served. Returns the URL with which either serves it."""
        name = f"round{next(self._numbers)}"
        migrate_store(self._primary.create_database(name))
        return self._primary.url(name, self._standby)

    async def lose_primary(self, running: Round, draw: random.Random) -> None:
        """Stops the primary as a crash does, promotes the standby, and gives it a standby."""
        await asyncio.sleep(draw.uniform(0.02, 0.3))
        await running.meanwhile(self._fail_over)

    def _fail_over(self) -> None:
        lost, self._primary = self._primary, self._standby
        lost.stop("immediate")
        self._primary.promote()
        self._standby = self._primary.standby(port=lost.port)


async def _kill(running: Round, draw: random.Random) -> None:
    """Kills the server."""
    await asyncio.sleep(draw.uniform(0.02, 0.4))
    await running.kill()


def _hurt(postgres: Postgres) -> Fault:
    """Kills a worker, the server with all of them, or connections to the database."""

    async def hurt(running: Round, draw: random.Random) -> None:
        await asyncio.sleep(draw.uniform(0.02, 0.3))
        name = str(running.db).rpartition("/")[2]
        match draw.choice(["worker", "worker", "backends", "backend", "backend", "server"]):
            case "worker":
                await running.kill_worker(draw)
            case "backends":
                await running.meanwhile(lambda: postgres.kill_backends(name))
            case "backend":
                await running.meanwhile(lambda: postgres.execute(KILL_ONE, name))
            case _:
                await running.kill()

    return hurt


def test_every_control_is_caught(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    names = [f"{fault}-{at}" for fault in [*CAUGHT_WITHIN, "none"] for at in range(GROUPS)]
    running = Round(tmp_path / "idpass.db", tmp_path, names, server=Untrue)
    draw = random.Random(f"controls {SEED}")
    try:
        found = uvloop.run(_controls(running, draw))
    finally:
        running.end()
    told = ", ".join(f"{fault} {tally.histories}" for fault, tally in found.items())
    _tell(request, f"controls, and the histories until each was caught: {told}")
    assert found.pop("none").wrong == []
    late = {
        fault: tally.histories
        for fault, tally in found.items()
        if not tally.wrong or tally.histories > CAUGHT_WITHIN[fault]
    }
    assert late == {}


async def _controls(running: Round, draw: random.Random) -> dict[str, Tally]:
    """Looks at each control until it is caught, and at accounts of the same server without one."""
    found: dict[str, Tally] = {}
    async with running.surroundings() as around:
        for fault, most in [*CAUGHT_WITHIN.items(), ("none", 30)]:
            tally = found[fault] = Tally()
            for at in range(GROUPS):
                if tally.wrong or tally.histories >= most:
                    break
                shape = storm(draw) if at % 2 else CALM
                tally.add(await Group(around, f"{fault}-{at}", f"{draw.random()}", shape).run())
    return found


def _new_folder(inside: Path) -> Path:
    folder = inside / f"round{len(list(inside.iterdir()))}"
    folder.mkdir()
    return folder


def _one_round(
    db: Path | str,
    folder: Path,
    tally: Tally,
    draw: random.Random,
    fault: Fault,
    *options: str,
    wanted: int = HISTORIES,
) -> None:
    names = [f"group-{at}" for at in range(WAVES * MOST_AT_ONCE)]
    running = Round(db, folder, names, *options)
    try:
        uvloop.run(running.run(tally, wanted, draw, fault))
    finally:
        running.end()
    assert problems(db) == []


def _tell(request: pytest.FixtureRequest, line: str) -> None:
    report(request, "Histories", line)
