"""The tests' own PostgreSQL does what tests rely on it for."""

import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest

from kit.paths import KIT
from kit.postgres import Postgres

STARTS_AND_WAITS = """
from kit.postgres import Postgres
server = Postgres()
server.standby()
print(server.data.parent.parent, server.url(), flush=True)
input()
"""


@pytest.mark.long
def test_a_promoted_synchronous_standby_has_what_was_committed() -> None:
    with Postgres() as primary:
        primary.execute("CREATE TABLE rows (number int PRIMARY KEY)")
        first = primary.standby()
        primary.execute("INSERT INTO rows VALUES (1)")
        primary.stop("immediate")
        first.promote()
        second = first.standby()
        first.execute("INSERT INTO rows VALUES (2)")
        first.stop("immediate")
        second.promote()
        with psycopg.connect(primary.url("postgres", first, second)) as connection:
            assert connection.info.port == second.port
            assert connection.execute("SELECT * FROM rows").fetchall() == [(1,), (2,)]


def test_a_crash_loses_nothing_and_a_killed_connection_is_noticed(
    postgres: Postgres, postgres_url: str
) -> None:
    name = postgres_url.rpartition("/")[2]
    postgres.execute("CREATE TABLE rows (number int)", database=name)
    postgres.execute("INSERT INTO rows VALUES (1)", database=name)
    postgres.stop("immediate")
    postgres.start()
    assert postgres.execute("SELECT * FROM rows", database=name) == [(1,)]
    with psycopg.connect(postgres_url) as connection:
        assert postgres.kill_backends(name) == 1
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")


def test_nothing_is_left_when_the_tests_are_killed() -> None:
    tests = subprocess.Popen(
        [sys.executable, "-c", STARTS_AND_WAITS],
        cwd=KIT.parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert tests.stdout
    folder, url = tests.stdout.readline().split()
    tests.kill()
    tests.communicate()
    patience = time.monotonic() + 30
    while Path(folder).exists() and time.monotonic() < patience:
        time.sleep(0.05)
    assert not Path(folder).exists()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url)
