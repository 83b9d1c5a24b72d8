"""A SQLite database of an early version."""

from pathlib import Path
from typing import Final

from sqlite_utils import Database

from idpass_server.store.sqlite.file import connect
from idpass_server.store.sqlite.schema import migrations

STATUSES: Final = {"p1": "cancelled", "p2": "new"}
"""Of its passes, by id."""
_ROWS: Final = """
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


def make_old_database(path: Path) -> None:
    """Makes a database that has the first migration only."""
    path.touch(mode=0o600)
    connection = connect(path)
    migrations.apply(Database(connection), stop_before="caller_of_every_pass")
    connection.executescript(_ROWS)
    connection.close()
