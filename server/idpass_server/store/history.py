"""Beginning a new history, when a database goes on from an older state; see `rules.positions`.

The SQL is what both SQLite and PostgreSQL speak.
"""

from typing import Any, NamedTuple

from idpass_server.ids import new_uuid


class NewHistory(NamedTuple):
    """A history that was begun.

    Attributes:
        id: of the new history.
        former: id of the one that it goes on from.
        base_sequence: the number after which the events of every account go on.
        newest_event_time_us: when the newest event of the former one was decided, microseconds
            since the epoch; None without events.
    """

    id: str
    former: str
    base_sequence: int
    newest_event_time_us: int | None


def begin(connection: Any, now_us: int, *, beyond: int = 0) -> NewHistory:
    """Begins a new history: gives the database another id, and lets numbers skip ahead.

    Numbers go on from the time in microseconds. No history has reached that number, as it had less
    than one event in a microsecond, and two restores of one backup get different numbers.

    Args:
        connection: in a transaction that nobody else changes accounts in.
        now_us: the time, microseconds since the epoch.
        beyond: a number that a former history is known to have reached.
    """
    former, former_base = _one(connection, "SELECT id, base_sequence FROM history")
    (newest,) = _one(connection, "SELECT max(last_sequence) FROM accounts")
    (newest_us,) = _one(connection, "SELECT max(event_time_us) FROM events")
    base = max(now_us, beyond + 1, (newest or 0) + 1, former_base + 1)
    history = new_uuid()
    connection.execute(
        f"INSERT INTO history_gaps SELECT name, last_sequence, {base:d} FROM accounts"
    )
    connection.execute(f"UPDATE accounts SET last_sequence = {base:d}")
    connection.execute(
        f"UPDATE history SET id = '{history}', begin_time_us = {now_us:d}, base_sequence = {base:d}"
    )
    return NewHistory(history, former, base, newest_us)


def _one(connection: Any, query: str) -> Any:
    return connection.execute(query).fetchone()
