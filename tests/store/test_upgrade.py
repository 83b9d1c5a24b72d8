"""Upgrading a SQLite database, and this program beside a running older one."""

import contextlib
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlite_utils import Database, Migrations

from idpass_server.store import CannotOpen, opening
from idpass_server.store.schema import Schema
from idpass_server.store.sqlite import schema as sqlite_schema
from idpass_server.store.sqlite.file import sqlite3
from idpass_server.store.sqlite.hold import Taken
from idpass_server.store.sqlite.schema import migrations
from kit.serving import url_of
from kit.support import Process, cli, problems, process
from kit.versions import RELEASED, unpack

NEEDED = ", ".join(each.name for each in migrations._migrations[1:])
"""What its databases lack."""
KNOWN = len(migrations._migrations)


@pytest.fixture(scope="session")
def released(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment in which `python -m idpass_server` is the last released version."""
    environment = unpack(RELEASED, tmp_path_factory.mktemp("released"))
    if environment is None:
        pytest.skip("the released version is not at hand: this is no full clone")
    return environment


class Released(Process):
    """A server of version 0.1.0, which had no rate."""

    defaults = ("--listen", "127.0.0.1:0")


@contextlib.contextmanager
def released_server(db: Path, released: dict[str, str]) -> Iterator[Released]:
    server = Released(db, env=released)
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "idpass.db"


def schema_of(db: Path) -> list[str]:
    connection = sqlite3.connect(db)
    rows = connection.execute("SELECT sql FROM sqlite_master ORDER BY name").fetchall()
    connection.close()
    return [sql for (sql,) in rows]


@pytest.mark.long
def test_no_command_changes_the_schema_under_a_running_older_server(
    db: Path, released: dict[str, str]
) -> None:
    with released_server(db, released) as server:
        pass_id = server.register(request_id="r").id_pass.id
        before = schema_of(db)
        url = url_of(db)
        migrate = f"bring it up to date with: idpass-server migrate --db '{url}'"
        for command, said in [
            (("account", "show", "demo"), migrate),
            (("account", "set", "demo", "--slots", "9"), migrate),
            (("account", "create", "acme", "--slots", "9", "--fee", "AUD 1"), migrate),
            (("audit",), migrate),
            (("migrate",), f"could not go on after {NEEDED}; stop it first"),
            (("serve", "--listen", "127.0.0.1:0"), "is being served by another process"),
        ]:
            done = cli(*command, "--db", url)
            assert done.returncode == 1
            assert said in done.stderr
            assert "damaged" not in done.stderr
        done = cli("migrate", "--check", "--db", url)
        assert done.returncode == 1
        assert f"lacks {NEEDED}" in done.stdout
        done = cli("migrate", "--plan", "--db", url)
        assert done.returncode == 0
        assert "stop servers of the previous version first" in done.stdout
        assert schema_of(db) == before
        assert server.cancel(pass_id, request_id="c").fee_refunded


@pytest.mark.parametrize("command", ["serve", "migrate"])
def test_an_upgrade_keeps_every_answer_and_a_backup_from_before(
    db: Path, released: dict[str, str], command: str
) -> None:
    with released_server(db, released) as server:
        ids = [server.register(request_id=f"r-{n}").id_pass.id for n in range(5)]
        answers = [server.cancel(pass_id, request_id=f"c-{pass_id}") for pass_id in ids]
        server.process.kill()
        server.wait()
    if command == "migrate":
        done = cli("migrate", "--db", url_of(db))
        assert "applied caller_of_every_pass" in done.stdout
    with process(db) as server:
        for pass_id, first in zip(ids, answers, strict=True):
            again = server.cancel(pass_id, request_id=f"c-{pass_id}")
            assert again.replayed
            assert again.reference == first.reference
    assert cli("migrate", "--check", "--db", url_of(db)).returncode == 0
    assert problems(db) == []
    (backup,) = db.parent.glob("idpass.db.before-caller_of_every_pass-*")
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    with released_server(backup, released) as server:
        assert len(server.list_all()) == 5


def test_a_backup_that_cannot_be_written_leaves_the_schema_as_it_was(
    db: Path, released: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with released_server(db, released):
        pass
    before = schema_of(db)

    def refuse(path: Path) -> int:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("idpass_server.store.sqlite.migrating.create_private", refuse)
    with pytest.raises(CannotOpen, match="without one the schema is not changed"):
        opening.migrate_store(url_of(db))
    assert schema_of(db) == before
    assert not list(db.parent.glob("*.before-*"))


Become = Callable[[int], contextlib.AbstractContextManager[None]]


@pytest.fixture
def upgraded(monkeypatch: pytest.MonkeyPatch) -> Become:
    """Has this process be the next version of the program for a while: with columns and a table
    more, and the number of migrations that a program has to know."""
    later = Migrations(migrations.name)
    for each in migrations._migrations:
        later(name=each.name)(each.fn)

    @later()
    def notes(db: Database) -> None:
        db.execute("ALTER TABLE passes ADD COLUMN note TEXT")
        db.execute("ALTER TABLE events ADD COLUMN note TEXT NOT NULL DEFAULT ''")
        db.execute("ALTER TABLE accounts ADD COLUMN quota INTEGER")
        db.execute("CREATE TABLE notes (id INTEGER PRIMARY KEY)")

    @contextlib.contextmanager
    def become(oldest: int) -> Iterator[None]:
        names = tuple(each.name for each in later._migrations)
        with monkeypatch.context() as patched:
            patched.setattr(sqlite_schema, "migrations", later)
            patched.setattr(sqlite_schema, "OLDEST", oldest)
            patched.setattr(sqlite_schema, "SCHEMA", Schema(names, oldest))
            yield

    return become


def test_the_version_before_goes_on_where_the_next_one_only_adds(
    db: Path, upgraded: Become
) -> None:
    with process(db) as server:
        pass_id = server.register(request_id="r").id_pass.id
        with upgraded(sqlite_schema.OLDEST):
            assert opening.plan_store(url_of(db)) == (["notes"], False)
            assert opening.migrate_store(url_of(db)) == ["notes"]
        assert len(list(db.parent.glob("*.before-notes-*"))) == 1
        assert server.cancel(pass_id, request_id="c").fee_refunded
        assert len(server.list_all()) == 1
        assert [event.sequence for event in server.events()] == [1, 2]
        assert server.account().fees_refunded.units == 4
        done = cli(
            "account", "create", "acme", "--slots", "9", "--fee", "AUD 1", "--db", server.url
        )
        assert done.returncode == 0, done.stderr
        assert cli("audit", "--db", server.url).returncode == 0
        server.process.kill()
        server.wait()
    with process(db) as server:
        assert server.cancel(pass_id, request_id="c").replayed


def test_the_version_before_is_refused_where_the_next_one_changes_more(
    db: Path, upgraded: Become
) -> None:
    with process(db) as server:
        server.register()
        with (
            upgraded(KNOWN + 1),
            pytest.raises(Taken, match="could not go on after notes; stop it first"),
        ):
            opening.migrate_store(url_of(db))
        server.register()
        server.signal()
        server.wait()
    with upgraded(KNOWN + 1):
        assert opening.migrate_store(url_of(db)) == ["notes"]
    for command in (
        ("serve", "--listen", "127.0.0.1:0"),
        ("account", "show", "demo"),
        ("migrate",),
        ("migrate", "--check"),
        ("audit",),
    ):
        done = cli(*command, "--db", url_of(db))
        assert done.returncode == 1
        assert "written by a newer idpass-server (it has notes)" in done.stderr
