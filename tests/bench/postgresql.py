"""Measures the service on PostgreSQL: one worker and two, one hot account and a thousand.

Beside it stands pgbench, PostgreSQL's own client, running the same statements with a transaction
for each pass: the ordinary way, without a service around it and at its best. The database, the
servers and their callers share this machine. Compare figures of one run only, and best the ratios.
"""

import argparse
import asyncio
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

import uvloop
from tabulate import tabulate

from bench import machine
from bench.cpu import Usage, cpu_s, machine_s
from bench.load import Grpc, GrpcBatch, Round, counted
from bench.report import Goal, at_least, at_most, goals_table, spread, threads_table
from bench.sections import AT, BATCH, EMPTY, ratios
from bench.servers import audited_s, idpass_server, module
from bench.targets import Key, Measurable, Results, Served, Target, interleaved
from idpass_server.store.opening import migrate_store
from kit.guarded import caller
from kit.postgres import Postgres

RESULTS: Final = Path(__file__).with_name("results")
ACCOUNTS: Final = 1_000
IN_FLIGHT: Final = (1, 8, AT)
TUNING: Final = {"shared_buffers": "1GB", "max_wal_size": "4GB"}

ONE: Final = "CancelIdPass, 1 worker"
TWO: Final = "CancelIdPass, 2 workers"
SPREAD: Final = f"CancelIdPass, 1 worker, {ACCOUNTS:,} accounts"
PGBENCH_HOT: Final = "pgbench, one account"
BATCHES: Final = f"BatchCancelIdPasses of {BATCH}, 1 worker"

ID: Final = "('00000000-0000-7000-8000-' || lpad(to_hex({n}), 12, '0'))::uuid"
SEED: Final = f"""
    INSERT INTO accounts SELECT 'a' || n, 2147483647, 0, 'AUD', 4500000, 0, 0, 0
        FROM generate_series(0, %(accounts)s - 1) n;
    INSERT INTO passes SELECT 'a' || n %% %(accounts)s, {ID.format(n="n")}, 'new', 'AUD', 4500000,
        0, 'application-' || n, NULL, NULL, %(now_us)s, %(now_us)s, %(now_us)s + 604800000000,
        NULL, NULL, NULL, NULL, 'seed', n / %(accounts)s + 1
        FROM generate_series(0, %(passes)s - 1) n;
    INSERT INTO timers SELECT account, expire_time_us, id FROM passes;
    INSERT INTO events SELECT account, event_sequence, id, NULL, 'new', create_time_us, 'seed',
        gen_random_uuid()::text, 'd', id, 'AUD', 4500000, NULL, '', NULL FROM passes;
    UPDATE accounts SET slots_in_use = n, charged_micros = n * 4500000, last_sequence = n
        FROM (SELECT account, count(*) AS n FROM passes GROUP BY account) c WHERE name = account;
"""
_ID: Final = ID.format(n=":n::bigint")
PGBENCH: Final = f"""
\\set i :i + 1
\\set n :client_id + :i * :clients
\\set a :n % :accounts
BEGIN;
SELECT * FROM accounts WHERE name = 'a' || :a::text FOR UPDATE \\gset
SELECT * FROM passes WHERE account = 'a' || :a::text AND id = {_ID};
SELECT * FROM events WHERE account = 'a' || :a::text AND request_id = 'request-' || :n::text;
UPDATE passes SET status = 'cancelled', fee_refunded = 1, update_time_us = 1, end_time_us = 1,
    cancel_reason = 'abandoned', cancel_note = '', caller = 'pgbench',
    event_sequence = :last_sequence::bigint + 1
    WHERE account = 'a' || :a::text AND id = {_ID};
INSERT INTO events VALUES ('a' || :a::text, :last_sequence::bigint + 1, {_ID}, 'new',
    'cancelled', 1, 'pgbench', 'request-' || :n::text, 'd', {_ID}, 'AUD', NULL, 4500000,
    'abandoned', 1);
UPDATE accounts SET slots_in_use = slots_in_use - 1, refunded_micros = refunded_micros + 4500000,
    last_sequence = last_sequence + 1 WHERE name = 'a' || :a::text;
COMMIT;
"""


class Template(NamedTuple):
    """A database at rest, and the ids of its passes."""

    postgres: Postgres
    name: str
    in_flight: list[str]

    def copy(self, folder: Path, name: str) -> str:
        """Returns the URL of a database that is the same."""
        del folder  # it is the server's
        fresh = re.sub(r"\W", "_", name)
        self.postgres.execute(f'DROP DATABASE IF EXISTS "{fresh}" WITH (FORCE)')
        return self.postgres.create_database(fresh, self.name)


def pid_of(postgres: Postgres) -> int:
    return int((postgres.data / "postmaster.pid").read_text().split()[0])


