"""Promise: with many processes on PostgreSQL nothing that was answered is lost, and nothing is done
twice.

Means: workers killed, their connections to the database cut, the database stopped without a
shutdown, its primary lost and a synchronous standby promoted, all under load; each answer is asked
for again. Four servers cancel the passes of one account, and four processes those of many, in
orders of their own: each pass is refunded once, each account's events have no gap, and there was no
deadlock. The audit is clean.

Blind spots: machines that lose power; whoever decides which primary is the right one (see
test_high_availability). It has no control of its own; that one has.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import grpc

from idpass_server.ids import new_uuid
from idpass_server.rules.commands import Register, Registered
from idpass_server.rules.records import Account
from idpass_server.store.opening import migrate_store
from idpass_server.store.postgres.store import PostgresStore
from kit.paths import KIT
from kit.postgres import Postgres
from kit.proving import times
from kit.support import Calls, Process, problems, process, set_slots, told
from kit.witness import Call, Witness, callers, check_at

KILLS = times(20, 10)
CUTS = times(10, 3)
CRASHES = times(4, 1)
FAILOVERS = times(1, 0.3)
WORKERS = 3
CALLERS = 6
ANSWERS = 40
"""How many calls are answered between two faults."""


class Run:
    """Servers under load, and what they have answered."""

    def __init__(self, server: Process, witness: Witness) -> None:
        self.server = server
        self._witness = witness
        self._made: list[Call] = []

    def wait(self) -> None:
        self._witness.wait_for_answers(ANSWERS)

    def check(self) -> None:
        """Everything answered since the last check is still true."""
        with self._witness.paused():
            made = self._witness.take()
            self._made += made
            check_at(self.server.address, made)

    def check_all(self) -> None:
        check_at(self.server.address, self._made + self._witness.take(), CALLERS)


@contextmanager
def under_load(url: str) -> Iterator[Run]:
    """In the end all answers are checked, and the database is audited."""
    witness = Witness(seed=1)
    with process(url, "--workers", str(WORKERS)) as server:
        set_slots(url, 1_000_000)
        run = Run(server, witness)
        with callers(server.address, witness, CALLERS):
            run.wait()
            yield run
            run.wait()
        run.check_all()
        server.signal()
        assert server.wait() == 0
    assert problems(url) == []


def test_killed_servers_lose_no_answer(postgres_db: str) -> None:
    chance = random.Random(1)
    with under_load(postgres_db) as run:
        for number in range(KILLS):
            run.wait()
            while not (workers := list(run.server.workers().values())):
                time.sleep(0.01)
            os.kill(chance.choice(workers), signal.SIGKILL)
            run.server.wait_for("worker_died", count=number + 1)
            run.check()


def test_cut_connections_to_the_database_lose_no_answer(
    postgres: Postgres, postgres_db: str
) -> None:
    name = postgres_db.rpartition("/")[2]
    with under_load(postgres_db) as run:
        for _ in range(CUTS):
            run.wait()
            assert postgres.kill_backends(name)
            run.check()


def test_a_crashed_database_loses_no_answer() -> None:
    with Postgres() as database:
        url = database.create_database("idpass")
        migrate_store(url)
        with under_load(url) as run:
            for _ in range(CRASHES):
                run.wait()
                database.stop("immediate")
                database.start()
                run.wait()
                run.check()


def test_a_lost_primary_with_a_synchronous_standby_loses_no_answer() -> None:
    with Postgres() as first:
        migrate_store(first.create_database("idpass"))
        primary, standby = first, first.standby()
        with under_load(primary.url("idpass", standby)) as run:
            for _ in range(FAILOVERS):
                run.wait()
                primary.stop("immediate")
                standby.promote()
                run.wait()
                run.check()
                primary, standby = standby, standby.standby(port=primary.port)


def deadlocks(postgres: Postgres, name: str) -> int:
    (row,) = postgres.execute("SELECT deadlocks FROM pg_stat_database WHERE datname = %s", name)
    return int(row[0])


def test_four_servers_on_one_account_refund_once(postgres: Postgres, postgres_db: str) -> None:
    set_slots(postgres_db, 1_000)
    passes = 150
    with ExitStack() as stack:
        servers = [stack.enter_context(process(postgres_db)) for _ in range(4)]
        ids = [servers[0].register().id_pass.id for _ in range(passes)]

        def cancel_all(calls: Calls, seed: int) -> Counter[str]:
            outcomes: Counter[str] = Counter()
            for pass_id in random.Random(seed).sample(ids, len(ids)):
                try:
                    assert calls.cancel(pass_id).fee_refunded
                    outcomes["refunded"] += 1
                except grpc.RpcError as error:
                    outcomes[told(error).reason] += 1
            return outcomes

        with ThreadPoolExecutor(8) as pool:
            outcomes = sum(pool.map(cancel_all, servers * 2, range(8)), Counter())
        assert outcomes == {"refunded": passes, "PASS_ALREADY_CANCELLED": passes * 7}
        account = servers[0].account()
        assert account.fees_refunded == account.fees_charged
        for server in servers:
            assert [event.sequence for event in server.events()] == list(range(1, 2 * passes + 1))
            server.signal()
            assert server.wait() == 0
    assert problems(postgres_db) == []
    assert deadlocks(postgres, postgres_db.rpartition("/")[2]) == 0


def test_four_processes_on_many_accounts_do_each_thing_once(
    postgres: Postgres, postgres_db: str
) -> None:
    accounts = [f"account-{number}" for number in range(30)]
    store = PostgresStore(postgres_db)
    passes: list[tuple[str, str]] = []
    for account in accounts:
        store.create_account(Account(account, 10_000, 0, "AUD", 4_500_000, 0, 0, 0))
        commands = [Register(account, "test", new_uuid(), None, new_uuid()) for _ in range(50)]
        for outcome in store.commit(commands, time.time_ns() // 1_000).outcomes:
            assert isinstance(outcome, Registered)
            passes.append((account, outcome.id_pass.id))
    command = [sys.executable, str(KIT / "hammer.py"), postgres_db]
    hammers = [
        subprocess.Popen(
            [*command, str(seed)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for seed in range(4)
    ]
    with ThreadPoolExecutor(4) as pool:
        said = list(pool.map(lambda each: each.communicate(json.dumps(passes))[0], hammers))
    done = [json.loads(each) for each in said]
    cancelled = Counter(pass_id for each in done for pass_id in each["cancelled"])
    assert cancelled == Counter(pass_id for _, pass_id in passes)
    assert all(each["cancelled"] for each in done)  # or they did not run at the same time
    assert all(each["registered"] == done[0]["registered"] for each in done)
    assert len(done[0]["registered"]) == len(passes)
    for account in accounts:
        found = store.get_account(account)
        assert found
        assert found.refunded_micros == found.charged_micros // 2
        sequences = [event.sequence for event in store.events(account, 0, 10_000)]
        assert sequences == list(range(1, 150 + 1))
    store.close()
    assert problems(postgres_db) == []
    assert deadlocks(postgres, postgres_db.rpartition("/")[2]) == 0
