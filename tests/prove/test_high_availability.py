"""Nothing answered is lost and no event is skipped when PostgreSQL's primary changes, by each way
in: several hosts in the URL, HAProxy, PgBouncer.

A real stack (Patroni, etcd, three nodes, HAProxy, PgBouncer; see kit/patroni.py) on machines of its
own, under load, meets what operators meet. After each event every answer that was ever given is
looked up in the database, watchers are compared with it, and an audit runs. The longest time
without an answer is printed and held against the lease.

The control is the same stack with asynchronous replication: it loses answers, and this finds them.

Blind spots: all nodes share one kernel and one clock, so neither clocks that differ nor a fence
(watchdog, power switch) are tried; packets are dropped in both directions only; the disks are one.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Final, NamedTuple

import psycopg
import pytest

from idpass_server.store.opening import migrate_store
from kit import patroni
from kit.patroni import NODES, WAYS, Stack
from kit.proving import MINUTES
from kit.support import Process, problems, process, report, set_slots
from kit.watcher import Watcher
from kit.witness import Call, Witness, callers, check_at

TTL_S: Final = 20.0
"""The primary's lease in patroni.yml, seconds."""
AIM_S: Final = TTL_S + 3
"""What the time without an answer is compared with, seconds."""
BOUND_S: Final = 2 * TTL_S
"""Time without an answer, seconds, that no busy machine explains: something waits for what is
gone."""
ALL: Final = MINUTES >= 10
"""Whether every event takes place; else two."""
WORKERS: Final = 2
CALLERS: Final = 2
ANSWERS: Final = 20
"""How many calls are answered by each way in before and after an event."""
PAUSE_S: Final = 0.1
CHECKED_AGAIN: Final = 30
"""How many of the last calls of each way in are also made again, to get the same answers."""


class Way(NamedTuple):
    """A server that reaches the database by one way in, with its callers and a watcher."""

    name: str
    server: Process
    witness: Witness
    watcher: Watcher


class Drill:
    """A stack with a server for each way in, under load."""

    def __init__(self, stack: Stack, ways: list[Way]) -> None:
        self.stack = stack
        self.ways = ways
        self._made: list[Call] = []

    def answers(self) -> None:
        """Waits until calls have been answered by every way in."""
        for way in self.ways:
            try:
                way.witness.wait_for_answers(ANSWERS, patroni.WAIT_S)
            except AssertionError as error:
                error.add_note(f"{way.name}\n{self.stack.logs()}")
                raise

    def lost(self) -> list[Call]:
        """The answers ever given that the database does not know."""
        for way in self.ways:
            self._made += way.witness.take()
        with psycopg.connect(self.stack.url(WAYS[0]), connect_timeout=3) as connection:
            rows = connection.execute("SELECT request_id, reference::text FROM events").fetchall()
        stored: dict[str, str] = dict(rows)
        return [
            call
            for call in self._made
            if call.answer and stored.get(call.fields["request_id"]) != call.answer.reference
        ]

    def check(self) -> None:
        """Nothing was lost, nothing skipped, and the database is sound."""
        with ExitStack() as quiet:
            for way in self.ways:
                quiet.enter_context(way.witness.paused())
            made = len(self._made)
            assert self.lost() == []
            check_at(self.ways[0].server.address, self._made[made:][-CHECKED_AGAIN:])
            (server, *_) = (way.server for way in self.ways)
            events = server.events()
            for way in self.ways:
                way.watcher.wait_for(events[-1].sequence)
                assert way.watcher.skipped == 0
                assert way.watcher.seen[: len(events)] == events
        assert problems(self.stack.url(WAYS[0])) == []


@contextmanager
def drilled(names: Sequence[str] = WAYS, *, synchronous: bool = True) -> Iterator[Drill]:
    """A stack with a server for each of some ways in."""
    if reason := patroni.missing():
        pytest.skip(reason)
    with ExitStack() as opened:
        stack = opened.enter_context(Stack(synchronous=synchronous))
        migrate_store(stack.url(WAYS[0]))
        ways: list[Way] = []
        for number, name in enumerate(names):
            url = stack.url(name)
            server = opened.enter_context(process(url, "--workers", str(WORKERS)))
            if not ways:
                set_slots(url, 1_000_000)
            witness = Witness(number, PAUSE_S, may_lose=not synchronous)
            watcher = opened.enter_context(Watcher(server.address))
            ways.append(Way(name, server, witness, watcher))
        for way in ways:
            opened.enter_context(callers(way.server.address, way.witness, CALLERS))
        yield Drill(stack, ways)


