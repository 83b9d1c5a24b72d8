"""The history of a database of either kind, and beginning a new one; see `rules.positions`."""

from typing import Any, Final, NamedTuple

from idpass_server.ids import new_uuid
from idpass_server.store import admin_log, either

_SKIP: Final = "INSERT INTO history_gaps SELECT name, last_sequence, :base FROM accounts"
_GO_ON: Final = "UPDATE accounts SET last_sequence = :base"
_REPLACE: Final = """
    UPDATE history SET id = :id, begin_time_us = :now_us, base_sequence = :base"""
_NEWEST: Final = """
    SELECT (SELECT max(last_sequence) FROM accounts), (SELECT max(event_time_us) FROM events)"""


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


def base_sequence(connection: Any) -> int:
    """The number after which the events of this history go on; 0 in the first one."""
    base: int = connection.execute("SELECT base_sequence FROM history").fetchone()[0]
    return base


def begin(connection: Any, who: str, now_us: int, beyond: int = 0) -> NewHistory:
    """Begins a new history: gives the database another id, and lets numbers skip ahead.

    Numbers go on from the time in microseconds. No history has reached that number, as it had less
    than one event in a microsecond, and two restores of one backup get different numbers.

    Args:
        connection: in a transaction that nobody else changes accounts in.
        who: the operator, for the admin log.
        now_us: the time, microseconds since the epoch.
        beyond: a number that a former history is known to have reached.
    """
    (former,) = connection.execute("SELECT id FROM history").fetchone()
    newest, newest_us = connection.execute(_NEWEST).fetchone()
    base = max(now_us, max(beyond, newest or 0, base_sequence(connection)) + 1)
    begun = NewHistory(new_uuid(), str(former), base, newest_us)
    either.run(connection, _SKIP, base=base)
    either.run(connection, _GO_ON, base=base)
    either.run(connection, _REPLACE, id=begun.id, now_us=now_us, base=base)
    admin_log.record(
        connection,
        who,
        "new history",
        None,
        before={"history": begun.former},
        after={"history": begun.id, "base_sequence": base},
    )
    return begun
