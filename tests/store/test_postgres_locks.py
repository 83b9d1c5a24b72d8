"""One account's row locked by somebody else: its own calls wait, and no others."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import grpc
import psycopg
import pytest

from idpass_server.engine import busy
from idpass_server.ids import new_uuid
from idpass_server.rules.commands import Register, Registered
from idpass_server.rules.records import Account
from idpass_server.rules.refusals import AccountDisabled, StoreUnavailable
from idpass_server.store.postgres.store import PostgresStore
from idpass_server.store.postgres.writer import Writer
from kit.guarded import Guarded, caller
from kit.support import problems, refused

TABLES = caller("ann", "acme"), caller("bob", "beta")


def register(account: str) -> Register:
    return Register(account, "tests", new_uuid(), None, new_uuid())


@contextmanager
def locked(url: str, account: str) -> Iterator["psycopg.Connection[tuple[object, ...]]"]:
    """Somebody else's transaction that keeps an account's row locked."""
    with psycopg.connect(url) as connection:
        connection.execute("SELECT 1 FROM accounts WHERE name = %s FOR UPDATE", (account,))
        yield connection


@pytest.fixture
def guarded(tmp_path: Path, postgres_db: str) -> Iterator[Guarded]:
    running = Guarded(tmp_path, *TABLES, db=postgres_db)
    try:
        yield running
    finally:
        running.stop()
    assert problems(postgres_db) == []


def test_a_locked_account_holds_up_no_other(guarded: Guarded, postgres_db: str) -> None:
    ann, bob = guarded.with_token("ann-token"), guarded.with_token("bob-token")
    with ThreadPoolExecutor(20) as pool, locked(postgres_db, "acme"):
        waiting = [pool.submit(refused, ann.register) for _ in range(10)]
        while not all(call.done() for call in waiting):
            assert bob.register().id_pass.account == "beta"
        answers = [call.result() for call in waiting]
        # Still locked: those that come later are told at once, and the other account goes on.
        answers.append(refused(ann.register))
        assert bob.register().id_pass.account == "beta"
    assert {told.reason for told in answers} == {"STORE_UNAVAILABLE"}
    assert all("nothing was changed" in told.message for told in answers)
    assert ann.account().slots_in_use == 0
    assert ann.register().id_pass.account == "acme"


def test_a_call_is_carried_out_when_its_account_is_free_in_time(
    guarded: Guarded, postgres_db: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(busy, "WAIT_S", 60)
    ann, bob = guarded.with_token("ann-token"), guarded.with_token("bob-token")
    with ThreadPoolExecutor(1) as pool:
        with locked(postgres_db, "acme"):
            waiting = pool.submit(ann.register)
            while not guarded.server._engine._busy._seen:
                assert bob.register()
            assert not waiting.done()
        assert waiting.result(30).id_pass.account == "acme"
    assert [event.sequence for event in ann.events()] == [1]


def test_a_locked_account_is_waited_for_once(postgres_db: str) -> None:
    with closing(PostgresStore(postgres_db)) as store:
        store.create_account(Account("acme", 10, 0, "AUD", 1, 0, 0, 0))
        with locked(postgres_db, "acme"), pytest.MonkeyPatch.context() as patch:
            assert store.commit([register("acme")], 1).busy == {"acme"}
            # From here on a wait would end in an error.
            patch.setattr(Writer, "_worth_another", lambda *_, **__: False)
            assert not store.commit([register("demo")], 1).busy
            assert store.commit([register("acme"), register("demo")], 1).busy == {"acme"}
        assert not store.commit([register("acme")], 1).busy


def test_a_call_is_refused_before_its_deadline(guarded: Guarded, postgres_db: str) -> None:
    ann = guarded.with_token("ann-token")
    ann._options["timeout"] = busy.WAIT_S
    with locked(postgres_db, "acme"):
        told = refused(ann.register)
    assert told.code is grpc.StatusCode.UNAVAILABLE
    assert "nothing was changed" in told.message


def test_what_waits_is_answered_when_the_server_stops(tmp_path: Path, postgres_db: str) -> None:
    guarded = Guarded(tmp_path, *TABLES, db=postgres_db)
    ann = guarded.with_token("ann-token")
    try:
        with ThreadPoolExecutor(1) as pool, locked(postgres_db, "acme"):
            waiting = pool.submit(refused, ann.register)
            while not guarded.server._engine._busy._seen:
                pass
            guarded.loop.call_soon_threadsafe(guarded.server.stop)
            assert waiting.result(30).reason == "STORE_UNAVAILABLE"
    finally:
        guarded.stop()


def test_servers_that_share_accounts_go_on_beside_a_locked_one(
    tmp_path: Path, postgres_db: str
) -> None:
    """Neither starves the other of what they share, though they no longer queue for it."""
    folders = [tmp_path / name for name in ("one", "other")]
    for folder in folders:
        folder.mkdir()
    servers = [Guarded(folder, *TABLES, db=postgres_db) for folder in folders]
    try:
        with ThreadPoolExecutor(24) as pool, locked(postgres_db, "acme"):
            held = [
                pool.submit(refused, server.with_token("ann-token").register) for server in servers
            ]
            bobs = [server.with_token("bob-token") for server in servers]
            made = list(pool.map(lambda turn: bobs[turn % 2].register(), range(200)))
            assert all(call.result().reason == "STORE_UNAVAILABLE" for call in held)
        assert len({answer.id_pass.id for answer in made}) == 200
        assert bobs[0].account().slots_in_use == 200
    finally:
        for server in servers:
            server.stop()
    assert problems(postgres_db) == []


def test_the_sweeper_expires_the_passes_of_other_accounts(
    guarded: Guarded, postgres_db: str
) -> None:
    ann, bob = guarded.with_token("ann-token"), guarded.with_token("bob-token")
    for calls in (ann, bob):
        calls.register(link_validity_days=1)
    with locked(postgres_db, "acme"):
        guarded.time.advance(days=2)
        while bob.account().slots_in_use:
            pass
    assert bob.events()[-1].caller == "sweeper"


def test_a_deadlock_with_somebody_else_is_ended_by_going_on(postgres_db: str) -> None:
    with closing(PostgresStore(postgres_db)) as store:
        for name in ("a", "b"):
            assert store.create_account(Account(name, 10, 0, "AUD", 1, 0, 0, 0))
        commands = [register(name) for name in ("b", "a", "b")]
        with locked(postgres_db, "b") as other, ThreadPoolExecutor(1) as pool:
            committing = pool.submit(store.commit, commands, 1)
            # Waits until the store, which then holds a and wants b, has let go of a.
            other.execute("SET lock_timeout = '30s'")
            other.execute("SELECT 1 FROM accounts WHERE name = 'a' FOR UPDATE")
            other.commit()
            committed = committing.result(30)
        for command, outcome in zip(commands, committed.outcomes, strict=True):
            expected = StoreUnavailable if command.account in committed.busy else Registered
            assert isinstance(outcome, expected)
    assert problems(postgres_db) == []


def test_a_locked_account_leaves_the_others_their_own_outcomes(postgres_db: str) -> None:
    """One that was deleted is locked by nobody, and one that is free again is queued for again."""
    with closing(PostgresStore(postgres_db)) as store:
        for name in ("acme", "beta"):
            store.create_account(Account(name, 10, 0, "AUD", 1, 0, 0, 0))
        commands = [register(name) for name in ("beta", "acme", "gone", "demo", "acme", "beta")]
        with locked(postgres_db, "acme"):
            for _ in range(2):  # waiting for the lock, and known to be busy
                committed = store.commit(commands, 1)
                assert committed.busy == {"acme"}
                told = [
                    outcome.id_pass.account if isinstance(outcome, Registered) else type(outcome)
                    for outcome in committed.outcomes
                ]
                busy_ = StoreUnavailable
                assert told == ["beta", busy_, AccountDisabled, "demo", busy_, "beta"]
                commands = [each._replace(id=new_uuid()) for each in commands]
        assert not store.commit(commands, 1).busy
        assert store._writer._busy == set()
    assert problems(postgres_db) == []


def test_accounts_are_locked_in_the_order_of_their_names_and_shared_with_nobody(
    postgres_db: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("idpass_server.store.postgres.store.LOCK_WAIT_S", 60)
    with closing(PostgresStore(postgres_db)) as store:
        for name in ("a", "b"):
            assert store.create_account(Account(name, 10, 0, "AUD", 1, 0, 0, 0))
        with locked(postgres_db, "b") as other, ThreadPoolExecutor(1) as pool:
            pid = store._link.connection().info.backend_pid
            committing = pool.submit(store.commit, [register("b"), register("a")], 1)
            waits = "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'"
            with psycopg.connect(postgres_db, autocommit=True) as watching:
                while not watching.execute(waits, (pid,)).fetchone():
                    assert not committing.done()
                with pytest.raises(psycopg.errors.LockNotAvailable):
                    watching.execute("SELECT 1 FROM accounts WHERE name = 'a' FOR SHARE NOWAIT")
            other.rollback()
            committing.result(30)
