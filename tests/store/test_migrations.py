"""A database of an older version is brought up to date with all that is in it."""

from pathlib import Path

from idpass_server.store.sqlite.store import SqliteStore
from kit.old_schema import make_old_database
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


def test_a_pass_shows_who_made_its_newest_change(service: Service) -> None:
    pass_id = service.register(link_validity_days=1).id_pass.id
    assert service.get(pass_id).caller == "demo"
    service.time.advance(days=2)
    assert service.get(pass_id).caller == "sweeper"
