"""Promise: OK means on disk, all or nothing, and a retry gets the first answer; whatever process is
killed, at whatever instant, there is no repair step.

Means: SIGKILL, a third of them by the clock, the others before a chosen call to the system (a
write, a sync, a message sent or received; kit/logged_disk.c): of the server on SQLite while it
makes its database, starts, serves and stops; of the server on PostgreSQL; of PostgreSQL's
processes, after each of which it recovers from its WAL; of the gateway; of workers, one or all, and
of their supervisor. Callers outside register, move, supersede and cancel meanwhile, and keep a
ledger. After each kill and restart every answer since the kill before, and some older ones, is
given again with its reference; every call without an answer has one outcome; the account's events,
slots, charges and refunds are what the ledger adds up to; and the audit is clean.

Controls, each caught within CAUGHT_WITHIN kills: an answer before its commit; a store that forgets
receipts as it starts; a batch in several transactions; on PostgreSQL, a connection lost at COMMIT
that is taken for a commit.

Blind spots: servers, gateways and supervisors are forks of a process that has loaded the program,
or hundreds of kills would be minutes of imports, so that nothing is killed while it imports;
workers are started as ever. PostgreSQL's postmaster is not killed, nor what recovers its WAL (see
test_postgres_durability for its crash). Of PostgreSQL the calls are those for its WAL and its
connections. A process that is killed leaves the kernel's memory alone: see test_power_cuts for what
a machine takes with it. Webhooks: test_webhook_kills; operators' commands: test_restore_cuts,
test_retention.
"""

import contextlib
import os
import signal
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import pytest

from kit.children import all_ended, children, runs
from kit.crashing import Crashing, crashing
from kit.forked import Forks
from kit.json_calls import OverHttp
from kit.killed import Servers
from kit.killing import CLOCK, MOST_ANSWERS, Drill, Kill, Target
from kit.proving import seed_for, times
from kit.serving import Program, Serving, url_of
from kit.support import eventually, report
from kit.witness import Witness

WORKERS = 2
START_S, STOP_S = 1.5, 0.2
"""Longest time from the start and from SIGTERM to a kill of a supervisor, seconds."""
KILLS = {
    "sqlite": times(195, 65),
    "postgresql": times(30, 10),
    "backends": times(40, 13.4),
    "gateway": times(30, 10),
    "workers": times(3, 1),
    "supervisors": times(2, 0.6),
}
"""Number of kills: 300, and 10,000 with PROVE_MINUTES=100. A worker's start costs the most."""
SEED = seed_for(14)
CAUGHT_WITHIN = 100
WIRE = {"sendmsg": 20, "recvmsg": 30}
DATABASE = {"send": 25, "recv": 40}
"""Messages to and from PostgreSQL."""
SQLITE = {
    "creation": {"open": 9, "pwrite": 30, "sync": 20, "sync_folder": 5, "mmap": 1, "change": 60},
    "start": {"open": 8, "pread": 10, "pwrite": 20, "sync": 3, "mmap": 1, "change": 20},
    "load": {"pwrite": 25, "sync": 6, "change": 40} | WIRE,
    "stop": {"change": 8, "sync": 2, "unlink": 1, "sendmsg": 4},
}
"""The first of each call before which a server is killed, by what goes on."""
POSTGRESQL = {"start": DATABASE, "load": DATABASE | WIRE, "stop": {"send": 4, "sendmsg": 4}}
BACKENDS = {"pwrite": 10, "sync": 10, "send": 25, "recv": 50}
GATEWAY = {"load": WIRE}
WORKER = {"load": DATABASE | WIRE}
WEIGHTS = {"creation": 1, "start": 4, "load": 4, "stop": 1}


def plan(drill: Drill, calls: dict[str, dict[str, int]]) -> Kill:
    return drill.plan(calls, {when: WEIGHTS[when] for when in calls})


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    with Forks(tmp_path_factory.mktemp("forks")) as source:
        yield source


def tell(request: pytest.FixtureRequest, title: str, drill: Drill) -> None:
    first = f"; the first: {drill.bad[0]:.300}" if drill.bad else ""
    report(request, "Kills", f"{title}: {drill}; seed {SEED}{first}")


def test_a_server_on_sqlite_killed_at_any_instant_keeps_every_answer(
    request: pytest.FixtureRequest, forks: Forks
) -> None:
    servers = Servers(forks, SEED)
    while servers.drill.kills.total() < KILLS["sqlite"]:
        servers.kill(plan(servers.drill, SQLITE))
    servers.check()
    tell(request, "server on SQLite", servers.drill)
    assert not servers.drill.bad