@pytest.fixture(scope="module")
def drill() -> Iterator[Drill]:
    with drilled() as made:
        yield made


# What happens; each ends, for what lasts, when answers come again by every way in.


@contextmanager
def switchover(drill: Drill) -> Iterator[None]:
    stack = drill.stack
    stack.patronictl("switchover", "idpass", "--candidate", stack.standby(), "--force")
    yield


@contextmanager
def switchover_and_workers_killed(drill: Drill) -> Iterator[None]:
    with switchover(drill):
        for way in drill.ways:
            os.kill(next(iter(way.server.workers().values())), signal.SIGKILL)
        yield


@contextmanager
def primary_killed(drill: Drill) -> Iterator[None]:
    drill.stack.signal_postgres(drill.stack.primary(), signal.SIGKILL)
    yield


@contextmanager
def machine_lost(drill: Drill) -> Iterator[None]:
    stack, old = drill.stack, drill.stack.primary()
    stack.kill(old)
    stack.signal_postgres(old, signal.SIGKILL)
    stack.primary(old)
    yield
    stack.start(old)


@contextmanager
def primary_cut_off(drill: Drill) -> Iterator[None]:
    stack, old = drill.stack, drill.stack.primary()
    stack.network.cut(NODES[old])
    stack.primary(old)
    yield
    stack.network.heal()


@contextmanager
def primary_hung(drill: Drill) -> Iterator[None]:
    stack, old = drill.stack, drill.stack.primary()
    stack.signal_postgres(old, signal.SIGSTOP)
    stack.primary(old)
    yield
    stack.signal_postgres(old, signal.SIGCONT)


@contextmanager
def patroni_killed(drill: Drill) -> Iterator[None]:
    stack, old = drill.stack, drill.stack.primary()
    stack.kill(old)
    stack.primary(old)
    yield
    stack.start(old)


@contextmanager
def standby_cut_off(drill: Drill) -> Iterator[None]:
    stack, standby = drill.stack, drill.stack.standby()
    stack.network.cut(NODES[standby])
    stack.wait(lambda: stack.standby() != standby)
    yield
    stack.network.heal()


@contextmanager
def etcd_away(drill: Drill) -> Iterator[None]:
    drill.stack.signal_etcd(signal.SIGSTOP)
    until_s = time.monotonic() + 1.5 * TTL_S
    while time.monotonic() < until_s:
        drill.answers()
    yield
    drill.stack.signal_etcd(signal.SIGCONT)


@contextmanager
def poolers_restarted(drill: Drill) -> Iterator[None]:
    drill.stack.kill("haproxy")
    drill.stack.kill("pgbouncer")
    drill.stack.start("haproxy")
    yield


SHORT: Final = (switchover, primary_killed)
LONG: Final = (
    switchover_and_workers_killed,
    machine_lost,
    primary_cut_off,
    primary_hung,
    patroni_killed,
    standby_cut_off,
    etcd_away,
    poolers_restarted,
)


@pytest.mark.parametrize("event", SHORT + LONG if ALL else SHORT)
def test_no_answer_is_lost_and_no_event_skipped(
    drill: Drill,
    event: Callable[[Drill], AbstractContextManager[None]],
    request: pytest.FixtureRequest,
) -> None:
    drill.stack.wait_until_settled()
    drill.answers()
    for way in drill.ways:
        way.witness.silence()
    with event(drill):
        drill.answers()
        silences = {way.name: way.witness.silence() for way in drill.ways}
    told = ", ".join(
        f"{silence:.1f} s ({name}{'' if silence <= AIM_S else f', more than {AIM_S:g} s'})"
        for name, silence in silences.items()
    )
    report(request, "without an answer", f"{event.__name__.replace('_', ' ')}: {told}")
    drill.stack.wait_until_settled()
    drill.answers()
    drill.check()
    for name, silence in silences.items():
        assert silence <= BOUND_S, name


def test_asynchronous_standbys_lose_answers_and_it_is_found() -> None:
    with drilled(WAYS[:1], synchronous=False) as drill:
        stack, old = drill.stack, drill.stack.primary()
        drill.answers()
        assert drill.lost() == []
        stack.network.cut(NODES[old], *(number for name, number in NODES.items() if name != old))
        drill.answers()
        stack.kill(old)
        stack.signal_postgres(old, signal.SIGKILL)
        stack.end_lease()
        stack.primary(old)
        drill.answers()
        assert drill.lost()