def token_of(accounts: int) -> Callable[[str], str]:
    """The token of the caller of a pass's account."""
    return lambda id_: f"a{int(id_[24:], 16) % accounts}-token"


def seed(postgres: Postgres, passes: int, accounts: int) -> Template:
    name = f"seed_{accounts}"
    migrate_store(postgres.create_database(name))
    statements = SEED % {"accounts": accounts, "passes": passes, "now_us": time.time_ns() // 1_000}
    for statement in statements.split(";"):
        if statement.strip():
            postgres.execute(statement, database=name)
    postgres.execute("VACUUM ANALYZE", database=name)
    ids = [f"00000000-0000-7000-8000-{n:012x}" for n in range(passes)]
    return Template(postgres, name, ids)


class PgBench:
    """pgbench in the place of a server and its callers.

    Args:
        folder: for its script and what it logs.
        accounts: number of them in the template.
    """

    max_in_flight = AT

    def __init__(self, name: str, template: Template, folder: Path, accounts: int) -> None:
        self.name = name
        self._template = template
        self._folder = folder
        self._accounts = accounts

    async def round(self, in_flight: int, window_s: float) -> Round:
        return await asyncio.to_thread(self._round, in_flight, max(1, round(window_s)))

    def _round(self, in_flight: int, seconds: int) -> Round:
        url = self._template.copy(self._folder, "pgbench")
        script, log = self._folder / "cancel.sql", self._folder / "pgbench"
        script.write_text(PGBENCH)
        before, begun_s = self._used(), time.perf_counter()
        done = subprocess.run(
            [
                self._template.postgres._home._programs / "pgbench",
                *("-n", "-M", "prepared", "-f", script, "-l", "--log-prefix", log),
                *("-c", str(in_flight), "-j", "1", "-T", str(seconds)),
                *("-D", "i=-1", "-D", f"clients={in_flight}", "-D", f"accounts={self._accounts}"),
                url,
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"pgbench failed: {done.stderr}")
        time.sleep(0.2)  # until the time of its connections' processes is counted
        after, taken_s = self._used(), time.perf_counter() - begun_s
        latencies_s = []
        for file in self._folder.glob(f"{log.name}.*"):
            latencies_s += [int(line.split()[2]) / 1e6 for line in file.read_text().splitlines()]
            file.unlink()
        found = counted(latencies_s, 1, seconds, before, after)
        # It took longer than it called: it connects first.
        return found._replace(others_cores=(after.others_s - before.others_s) / taken_s)

    def _used(self) -> Usage:
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        return Usage(
            server_s=0.0,
            threads_s={},
            beside_s=cpu_s(pid_of(self._template.postgres)),
            callers_s=ended.ru_utime + ended.ru_stime + time.process_time(),
            machine_s=machine_s(),
        )


class Bench:
    """Args: folder: for callers files and logs; databases are PostgreSQL's."""

    def __init__(self, folder: Path, postgres: Postgres, arguments: argparse.Namespace) -> None:
        self._folder = folder
        self._postgres = postgres
        self._arguments = arguments
        self._served: list[Served] = []

    def serve(
        self, name: str, template: Template | None, command: Callable[[Any], list[str]]
    ) -> Served:
        served = Served(name, self._folder, template, command, beside_s=self._database_s)
        self._served.append(served)
        return served

    def _database_s(self) -> float:
        return cpu_s(pid_of(self._postgres))

    def callers(self, accounts: int) -> list[str]:
        """The options with which each account has a caller of its own."""
        file = self._folder / f"callers-{accounts}.toml"
        file.write_text("\n".join(caller(f"a{n}", f"a{n}") for n in range(accounts)))
        return ["--callers", str(file)]

    def stop(self) -> None:
        for served in self._served:
            served.stop()

    async def run(self) -> tuple[Results, list[Goal]]:
        arguments = self._arguments
        hot = seed(self._postgres, arguments.passes, 1)
        many = seed(self._postgres, arguments.passes, ACCOUNTS)
        everybody = self.callers(ACCOUNTS)
        one_caller = self.callers(1)

        def serving(*options: str) -> Callable[[Any], list[str]]:
            return lambda db: idpass_server(db, *options)

        one = self.serve("one", hot, serving(*one_caller))
        two = self.serve("two", hot, serving(*one_caller, "--workers", "2"))
        targets = [
            Target(EMPTY, self.serve("empty", None, lambda _db: module("empty_server")), Grpc()),
            Target(ONE, one, Grpc(token_of(1))),
            Target(TWO, two, Grpc(token_of(1))),
            Target(
                SPREAD, self.serve("spread", many, serving(*everybody)), Grpc(token_of(ACCOUNTS))
            ),
            Target(
                BATCHES,
                one,
                GrpcBatch(BATCH, token_of(1)),
                max_in_flight=AT,
                max_passes_per_s=20_000,
                window=1.5,
            ),
        ]
        lines: list[Measurable] = [
            *targets,
            PgBench(PGBENCH_HOT, hot, self._folder, 1),
            PgBench(f"pgbench, {ACCOUNTS:,} accounts", many, self._folder, ACCOUNTS),
        ]
        results: Results = {}
        for in_flight in IN_FLIGHT:
            results |= await interleaved(lines, in_flight, arguments.rounds, arguments.seconds)
            for target in targets:
                await target.close()
        audited = many.copy(self._folder, "audited")
        audit_s = await asyncio.to_thread(audited_s, audited)
        audit = at_most(f"audit of {arguments.passes:,} passes", audit_s, 20, "s")
        return results, [*self._goals(results), audit]

    @staticmethod
    def _goals(results: Results) -> list[Goal]:
        empty, one, many = (results[Key(name, AT)] for name in (EMPTY, ONE, SPREAD))
        batch = [each.passes_per_s for each in results[Key(BATCHES, AT)]]
        dearer = [100 * (1 - times) for times in ratios(one, many)]
        slower = ratios(results[Key(ONE, 1)], results[Key(PGBENCH_HOT, 1)], "p50_s")
        return [
            at_least(f"{ONE} / {EMPTY}, {AT} in flight", ratios(one, empty), 0.65, "x"),
            at_most(f"{ONE}, one caller: p50 / that of {PGBENCH_HOT}", slower, 1.4, "x"),
            at_least(f"{BATCHES}, {AT} in flight", batch, 8_000, "passes/s"),
            at_most(f"one hot account costs, against {ACCOUNTS:,}", dearer, 25, "%"),
        ]


def table(results: Results) -> str:
    rows: list[Sequence[object]] = []
    for (name, in_flight), rounds in results.items():
        times = statistics.median(ratios(rounds, results[Key(EMPTY, in_flight)]))
        rows.append(
            (
                in_flight,
                name,
                spread([one.passes_per_s for one in rounds], ",.0f"),
                "" if name == EMPTY else f"{times:.2f}",
                f"{_median(rounds, 'p50_s') * 1e3:.2f}",
                f"{_median(rounds, 'p99_s') * 1e3:.2f}",
                *(
                    f"{_median(rounds, f'{whose}_per_pass_s') * 1e6:,.0f}"
                    for whose in ("cpu", "beside", "callers")
                ),
            )
        )
    heads = ("in flight", "server", "passes/s", "x empty", "p50 ms", "p99 ms")
    cpu = ("server CPU µs/pass", "database CPU", "callers' CPU")
    return tabulate(
        rows,
        (*heads, *cpu),
        "github",
        disable_numparse=True,
        colalign=("right", "left", *["right"] * 7),
    )


def _median(rounds: Sequence[Round], field: str) -> float:
    return statistics.median(float(getattr(one, field)) for one in rounds)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few short rounds, for trying it")
    parser.add_argument("--seconds", type=float, help="length of a round (1.2; quick: 0.6)")
    parser.add_argument("--rounds", type=int, help="rounds of each kind (5; quick: 2)")
    parser.add_argument("--passes", type=int, default=200_000, help="in the database")
    arguments = parser.parse_args()
    arguments.rounds = arguments.rounds or (2 if arguments.quick else 5)
    arguments.seconds = arguments.seconds or (0.6 if arguments.quick else 1.2)
    return arguments


async def main(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(prefix="idpass-bench-") as name, Postgres() as postgres:
        folder = Path(name)
        for setting, value in TUNING.items():
            postgres.execute(f"ALTER SYSTEM SET {setting} = '{value}'")
        postgres.stop()
        postgres.start()
        (version,) = postgres.execute("SELECT version()")[0]
        told = [
            machine.describe(folder),
            machine.load(),
            f"{version.partition(' on ')[0]}, {', '.join(f'{k} = {v}' for k, v in TUNING.items())}",
            f"{arguments.rounds} rounds of {arguments.seconds} s, taken in turn: "
            "median (least to most)",
        ]
        print(*told, sep="\n", flush=True)
        bench = Bench(folder, postgres, arguments)
        try:
            results, goals = await bench.run()
        finally:
            bench.stop()
    found = [table(results), threads_table(results), goals_table(goals)]
    rounds = [one for each in results.values() for one in each]
    closing = ["\n\n".join(["", *found, machine.quietness(rounds)])]
    print(*closing, sep="\n")
    told += closing
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "postgresql.md").write_text("\n".join(told) + "\n")


if __name__ == "__main__":
    uvloop.run(main(_arguments()))
