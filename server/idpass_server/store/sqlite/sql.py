"""The statements of the SQLite store.

Each time a statement yields a row or ends, the interpreter's lock is let go and must be won back
from the event loop. So the hot path runs one statement for each table and not one for each row:
rows come and go as JSON arrays, in the order of the columns. jsonb_each hands each array on as it
was parsed; json_each would have it parsed again for every column.

Columns are named: a later program may have added some, and this one goes on beside it.
"""

from typing import Final

from idpass_server.rules.records import Account, Event, Pass

TIMER: Final = ("account", "expire_time_us", "id_pass_id")
ACCOUNT_COLUMNS: Final = ", ".join(Account._fields)
PASS_COLUMNS: Final = ", ".join(Pass._fields)
EVENT_COLUMNS: Final = ", ".join(Event._fields)


def _row(table: str, record: type[Account | Pass | Event]) -> str:
    return f"json_array({', '.join(f'{table}.{column}' for column in record._fields)})"


def _values(count: int) -> str:
    return ", ".join(f"value ->> {index}" for index in range(count))


LOAD: Final = f"""
    SELECT (
        SELECT json_group_array({_row("accounts", Account)}) FROM json_each(:accounts) AS key
        CROSS JOIN accounts ON accounts.name = key.value
    ), (
        SELECT json_group_array({_row("passes", Pass)}) FROM jsonb_each(:passes) AS key
        CROSS JOIN passes
        ON passes.account = key.value ->> 0 AND passes.id = key.value ->> 1
    ), (
        SELECT json_group_array({_row("events", Event)}) FROM jsonb_each(:receipts) AS key
        CROSS JOIN events
        ON events.account = key.value ->> 0 AND events.request_id = key.value ->> 1
    )"""
INSERT_PASSES: Final = f"""
    INSERT INTO passes ({PASS_COLUMNS}) SELECT {_values(len(Pass._fields))} FROM jsonb_each(?)"""
INSERT_EVENTS: Final = f"""
    INSERT INTO events ({EVENT_COLUMNS}) SELECT {_values(len(Event._fields))} FROM jsonb_each(?)"""
INSERT_TIMERS: Final = f"""
    INSERT INTO timers ({", ".join(TIMER)}) SELECT {_values(len(TIMER))} FROM jsonb_each(?)"""
DELETE_TIMERS: Final = f"""
    DELETE FROM timers WHERE ({", ".join(TIMER)}) IN (
        SELECT {_values(len(TIMER))} FROM jsonb_each(?))"""
UPDATE_PASSES: Final = """
    UPDATE passes SET status = value ->> 2, fee_refunded = value ->> 3,
        superseded_by = value ->> 4, update_time_us = value ->> 5, consent_time_us = value ->> 6,
        end_time_us = value ->> 7, cancel_reason = value ->> 8, cancel_note = value ->> 9,
        caller = value ->> 10, event_sequence = value ->> 11
    FROM jsonb_each(?) WHERE passes.account = value ->> 0 AND passes.id = value ->> 1"""
UPDATE_ACCOUNTS: Final = """
    UPDATE accounts SET slots_in_use = value ->> 1, charged_micros = value ->> 2,
        refunded_micros = value ->> 3, last_sequence = value ->> 4,
        registration_day = value ->> 5, registrations_of_day = value ->> 6
    FROM jsonb_each(?) WHERE name = value ->> 0"""

INSERT_ACCOUNT: Final = f"""
    INSERT INTO accounts ({ACCOUNT_COLUMNS})
    VALUES ({", ".join("?" * len(Account._fields))}) ON CONFLICT DO NOTHING"""
SET_ACCOUNT: Final = """
    UPDATE accounts SET slot_limit = coalesce(:slot_limit, slot_limit),
        currency = coalesce(:currency, currency), fee_micros = coalesce(:fee_micros, fee_micros),
        registrations_per_day = coalesce(:registrations_per_day, registrations_per_day)
    WHERE name = :name AND (last_sequence = 0 OR currency = coalesce(:currency, currency))"""

SELECT_ACCOUNT: Final = f"SELECT {ACCOUNT_COLUMNS} FROM accounts WHERE name = ?"
SELECT_PASS: Final = f"SELECT {PASS_COLUMNS} FROM passes WHERE account = ? AND id = ?"
SELECT_EVENT: Final = f"SELECT {EVENT_COLUMNS} FROM events WHERE account = ? AND sequence = ?"
SELECT_EVENTS: Final = f"""
    SELECT {EVENT_COLUMNS} FROM events WHERE account = ? AND sequence > ?
    ORDER BY sequence LIMIT ?"""
HISTORY: Final = f"""
    WITH RECURSIVE history (sequence) AS (
        SELECT event_sequence FROM passes WHERE account = :account AND id = :id
        UNION ALL
        SELECT events.previous_sequence FROM history
        JOIN events ON events.account = :account AND events.sequence = history.sequence
        WHERE events.previous_sequence > :after_sequence
    )
    SELECT {", ".join(f"events.{field}" for field in Event._fields)} FROM history
    JOIN events ON events.account = :account AND events.sequence = history.sequence
    WHERE events.sequence > :after_sequence
    ORDER BY events.sequence LIMIT :limit"""
# An account's times follow its sequence.
NEWEST_EVENT_TIME: Final = """
    SELECT max(event_time_us) FROM accounts
    CROSS JOIN events ON events.account = accounts.name
        AND events.sequence = accounts.last_sequence"""
_CANDIDATES: Final = "FROM passes WHERE account = :account {start} ORDER BY id DESC"
LIST: Final = f"""
    SELECT {PASS_COLUMNS} FROM (SELECT * {_CANDIDATES} LIMIT :scan)
    WHERE (:statuses IS NULL OR status IN (SELECT value FROM json_each(:statuses)))
        AND (:idle_before_us IS NULL OR update_time_us < :idle_before_us)
    LIMIT :limit + 1"""
LAST_SCANNED: Final = f"SELECT id {_CANDIDATES} LIMIT 1 OFFSET :scan - 1"
DUE: Final = f"""
    SELECT {", ".join(f"passes.{field}" for field in Pass._fields)} FROM accounts
    CROSS JOIN timers ON timers.account = accounts.name AND timers.expire_time_us <= :due_us
    CROSS JOIN passes ON passes.account = timers.account AND passes.id = timers.id_pass_id
    WHERE (:account IS NULL OR accounts.name = :account)
        AND (NOT :in_flight OR passes.end_time_us IS NULL)
    LIMIT :limit"""
