"""The statements of the SQLite store, built from the records' fields.

Whenever a statement yields a row or ends, the thread releases the interpreter's lock and must win
it back from the event loop. So a batch is loaded by one statement and saved by one: all its rows
come and go in one JSON document, each an array in the order of its columns, and a trigger on a view
divides what is saved among the tables. jsonb_each passes each array on as it was parsed; json_each
would parse it again for every column.

Columns are named: a newer program may have added some, and this one still works beside it.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from idpass_server.rules.erasure import ERASED
from idpass_server.rules.records import Account, Event, Pass
from idpass_server.store import ListQuery
from idpass_server.store.rows import (
    ACCOUNT_CHANGES,
    ACCOUNT_KEY,
    COLUMNS,
    PASS_CHANGES,
    PASS_KEY,
    TIMER,
    columns,
)


def _array(record: type[Account | Pass | Event], table: str) -> str:
    return f"json_array({columns(record, table)})"


def _values(names: Sequence[str]) -> str:
    return ", ".join(f"value ->> {index}" for index in range(len(names)))


def _rows(write: str) -> str:
    return f"jsonb_each(new.rows, '$.{write}')"


def _insert(table: str, names: Sequence[str], rows: str) -> str:
    return f"INSERT INTO {table} ({', '.join(names)}) SELECT {_values(names)} FROM {rows}"


def _update(
    table: str, key: Sequence[str], names: Sequence[str], rows: str = "jsonb_each(?)"
) -> str:
    value = {name: f"value ->> {index}" for index, name in enumerate((*key, *names))}
    return (
        f"UPDATE {table} SET {', '.join(f'{name} = {value[name]}' for name in names)} "
        f"FROM {rows} "
        f"WHERE {' AND '.join(f'{table}.{name} = {value[name]}' for name in key)}"
    )


LOAD: Final = f"""
    SELECT json_array((
        SELECT json_group_array({_array(Account, "accounts")})
        FROM jsonb_each(:needs, '$[0]') AS key
        CROSS JOIN accounts ON accounts.name = key.value
    ), (
        SELECT json_group_array({_array(Pass, "passes")})
        FROM jsonb_each(:needs, '$[1]') AS key
        CROSS JOIN passes
        ON passes.account = key.value ->> 0 AND passes.id = key.value ->> 1
    ), (
        SELECT json_group_array({_array(Event, "events")})
        FROM jsonb_each(:needs, '$[2]') AS key
        CROSS JOIN events
        ON events.account = key.value ->> 0 AND events.request_id = key.value ->> 1
    ))"""
"""Answers `Needs`, an array of arrays, with the rows of each in turn."""
_SAVES: Final = (
    _update("passes", PASS_KEY, PASS_CHANGES, _rows("update_passes")),
    _insert("passes", COLUMNS["insert_passes"], _rows("insert_passes")),
    _insert("events", COLUMNS["insert_events"], _rows("insert_events")),
    _update("accounts", ACCOUNT_KEY, ACCOUNT_CHANGES, _rows("update_accounts")),
    _insert("timers", TIMER, _rows("insert_timers")),
    (
        f"DELETE FROM timers WHERE ({', '.join(TIMER)}) IN ("
        f"SELECT {_values(TIMER)} FROM {_rows('delete_timers')})"
    ),
)
_VIEW: Final = "CREATE TEMP VIEW batch AS SELECT NULL AS rows"
_TRIGGER: Final = f"""
    CREATE TEMP TRIGGER save INSTEAD OF INSERT ON batch
    BEGIN {" ".join(f"{statement};" for statement in _SAVES)} END"""
SAVE_VIEW: Final = (_VIEW, _TRIGGER)
"""Statements that make the view for SAVE, on the connection that writes."""
SAVE: Final = "INSERT INTO batch VALUES (jsonb(?))"
"""Saves the rows of each kind of write in `rows`, an object; kinds without rows may be left out."""
ERASE: Final[Mapping[str, str]] = {
    "erase_references": _update("passes", PASS_KEY, COLUMNS["erase_references"][len(PASS_KEY) :]),
    # Of a pass's receipts only those of its registration and its cancellation tell of anyone.
    "erase_receipts": f"""
        WITH RECURSIVE chain (account, sequence) AS (
            SELECT passes.account, passes.event_sequence FROM jsonb_each(?) AS key
            CROSS JOIN passes ON passes.account = key.value ->> 0 AND passes.id = key.value ->> 1
            UNION ALL
            SELECT events.account, events.previous_sequence FROM chain
            CROSS JOIN events
                ON events.account = chain.account AND events.sequence = chain.sequence
            WHERE events.previous_sequence IS NOT NULL
        )
        UPDATE events SET request_digest = '{ERASED}' FROM chain
        WHERE events.account = chain.account AND events.sequence = chain.sequence
            AND events.request_digest IS NOT NULL
            AND (events.from_status IS NULL OR events.to_status = 'cancelled')""",
}
"""The statements for erasures, which are few."""

SELECT_ACCOUNT: Final = f"SELECT {columns(Account)} FROM accounts WHERE name = ?"
FULLEST_ACCOUNTS: Final = f"""
    SELECT {columns(Account)} FROM accounts
    ORDER BY slots_in_use * 1.0 / max(slot_limit, 1) DESC, slots_in_use DESC LIMIT ?"""
SELECT_PASS: Final = f"SELECT {columns(Pass)} FROM passes WHERE account = ? AND id = ?"
SELECT_PASSES: Final = f"""
    SELECT {columns(Pass)} FROM passes
    WHERE account = ? AND id IN (SELECT value FROM json_each(?))"""
SELECT_EVENT: Final = f"SELECT {columns(Event)} FROM events WHERE account = ? AND sequence = ?"
SELECT_EVENTS: Final = f"""
    SELECT {columns(Event)} FROM events WHERE account = ? AND sequence > ?
    ORDER BY sequence LIMIT ?"""
PASS_EVENTS: Final = f"""
    WITH RECURSIVE chain (sequence) AS (
        SELECT event_sequence FROM passes WHERE account = :account AND id = :id
        UNION ALL
        SELECT events.previous_sequence FROM chain
        JOIN events ON events.account = :account AND events.sequence = chain.sequence
        WHERE events.previous_sequence > :after_sequence
    )
    SELECT {columns(Event, "events")} FROM chain
    JOIN events ON events.account = :account AND events.sequence = chain.sequence
    WHERE events.sequence > :after_sequence
    ORDER BY events.sequence LIMIT :limit"""
# An account's times follow its sequence.
NEWEST_EVENT_TIME: Final = """
    SELECT max((SELECT event_time_us FROM events WHERE account = name
        ORDER BY sequence DESC LIMIT 1)) FROM accounts"""
HISTORY: Final = "SELECT id FROM history"
GAPS: Final = """
    SELECT after_sequence, before_sequence FROM history_gaps WHERE account = ?
    ORDER BY after_sequence"""
_CANDIDATES: Final = "FROM passes {index} WHERE account = :account {start} ORDER BY id DESC"
LIST: Final = f"""
    SELECT {columns(Pass)} FROM (SELECT * {_CANDIDATES} LIMIT :scan)
    WHERE (:statuses IS NULL OR status IN (SELECT value FROM json_each(:statuses)))
        AND (:idle_before_us IS NULL OR update_time_us < :idle_before_us)
    LIMIT :limit + 1"""
_BEFORE_ID: Final = "AND id < :before_id"
# The planner would rather go by the key, which has the order too. The second condition is the
# index's own, and says that the index will do.
_APPLICANTS: Final = "INDEXED BY passes_applicant_reference"
_OF_APPLICANT: Final = """
    AND applicant_reference = :applicant_reference AND applicant_reference <> ''"""
LAST_SCANNED: Final = f"SELECT id {_CANDIDATES} LIMIT 1 OFFSET :scan - 1"
DUE: Final = f"""
    SELECT {columns(Pass, "passes")} FROM accounts
    CROSS JOIN timers ON timers.account = accounts.name AND timers.expire_time_us <= :due_us
    CROSS JOIN passes ON passes.account = timers.account AND passes.id = timers.id_pass_id
    WHERE (:account IS NULL OR accounts.name = :account)
        AND (NOT :in_flight OR passes.end_time_us IS NULL)
    LIMIT :limit"""


def for_query(statement: str, query: ListQuery) -> str:
    """LIST or LAST_SCANNED, with the conditions that an index serves."""
    start = _BEFORE_ID if query.before_id else ""
    if not query.applicant_reference:
        return statement.format(index="", start=start)
    return statement.format(index=_APPLICANTS, start=start + _OF_APPLICANT)