def test_a_server_on_postgresql_killed_at_any_instant_keeps_every_answer(
    request: pytest.FixtureRequest, forks: Forks, postgres_db: str
) -> None:
    servers = Servers(forks, SEED, url=postgres_db)
    while servers.drill.kills.total() < KILLS["postgresql"]:
        servers.kill(plan(servers.drill, POSTGRESQL))
    servers.check()
    tell(request, "server on PostgreSQL", servers.drill)
    assert not servers.drill.bad


ANSWERED_FIRST = """
from idpass_server.store.sqlite.store import SqliteStore

def after_the_last(method):
    def run(self, *arguments, **named):
        if self._writer.in_transaction:
            commit(self)
        return method(self, *arguments, **named)
    return run

commit = SqliteStore._commit
SqliteStore._commit = lambda self: None
for name in ("commit", "check", "_transaction", "_operate"):
    setattr(SqliteStore, name, after_the_last(getattr(SqliteStore, name)))
"""
"""Commits a batch, which is answered by then, as the next one comes."""
FORGETFUL = """
from idpass_server.store.sqlite import opening
settle = opening.settle
def forget(connection, names):
    settle(connection, names)
    if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'events'").fetchone():
        connection.execute("UPDATE events SET request_id = NULL")
opening.settle = forget
"""
TORN = """
import json
from idpass_server.store.sqlite import store
def save(self, batch):
    for name, values in store.rows.written(batch):
        self._writer.execute(store.sql.SAVE, (json.dumps({name: values}),))
        self._writer.execute("COMMIT")
        self._writer.execute("BEGIN IMMEDIATE")
store.SqliteStore._save = save
"""
CONTROLS = {
    "answered before its commit": ANSWERED_FIRST,
    "receipts forgotten at the start": FORGETFUL,
    "a batch in several transactions": TORN,
}


@pytest.mark.parametrize("control", CONTROLS)
def test_a_promise_taken_out_is_missed(
    request: pytest.FixtureRequest, forks: Forks, control: str
) -> None:
    servers = Servers(forks, SEED, patch=CONTROLS[control])
    while not untrue(servers.drill) and servers.drill.kills.total() < CAUGHT_WITHIN:
        servers.kill(plan(servers.drill, {"load": SQLITE["load"]}))
    tell(request, f"control, {control}", servers.drill)
    assert untrue(servers.drill)


def untrue(drill: Drill) -> list[str]:
    """What was found wrong, less callers that waited in vain."""
    return [each for each in drill.bad if not each.startswith("AssertionError")]


@pytest.fixture(scope="module")
def database() -> Iterator[Crashing]:
    with crashing() as running:
        yield running


def test_processes_of_postgresql_killed_at_any_instant_lose_no_answer(
    request: pytest.FixtureRequest, forks: Forks, database: Crashing
) -> None:
    drill = Drill(database.new_database("kills"), SEED)
    database.kill(forks, drill, BACKENDS, KILLS["backends"])
    tell(request, "processes of PostgreSQL", drill)
    assert not drill.bad


TAKEN_FOR_DONE = """
from idpass_server.store.postgres.writer import Writer
Writer._settle = lambda self, asked, unknown, give_up_s: unknown.unsettled.committed
"""


def test_a_lost_connection_taken_for_a_commit_is_missed(
    request: pytest.FixtureRequest, forks: Forks, database: Crashing
) -> None:
    drill = Drill(database.new_database("control"), SEED)
    database.kill(forks, drill, BACKENDS, CAUGHT_WITHIN, patch=TAKEN_FOR_DONE)
    tell(request, "control, a lost connection taken for a commit", drill)
    assert drill.bad


