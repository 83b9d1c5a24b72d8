"""A database of an older version is brought up to date with all that is in it."""

from pathlib import Path

from sqlite_utils import Database

from idpass_server.store.sqlite.file import connect
from idpass_server.store.sqlite.schema import migrations
from idpass_server.store.sqlite.store import SqliteStore
from kit.support import Service, problems

INITIAL = """
    INSERT INTO passes VALUES
        ('demo', 'p1', 'cancelled', 'AUD', 4500000, 1, '', NULL, NULL, 1, 2, 9, NULL, 2,
         'abandoned', 'a note', 'portal', 2),
        ('demo', 'p2', 'new', 'AUD', 4500000, 0, '', NULL, NULL, 3, 3, 9000000000000000, NULL,
         NULL, NULL, NULL, NULL, 3);
    INSERT INTO timers VALUES ('demo', 9, 'p1'), ('demo', 9000000000000000, 'p2');
    INSERT INTO events VALUES
        ('demo', 1, 'p1', NULL, 'new', 1, 'intake', NULL, NULL, 'r1', 'AUD', 4500000, NULL, '',
         NULL),
        ('demo', 2, 'p1', 'new', 'cancelled', 2, 'portal', 'k', 'd', 'r2', 'AUD', NULL, 4500000,
         'abandoned', 1),
        ('demo', 3, 'p2', NULL, 'new', 3, 'intake', NULL, NULL, 'r3', 'AUD', 4500000, NULL, '',
         NULL);
    UPDATE accounts SET slots_in_use = 1, charged_micros = 9000000, refunded_micros = 4500000,
        last_sequence = 3;
"""


def test_a_sqlite_database_of_the_first_version_learns_who_changed_each_pass(
    tmp_path: Path,
) -> None:
    path = tmp_path / "idpass.db"
    path.touch(mode=0o600)
    connection = connect(path)
    migrations.apply(Database(connection), stop_before="caller_of_every_pass")
    connection.executescript(INITIAL)
    connection.close()

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
