"""What is relied on of a session with PostgreSQL, whatever else is set around it."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from idpass_server.ids import new_uuid
from idpass_server.rules.commands import Register, Registered
from idpass_server.rules.refusals import StoreUnavailable
from idpass_server.store import CannotOpen
from idpass_server.store.opening import migrate_store
from idpass_server.store.postgres import hosts as postgres_hosts
from idpass_server.store.postgres import link as postgres_link
from idpass_server.store.postgres import session as postgres_session
from idpass_server.store.postgres import writer as postgres_writer
from idpass_server.store.postgres.store import PostgresStore
from kit.postgres import Postgres
from kit.support import Service, cli, problems, process

NOW_US = 1_800_000_000_000_000
HOSTILE = {
    "client_encoding": "'LATIN1'",
    "search_path": "pg_catalog",
    '"TimeZone"': "'Asia/Kathmandu'",
    "lock_timeout": "1",
    "statement_timeout": "'1s'",
    "idle_in_transaction_session_timeout": "1",
    "idle_session_timeout": "'50ms'",
    "default_transaction_isolation": "'repeatable read'",
    "synchronous_commit": "off",
}


def register() -> Register:
    return Register("demo", "tests", new_uuid(), None, new_uuid())


def name_of(url: str) -> str:
    return url.rpartition("/")[2]


@contextmanager
def serving(service: Service) -> Iterator[Service]:
    try:
        yield service
    finally:
        service.stop()


def test_what_the_database_sets_for_its_sessions_changes_nothing(
    postgres: Postgres, postgres_db: str
) -> None:
    for name, value in HOSTILE.items():
        postgres.execute(f"ALTER DATABASE {name_of(postgres_db)} SET {name} = {value}")
    with serving(Service(postgres_db)) as service:
        made = service.register(applicant_reference="Łukasz Żółć 山田")
        assert service.get(made.id_pass.id).applicant_reference == "Łukasz Żółć 山田"
        assert service.cancel(made.id_pass.id).fee_refunded
        store = service.server._store
        assert isinstance(store, PostgresStore)
        connection = store._writer._link.connection()
        for name in postgres_session.SERVING.keys() - {"lock_timeout"}:
            (value,) = connection.execute(
                "SELECT current_setting(%s, true)", (name,)
            ).fetchone() or ("",)
            assert value in (None, postgres_session.SERVING[name])
    assert problems(postgres_db) == []


def test_an_encoding_of_the_environment_changes_nothing(postgres_db: str) -> None:
    with process(postgres_db, env={"PGCLIENTENCODING": "LATIN1"}) as server:
        made = server.register(applicant_reference="山田")
        assert server.get(made.id_pass.id).applicant_reference == "山田"


def test_tables_are_found_in_the_schema_that_the_url_names(
    postgres: Postgres, postgres_url: str
) -> None:
    postgres.execute("CREATE SCHEMA apart", database=name_of(postgres_url))
    url = f"{postgres_url}?options=-csearch_path%3Dapart"
    migrate_store(url)
    with closing(PostgresStore(url)) as store:
        assert isinstance(store.commit([register()], NOW_US).outcomes[0], Registered)
    assert postgres.execute(
        "SELECT count(*) FROM apart.passes", database=name_of(postgres_url)
    ) == [(1,)]


# -- can a change be stored?


def test_a_check_says_that_the_database_is_read_only(postgres: Postgres, postgres_db: str) -> None:
    with closing(PostgresStore(postgres_db)) as store:
        store.check()
        postgres.execute(
            f"ALTER DATABASE {name_of(postgres_db)} SET default_transaction_read_only = on"
        )
        postgres.kill_backends(name_of(postgres_db))
        for ask in (store.check, store.check, lambda: store.commit([register()], NOW_US)):
            with pytest.raises(StoreUnavailable, match="read-only here; nothing was changed"):
                ask()
        postgres.execute(
            f"ALTER DATABASE {name_of(postgres_db)} RESET default_transaction_read_only"
        )
        store.check()


def test_a_check_does_not_wait_for_what_changes_wait_for(postgres_db: str) -> None:
    with closing(PostgresStore(postgres_db)) as store, psycopg.connect(postgres_db) as other:
        other.execute("SELECT 1 FROM accounts FOR UPDATE")
        other.execute("UPDATE sweep_lease SET until_us = 1")
        store.check()


def test_a_standby_is_not_served_from_and_missed_when_it_is_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Postgres() as primary:
        migrate_store(primary.url())
        standby = primary.standby()
        with pytest.raises(CannotOpen, match="read-only"):
            PostgresStore(standby.url())
        assert problems(standby.url()) == []  # an audit changes nothing
        with closing(PostgresStore(primary.url())) as store:
            store.check()
            standby.stop()
            monkeypatch.setattr(postgres_writer, "CHECK_S", 0.2)
            for _ in range(3):
                with pytest.raises(StoreUnavailable, match="standby does not confirm"):
                    store.check()
            waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
            assert primary.execute(waiting) == [(0,)]
            monkeypatch.undo()
            standby.start()
            primary._wait_for_standby(standby.data.parent.name, "sync")
            store.check()


# -- a server that hangs while its kernel answers


@contextmanager
def stopped(postgres: Postgres) -> Iterator[None]:
    """All of a server's processes are stopped: connections stay open, and nothing is answered."""
    first = int((postgres.data / "postmaster.pid").read_text().split()[0])
    children = Path(f"/proc/{first}/task/{first}/children")
    os.kill(first, signal.SIGSTOP)
    pids = [first, *map(int, children.read_text().split())]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in reversed(pids):
            os.kill(pid, signal.SIGCONT)


