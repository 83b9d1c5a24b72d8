"""A database of an older version is brought up to date with all that is in it."""

from contextlib import closing
from pathlib import Path

import pytest

from idpass_server.store.opening import migrate_store
from idpass_server.store.sqlite.file import sqlite3
from idpass_server.store.sqlite.hold import Hold, Taken
from idpass_server.store.sqlite.paths import Names
from idpass_server.store.sqlite.store import SqliteStore
from kit.old_schema import make_old_database
from kit.serving import url_of
from kit.support import Service, problems


def test_a_sqlite_database_of_the_first_version_learns_who_changed_each_pass(
    tmp_path: Path,
) -> None:
    path = tmp_path / "idpass.db"
    make_old_database(path)
    store = SqliteStore(path)
    try:
        callers = {}
        for pass_id in ("p1", "p2"):
            id_pass = store.get_pass("demo", pass_id)
            assert id_pass is not None
            callers[pass_id] = id_pass.caller
    finally:
        store.close()
    assert callers == {"p1": "portal", "p2": "intake"}
    assert problems(path) == []


def test_a_migration_keeps_a_backup_from_before(tmp_path: Path) -> None:
    path = tmp_path / "idpass.db"
    make_old_database(path)
    before = dump(path)
    assert migrate_store(url_of(path))
    (backup,) = tmp_path.glob("idpass.db.before-*")
    assert dump(backup) == before != dump(path)
    assert migrate_store(url_of(path)) == []
    assert list(tmp_path.glob("idpass.db.before-*")) == [backup]


def test_the_schema_stays_as_long_as_somebody_serves_the_file(tmp_path: Path) -> None:
    path = tmp_path / "idpass.db"
    make_old_database(path)
    before = dump(path)
    with closing(Hold(Names(path))), pytest.raises(Taken, match="could not go on after"):
        migrate_store(url_of(path))
    assert dump(path) == before


def dump(path: Path) -> list[str]:
    """The schema of a file, and its passes."""
    with closing(sqlite3.connect(path)) as connection:
        schema = connection.execute("SELECT sql FROM sqlite_master ORDER BY name").fetchall()
        return [*map(str, schema), *map(str, connection.execute("SELECT * FROM passes"))]


def test_a_pass_shows_who_made_its_newest_change(service: Service) -> None:
    pass_id = service.register(link_validity_days=1).id_pass.id
    assert service.get(pass_id).caller == "demo"
    service.time.advance(days=2)
    assert service.get(pass_id).caller == "sweeper"
