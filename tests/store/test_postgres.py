"""What is PostgreSQL's own: its schema, its errors, and a connection that is lost at COMMIT."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import psycopg
import pytest

from idpass_server.ids import new_uuid
from idpass_server.rules.commands import Cancel, Cancelled, Register, Registered
from idpass_server.rules.refusals import PassEnded, StoreUnavailable
from idpass_server.store import CannotOpen
from idpass_server.store.opening import migrate_store
from idpass_server.store.postgres import schema as postgres_schema
from idpass_server.store.postgres import session as postgres_session
from idpass_server.store.postgres import transaction as postgres_transaction
from idpass_server.store.postgres import writer as postgres_writer
from idpass_server.store.postgres.store import PostgresStore
from kit.commit_cutter import CommitCutter, Cut
from kit.postgres import Postgres
from kit.support import Service, cli, problems, process, refused

NOW_US = time.time_ns() // 1000


def register(account: str = "demo", request_id: str | None = None) -> Register:
    return Register(account, "tests", new_uuid(), request_id, new_uuid())


def cancel(pass_id: str, account: str = "demo", request_id: str | None = None) -> Cancel:
    return Cancel(account, "tests", new_uuid(), request_id, pass_id)


def database(url: str) -> str:
    return url.rpartition("/")[2].partition("?")[0]


@pytest.fixture
def store(postgres_db: str) -> Iterator[PostgresStore]:
    with closing(PostgresStore(postgres_db)) as opened:
        yield opened


@pytest.fixture
def cutter(postgres_db: str) -> Iterator[CommitCutter]:
    with closing(CommitCutter(postgres_db)) as proxy:
        yield proxy


def new_pass(store: PostgresStore, account: str = "demo") -> str:
    (outcome,) = store.commit([register(account)], NOW_US).outcomes
    assert isinstance(outcome, Registered)
    return outcome.id_pass.id


# -- the connection is lost at COMMIT


@pytest.mark.parametrize("request_id", [None, "once"])
@pytest.mark.parametrize("cuts", [[Cut.BEFORE], [Cut.DURING], [Cut.AFTER], [Cut.AFTER, Cut.BEFORE]])
def test_a_connection_lost_at_commit_is_settled_to_the_true_answer(
    cutter: CommitCutter, postgres_db: str, cuts: list[Cut], request_id: str | None
) -> None:
    with closing(PostgresStore(cutter.url)) as store:
        pass_id = new_pass(store)
        cutter.cuts.extend(cuts)
        (outcome,) = store.commit([cancel(pass_id, request_id=request_id)], NOW_US).outcomes
        assert isinstance(outcome, Cancelled)
        assert (outcome.event.refund_micros, outcome.replayed) == (4_500_000, False)
        account = store.get_account("demo")
        assert account is not None
        assert (account.refunded_micros, account.last_sequence) == (4_500_000, 2)
    assert problems(postgres_db) == []


def test_a_batch_that_is_decided_anew_meets_what_happened_meanwhile(
    cutter: CommitCutter, store: PostgresStore
) -> None:
    pass_id = new_pass(store)
    with closing(PostgresStore(cutter.url)) as other:
        load = postgres_transaction.load
        loads = 0

        def load_late(*args: object) -> object:
            nonlocal loads
            loads += 1
            if loads == 2:  # between the commit that was lost and the next attempt
                store.commit([cancel(pass_id)], NOW_US)
            return load(*args)  # type: ignore[arg-type]

        cutter.cuts.append(Cut.BEFORE)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(postgres_transaction, "load", load_late)
            (outcome,) = other.commit([cancel(pass_id)], NOW_US).outcomes
    assert isinstance(outcome, PassEnded)


def test_a_commit_whose_outcome_cannot_be_learnt_is_told_so(
    cutter: CommitCutter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_writer, "SETTLE_S", 0.5)
    with closing(PostgresStore(cutter.url)) as store:
        pass_id = new_pass(store)
        cutter.cuts.append(Cut.AFTER)
        cutter.close()  # the connection that there is stays; there are no others
        with pytest.raises(StoreUnavailable) as error:
            store.commit([cancel(pass_id)], NOW_US)
    assert error.value.outcome_unknown
    assert "not known" in str(error.value)


def test_callers_get_true_answers_though_every_other_commit_is_cut(cutter: CommitCutter) -> None:
    service = Service(cutter.url)
    try:
        ids = [service.register().id_pass.id for _ in range(20)]
        cutter.cuts.extend([Cut.DURING, Cut.AFTER, Cut.BEFORE] * 5)
        assert all(service.cancel(pass_id).fee_refunded for pass_id in ids)
        assert service.account().fees_refunded.units == 90
    finally:
        service.stop()
    assert problems(cutter.url) == []


# -- what else goes wrong


def test_an_engine_that_refuses_what_it_cannot_serialize_is_asked_again(
    postgres_db: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(postgres_session.SERVING, "default_transaction_isolation", "serializable")
    one, other = two_services(postgres_db)
    try:
        ids = [one.register().id_pass.id for _ in range(120)]
        with ThreadPoolExecutor(8) as pool:
            calls = [(one, other)[number % 2] for number in range(240)]
            answers = list(
                pool.map(lambda it, pass_id: it.cancel(pass_id, request_id=pass_id), calls, ids * 2)
            )
        assert sum(not answer.replayed for answer in answers) == 120
        assert one.account().fees_refunded.units == 120 * 4.5
    finally:
        one.stop()
        other.stop()
    assert problems(postgres_db) == []


def test_a_server_that_is_away_is_said_so_and_found_again(
    postgres: Postgres, store: PostgresStore
) -> None:
    pass_id = new_pass(store)
    store.get_pass("demo", pass_id)
    postgres.stop("immediate")
    try:
        for ask in (
            lambda: store.commit([cancel(pass_id)], NOW_US),
            lambda: store.get_pass("demo", pass_id),
        ):
            with pytest.raises(StoreUnavailable, match="out of reach; nothing was changed"):
                ask()
    finally:
        postgres.start()
    assert store.get_pass("demo", pass_id) is not None
    assert isinstance(store.commit([cancel(pass_id)], NOW_US).outcomes[0], Cancelled)


def test_a_connection_that_was_ended_is_replaced_without_anybody_noticing(
    postgres: Postgres, store: PostgresStore, postgres_db: str
) -> None:
    for _ in range(5):
        pass_id = new_pass(store)
        assert postgres.kill_backends(database(postgres_db))
        assert isinstance(store.commit([cancel(pass_id)], NOW_US).outcomes[0], Cancelled)
        assert postgres.kill_backends(database(postgres_db))
        assert store.get_pass("demo", pass_id) is not None


def test_ok_means_on_disk_whatever_the_database_says_of_itself(
    postgres: Postgres, postgres_db: str
) -> None:
    for given, used in (("off", "on"), ("local", "on"), ("remote_apply", "remote_apply")):
        postgres.execute(f"ALTER DATABASE {database(postgres_db)} SET synchronous_commit = {given}")
        with closing(PostgresStore(postgres_db)) as store:
            row = store._link.connection().execute("SHOW synchronous_commit").fetchone()
            assert row == (used,)


@pytest.mark.long
def test_a_server_without_fsync_is_refused() -> None:
    with Postgres() as own:
        migrate_store(own.url())
        own.execute("ALTER SYSTEM SET fsync = off")
        own.stop()
        own.start()
        done = cli("serve", "--listen", "127.0.0.1:0", "--db", own.url())
    assert done.returncode == 1
    assert "fsync = off" in done.stderr


@pytest.mark.long
def test_a_commit_that_a_standby_has_not_confirmed_is_not_answered() -> None:
    with Postgres() as primary:
        migrate_store(primary.url())
        standby = primary.standby()
        with closing(PostgresStore(primary.url())) as store, ThreadPoolExecutor(1) as pool:
            pass_id = new_pass(store)
            standby.stop()
            waiting = pool.submit(store.commit, [cancel(pass_id)], NOW_US)
            cancelled = 0
            while cancelled < 3:
                # Cancelled while it waits for the standby, PostgreSQL answers COMMIT with success
                # and a warning. Each time it is asked again, and waits again.
                cancelled += len(
                    primary.execute(
                        "SELECT pg_cancel_backend(pid) FROM pg_stat_activity "
                        "WHERE wait_event = 'SyncRep'"
                    )
                )
            assert not waiting.done()
            standby.start()
            (outcome,) = waiting.result(30).outcomes
            assert isinstance(outcome, Cancelled)
            assert outcome.event.refund_micros == 4_500_000


# -- the schema


def test_a_database_without_schema_is_refused_with_the_command_to_run(postgres_url: str) -> None:
    done = cli("serve", "--listen", "127.0.0.1:0", "--db", postgres_url)
    assert done.returncode == 1
    assert f"idpass-server migrate --db '{postgres_url}'" in done.stderr
    done = cli("migrate", "--db", postgres_url)
    assert (done.returncode, "applied initial" in done.stdout) == (0, True)
    done = cli("migrate", "--db", postgres_url)
    assert (done.returncode, "is up to date" in done.stdout) == (0, True)
    with process(postgres_url) as server:
        assert server.register().id_pass.account == "demo"


def test_a_newer_schema_is_served_if_its_program_says_so(postgres_db: str) -> None:
    with psycopg.connect(postgres_db) as connection:
        connection.execute("INSERT INTO schema_migrations VALUES ('from_the_future', 0)")
    with closing(PostgresStore(postgres_db)) as store:
        new_pass(store)
    with psycopg.connect(postgres_db) as connection:
        connection.execute("UPDATE schema_compatibility SET oldest = 1000")
    for command in (["serve", "--listen", "127.0.0.1:0"], ["migrate"], ["audit"]):
        done = cli(*command, "--db", postgres_db)
        assert done.returncode == 1
        assert "newer idpass-server (it has from_the_future)" in done.stderr


def test_a_database_from_before_compatibility_was_recorded_is_served_and_recorded(
    postgres_db: str,
) -> None:
    with psycopg.connect(postgres_db) as connection:
        connection.execute("DROP TABLE schema_compatibility")
    with closing(PostgresStore(postgres_db)) as store:
        new_pass(store)
    assert migrate_store(postgres_db) == []
    with psycopg.connect(postgres_db) as connection:
        recorded = connection.execute("SELECT oldest FROM schema_compatibility").fetchall()
    assert recorded == [(postgres_schema.OLDEST,)]


def test_migrating_many_at_once_migrates_once(postgres_url: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        applied = list(pool.map(migrate_store, [postgres_url] * 8))
    assert sorted(applied) == [[]] * 7 + [list(postgres_schema.MIGRATIONS)]


def test_a_migration_that_fails_changes_nothing(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = {**postgres_schema.MIGRATIONS, "next": "CREATE TABLE more (x int); SELECT 1 / 0"}
    monkeypatch.setattr(postgres_schema, "MIGRATIONS", broken)
    with pytest.raises(CannotOpen, match="division by zero"):
        migrate_store(postgres_url)
    with psycopg.connect(postgres_url) as connection:
        tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
        assert connection.execute(tables).fetchone() == (0,)


def test_a_database_in_another_encoding_is_refused(postgres: Postgres) -> None:
    postgres.execute("CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
    try:
        with pytest.raises(CannotOpen, match=r"LATIN1.*UTF8"):
            migrate_store(postgres.url("latin"))
    finally:
        postgres.drop_database("latin")


# -- several processes


def watch(service: Service, sequences: list[int], after: int, until: int) -> None:
    for event in service.watch(after_sequence=after):
        sequences.append(event.sequence)
        if event.sequence >= until:
            return


def two_services(url: str) -> tuple[Service, Service]:
    return Service(url), Service(url)


def test_a_watcher_sees_what_other_processes_commit(postgres: Postgres, postgres_db: str) -> None:
    one, other = two_services(postgres_db)
    try:
        total = 300
        seen: list[list[int]] = [[], [], []]
        threads = [
            threading.Thread(target=watch, args=(service, found, 0, total))
            for service, found in zip((one, other, one), seen, strict=True)
        ]
        for thread in threads:
            thread.start()
        for number in range(total // 2):
            (one, other)[number % 2].register()
            (other, one)[number % 2].register()
            if number % 30 == 0:
                postgres.kill_backends(database(postgres_db))
        for thread in threads:
            thread.join(30)
        assert seen == [list(range(1, total + 1))] * 3
    finally:
        one.stop()
        other.stop()
    assert problems(postgres_db) == []


def test_of_many_sweepers_one_sweeps_and_every_pass_expires_once(postgres_db: str) -> None:
    one, other = two_services(postgres_db)
    try:
        ids = {one.register(link_validity_days=1).id_pass.id for _ in range(50)}
        one.time.advance(days=2)
        other.time.advance(days=2)
        expired = [event for event in one.events(100) if event.caller == "sweeper"]
        assert {event.id_pass_id for event in expired} == ids
        assert len(expired) == 50
        now_us = one.time.now_us
        claims = [it.server._store.claim_sweep(now_us) for it in (one, other)]
        assert sorted(claims) == [False, True]
    finally:
        one.stop()
        other.stop()
    assert problems(postgres_db) == []


def test_a_sweeper_that_is_gone_is_succeeded(postgres_db: str) -> None:
    with closing(PostgresStore(postgres_db)) as first, closing(PostgresStore(postgres_db)) as next_:
        assert first.claim_sweep(NOW_US)
        assert not next_.claim_sweep(NOW_US + 1_000_000)
        assert first.claim_sweep(NOW_US + 3_000_000)
        assert not next_.claim_sweep(NOW_US + 7_000_000)
        assert next_.claim_sweep(NOW_US + 9_000_000)
        assert not first.claim_sweep(NOW_US + 9_100_000)


def test_a_sweeper_whose_clock_was_far_ahead_is_succeeded(postgres_db: str) -> None:
    with closing(PostgresStore(postgres_db)) as wrong, closing(PostgresStore(postgres_db)) as right:
        assert wrong.claim_sweep(NOW_US + 3_600_000_000)
        assert right.claim_sweep(NOW_US)


def test_a_pass_that_another_process_cancelled_stays_cancelled(postgres_db: str) -> None:
    with process(postgres_db) as one, process(postgres_db) as other:
        pass_id = one.register().id_pass.id
        assert other.cancel(pass_id, request_id="c").fee_refunded
        assert one.cancel(pass_id, request_id="c").replayed
        assert refused(lambda: one.advance(pass_id, "opened")).reason == "PASS_ALREADY_CANCELLED"


# -- large tables without statistics


def test_the_hot_path_reads_no_table_whole(store: PostgresStore) -> None:
    """Plans are made for large tables, whatever the statistics say."""
    new_pass(store)
    connection = store._link.connection()
    scans = (
        "SELECT relname FROM pg_stat_user_tables WHERE seq_scan > 0 AND relname IN "
        "('accounts', 'passes', 'events', 'timers')"
    )
    connection.execute("SELECT pg_stat_force_next_flush()")
    connection.execute("SELECT pg_stat_reset()")
    ids = [new_pass(store) for _ in range(3)]
    store.commit([cancel(each, request_id=f"r-{each}") for each in ids], NOW_US)
    store.commit([cancel(each, request_id=f"r-{each}") for each in ids], NOW_US)
    connection.execute("SELECT pg_stat_force_next_flush()")
    assert connection.execute(scans).fetchall() == []