def test_a_server_that_hangs_is_given_up_and_found_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in (postgres_link, postgres_writer):
        monkeypatch.setattr(module, "PATIENCE_S", 0.3)
    monkeypatch.setattr(postgres_writer, "LOAD_S", 0.3)
    monkeypatch.setitem(postgres_session._DEFAULTS, "connect_timeout", "2")
    with Postgres() as own:
        migrate_store(own.url())
        with closing(PostgresStore(own.url())) as store:
            store.check()
            with stopped(own):
                for ask in (lambda: store.commit([register()], NOW_US), store.check):
                    with pytest.raises(StoreUnavailable, match="nothing was changed"):
                        ask()
            store.check()
            assert isinstance(store.commit([register()], NOW_US).outcomes[0], Registered)
        with closing(PostgresStore(own.url())) as store:
            store.listen(list, lambda _news: None)
            with stopped(own):
                store.close()  # ends


def test_of_two_that_take_changes_the_one_promoted_last_is_followed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(postgres_hosts, "LOOK_S", 0.05)
    with Postgres() as former:
        migrate_store(former.url())
        primary = former.standby(synchronous=False)
        with closing(PostgresStore(former.url("postgres", primary))) as store:
            store.listen(list, lambda _news: None)
            primary.promote()  # and nobody has told the former one
            connections = (store._writer._link, store._reader)
            while {link.connection().info.port for link in connections} != {primary.port}:
                time.sleep(0.01)
            assert isinstance(store.commit([register()], NOW_US).outcomes[0], Registered)
            primary.stop()
            with pytest.raises(StoreUnavailable, match="nothing was changed"):
                store.commit([register()], NOW_US)
            primary.start()
        assert primary.execute("SELECT count(*) FROM passes") == [(1,)]
        assert former.execute("SELECT count(*) FROM passes") == [(0,)]


def test_a_silent_host_is_left_out_while_another_answers(
    monkeypatch: pytest.MonkeyPatch, postgres_db: str
) -> None:
    monkeypatch.setattr(postgres_hosts, "LOOK_S", 0.05)

    def ports(store: PostgresStore) -> list[str]:
        return str(conninfo_to_dict(store._database.conninfo)["port"]).split(",")

    hung = socket.create_server(("127.0.0.1", 0))  # whose kernel still takes connections
    silent = str(hung.getsockname()[1])
    url = postgres_db.replace("/test", f",127.0.0.1:{silent}/test")
    with closing(PostgresStore(url)) as store:
        connected = store._reader.connection()
        store.listen(list, lambda _news: None)
        while silent in ports(store):
            time.sleep(0.01)
        assert len(ports(store)) == 1
        assert store._reader.connection() is connected
        hung.close()  # it is gone, and its machine says so
        while silent not in ports(store):
            time.sleep(0.01)


# -- poolers


class Bouncer:
    """PgBouncer before a server."""

    def __init__(self, postgres: Postgres, mode: str) -> None:
        program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
        if program is None:
            pytest.skip("pgbouncer is not installed")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._folder = tempfile.TemporaryDirectory()
        folder = Path(self._folder.name)
        settings = folder / "pgbouncer.ini"
        settings.write_text(
            f"[databases]\n* = host=127.0.0.1 port={postgres.port} user=postgres\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {self.port}\nauth_type = any\n"
            f"pool_mode = {mode}\nunix_socket_dir =\nlogfile = {folder}/log\n"
        )
        folder.chmod(0o777)  # it does not run as root
        user = ["-u", "nobody"] if os.geteuid() == 0 else []
        self.process = subprocess.Popen(
            [program, "-q", *user, str(settings)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        patience_s = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
            except ConnectionError:
                assert time.monotonic() < patience_s
                time.sleep(0.01)
            else:
                return

    def url(self, database: str) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._folder.cleanup()


def test_a_pooler_that_keeps_no_sessions_is_refused(postgres: Postgres, postgres_db: str) -> None:
    with closing(Bouncer(postgres, "transaction")) as bouncer:
        done = cli("serve", "--listen", "127.0.0.1:0", "--db", bouncer.url(name_of(postgres_db)))
    assert done.returncode == 1
    assert "pooler" in done.stderr
    assert "pool_mode = session" in done.stderr


def test_a_pooler_that_keeps_sessions_will_do(postgres: Postgres, postgres_db: str) -> None:
    with (
        closing(Bouncer(postgres, "session")) as bouncer,
        serving(Service(bouncer.url(name_of(postgres_db)))) as service,
    ):
        assert service.cancel(service.register().id_pass.id).fee_refunded


def test_a_transaction_in_another_session_is_not_committed(postgres_db: str) -> None:
    """What a pooler does that was taken for none, or changes its ways."""
    with closing(PostgresStore(postgres_db)) as store:
        store.commit([register()], NOW_US)
        store._link.connection().session += 1
        with pytest.raises(StoreUnavailable, match=r"pooler.*nothing was changed"):
            store.commit([register()], NOW_US)
        store._link.connection().execute("SET synchronous_commit = off")
        with pytest.raises(StoreUnavailable, match=r"pooler.*nothing was changed"):
            store.commit([register()], NOW_US)
        store.commit([register()], NOW_US)
        account = store.get_account("demo")
    assert account is not None
    assert account.slots_in_use == 2


# -- what is said


def test_a_reading_statement_ends_in_time_with_postgresqls_reason(
    postgres_db: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("idpass_server.store.postgres.store.READ_TIMEOUT", "50ms")
    with closing(PostgresStore(postgres_db)) as store, psycopg.connect(postgres_db) as other:
        other.execute("LOCK TABLE accounts")
        with pytest.raises(StoreUnavailable) as error:
            store.get_account("demo")
    cause = str(error.value.__cause__)
    assert cause == "canceling statement due to statement timeout (SQLSTATE 57014)"
