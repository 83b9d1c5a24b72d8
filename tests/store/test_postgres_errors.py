"""What PostgreSQL answers to COMMIT, code by code, and what becomes of the batch then.

A deferred trigger answers in its place: its error ends the transaction, its warning does not.
"""

from collections.abc import Callable
from contextlib import closing

import psycopg
import pytest

from idpass_server.ids import new_uuid
from idpass_server.rules.commands import Register, Registered
from idpass_server.rules.refusals import StoreUnavailable
from idpass_server.store import StoreBroken
from idpass_server.store.observing import StoreObserver
from idpass_server.store.postgres.store import PostgresStore
from kit.support import problems

NOW_US = 1_790_000_000_000_000


class Settled(StoreObserver):
    """Notes how outcomes that were unknown were settled."""

    def __init__(self) -> None:
        self.how: list[str] = []

    def settled(self, how: str) -> None:
        self.how.append(how)


def register() -> Register:
    return Register("demo", "tests", new_uuid(), "once", new_uuid())


@pytest.fixture
def first_commit(postgres_db: str) -> Callable[[str], None]:
    """Has the first COMMIT that stores an event raise something."""

    def raises(what: str) -> None:
        with psycopg.connect(postgres_db) as connection:
            connection.execute(
                f"""
                CREATE SEQUENCE commits;
                CREATE FUNCTION answer() RETURNS trigger LANGUAGE plpgsql AS $$
                BEGIN
                    IF nextval('commits') = 1 THEN RAISE {what}; END IF;
                    RETURN NULL;
                END $$;
                CREATE CONSTRAINT TRIGGER answer AFTER INSERT ON events
                    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION answer();
                """
            )

    return raises


@pytest.mark.parametrize(
    ("what", "settled"),
    [
        ("SQLSTATE '40001'", []),  # serialisation failure
        ("SQLSTATE '40P01'", []),  # deadlock
        ("SQLSTATE '40003'", ["run_again"]),  # statement completion unknown
        ("SQLSTATE '08007'", ["run_again"]),  # transaction resolution unknown
        ("WARNING 'cancelled while it waited for a standby'", ["stored"]),
    ],
)
def test_a_commit_that_may_be_tried_again_ends_with_the_true_answer(
    first_commit: Callable[[str], None], postgres_db: str, what: str, settled: list[str]
) -> None:
    first_commit(what)
    observer = Settled()
    with closing(PostgresStore(postgres_db, observer)) as store:
        (outcome,) = store.commit([register()], NOW_US).outcomes
        assert isinstance(outcome, Registered)
        assert not outcome.replayed
        account = store.get_account("demo")
        assert account is not None
        assert (account.slots_in_use, account.last_sequence) == (1, 1)
    assert observer.how == settled
    assert problems(postgres_db) == []


@pytest.mark.parametrize(
    ("what", "error", "told"),
    [
        ("SQLSTATE '53100'", StoreUnavailable, "disk is full; nothing was changed"),
        ("SQLSTATE '57014'", StoreUnavailable, "took too long; nothing was changed"),
        ("SQLSTATE 'XX001'", StoreBroken, "the database is damaged"),
        ("SQLSTATE 'XX002'", StoreBroken, "the database is damaged"),
        ("SQLSTATE '58030'", StoreBroken, "the database is damaged"),
        ("SQLSTATE '22012'", psycopg.Error, "division by zero|22012"),  # a bug of ours
    ],
)
def test_a_commit_that_fails_changes_nothing_and_the_next_one_is_tried(
    first_commit: Callable[[str], None],
    postgres_db: str,
    what: str,
    error: type[Exception],
    told: str,
) -> None:
    first_commit(what)
    with closing(PostgresStore(postgres_db)) as store:
        with pytest.raises(error, match=told):
            store.commit([register()], NOW_US)
        (outcome,) = store.commit([register()], NOW_US).outcomes
        assert isinstance(outcome, Registered)
        assert not outcome.replayed
    assert problems(postgres_db) == []


def test_whatever_a_session_waits_for_has_a_bound(postgres_db: str) -> None:
    """Or a process that hangs would keep its accounts locked for good."""
    names = ["lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout"]
    query = "SELECT setting::bigint FROM pg_settings WHERE name = ANY(%s)"
    with closing(PostgresStore(postgres_db)) as store:
        for link in (store._link, store._reader):
            rows = link.connection().execute(query, (names,)).fetchall()
            assert len(rows) == len(names)
            assert all(0 < milliseconds <= 10_000 for (milliseconds,) in rows)