def test_a_gateway_killed_at_any_instant_changes_no_answer(
    tmp_path: Path, request: pytest.FixtureRequest, forks: Forks
) -> None:
    url = url_of(tmp_path / "idpass.db")
    drill = Drill(url, SEED, OverHttp())
    service = Program(forks.start("serve", "--db", url, *Serving.defaults))
    try:
        address = service.wait_for("serving")["listen"]
        while drill.kills.total() < KILLS["gateway"]:
            with gateway_to(address, forks) as gateway:
                http = gateway.wait_for("gateway")["http"]
                drill.check(address, given_by=http)
                kill, process = plan(drill, GATEWAY), gateway.process
                target = Target(process.kill, partial(ended, gateway), process.pid)
                drill.load(
                    http, partial(drill.strike, kill=kill, target=target, faults=forks.faults)
                )
                assert gateway.wait() == -signal.SIGKILL
        with gateway_to(address, forks) as gateway:
            http = gateway.wait_for("gateway")["http"]
            drill.check(address, given_by=http, everything=True)
    finally:
        service.end()
    tell(request, "gateway", drill)
    assert not drill.bad


@contextlib.contextmanager
def gateway_to(address: str, forks: Forks) -> Iterator[Program]:
    program = Program(forks.start("gateway", "--target", address, "--http", "127.0.0.1:0"))
    try:
        yield program
    finally:
        program.end()


def ended(program: Program) -> bool:
    return program.process.poll() is not None


def test_workers_killed_at_any_instant_lose_no_answer(
    request: pytest.FixtureRequest, forks: Forks, postgres_db: str
) -> None:
    drill = Drill(postgres_db, SEED)
    with supervised(forks, postgres_db) as program:
        address = program.wait_for("serving")["listen"]
        drill.check(address)
        while drill.kills.total() < KILLS["workers"]:
            workers = all_serve(program)
            chosen = drill.draw.choice(workers)
            victims = workers if drill.draw.random() < 0.2 else [chosen]
            target = Target(partial(kill_all, victims), partial(all_ended, [chosen]), chosen)
            kill = plan(drill, WORKER)
            strike = partial(drill.strike, kill=kill, target=target, faults=forks.faults)
            drill.load(address, strike)
            kill_all(victims)  # the chosen one alone has met a call
            eventually(partial(all_ended, victims))
            drill.check(address)
        drill.check(address, everything=True)
        all_serve(program)  # one that is told to stop while it starts ends as a fault
        program.signal()
        assert program.wait() == 0
    died = Counter(line["signal"] for line in program.log if line["event"] == "worker_died")
    tell(request, f"workers on PostgreSQL, {dict(died)}", drill)
    assert set(died) == {"SIGKILL"}
    assert not drill.bad


def test_a_supervisor_killed_at_any_instant_loses_no_answer(
    request: pytest.FixtureRequest, forks: Forks, postgres_db: str
) -> None:
    drill = Drill(postgres_db, SEED)
    while drill.kills.total() < KILLS["supervisors"]:
        with supervised(forks, postgres_db) as program:
            kill = Kill(drill.draw.choice(("start", "load", "load", "stop")), CLOCK)
            if kill.when == "start":
                time.sleep(drill.draw.random() * START_S)
                kill_family(drill, program, kill)
            else:
                address = program.wait_for("serving")["listen"]
                drill.check(address)
                drill.load(address, partial(strike_family, drill, program, kill))
    with supervised(forks, postgres_db) as program:
        drill.check(program.wait_for("serving")["listen"], everything=True)
        program.signal()
        assert program.wait() == 0
    tell(request, "supervisor on PostgreSQL", drill)
    assert not drill.bad


@contextlib.contextmanager
def supervised(forks: Forks, url: str) -> Iterator[Program]:
    """A supervisor with its workers, which end with it."""
    arguments = ("serve", "--db", url, *Serving.defaults, "--workers", str(WORKERS))
    program = Program(forks.start(*arguments))
    try:
        yield program
    finally:
        program.end()


def all_serve(program: Program) -> list[int]:
    """The process ids of all workers, once they serve."""
    eventually(lambda: sum(map(runs, program.workers().values())) == WORKERS)
    return list(program.workers().values())


def kill_all(pids: Iterable[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def strike_family(drill: Drill, program: Program, kill: Kill, witness: Witness) -> None:
    """Kills a supervisor under load, or as it stops."""
    witness.wait_for_answers(drill.draw.randint(1, MOST_ANSWERS))
    if kill.when == "stop":
        program.signal()
        time.sleep(drill.draw.random() * STOP_S)
    kill_family(drill, program, kill)


def kill_family(drill: Drill, program: Program, kill: Kill) -> None:
    """Kills a supervisor, whose workers then end by themselves."""
    workers = children(program.process.pid)
    program.process.kill()
    if program.wait() == -signal.SIGKILL:  # else it had stopped before
        drill.count(kill)
    eventually(partial(all_ended, workers))
