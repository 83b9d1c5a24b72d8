"""The statements of the PostgreSQL store, built from the records' fields.

Rows come in as one JSON parameter, so that one statement serves a batch of any size. No statement's
text ever contains a caller's input.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from idpass_server.rules.erasure import ERASED
from idpass_server.rules.records import Account, Event, Pass
from idpass_server.store import ListQuery
from idpass_server.store.rows import (
    ACCOUNT_CHANGES,
    ACCOUNT_KEY,
    COLUMNS,
    EVENT_KEY,
    PASS_CHANGES,
    PASS_KEY,
    RECEIPT_KEY,
    TIMER,
    columns,
)

_UUIDS: Final = {"id", "id_pass_id", "supersedes", "superseded_by", "reference"}
_FLAGS: Final = {"fee_refunded", "erased"}
_COUNTS: Final = {"slots_in_use", "registration_day", "registrations_of_day"}


def _typed(names: Iterable[str]) -> str:
    def type_of(name: str) -> str:
        if name in _UUIDS:
            return "uuid"
        number = name.endswith(("_us", "_micros", "sequence")) or name in _COUNTS
        return "bigint" if number else "integer" if name in _FLAGS else "text"

    return ", ".join(f"{name} {type_of(name)}" for name in names)


def _rows(names: Iterable[str]) -> str:
    """A table `new` with the rows of one JSON parameter."""
    return f"json_to_recordset(%s) AS new ({_typed(names)})"


def _update(table: str, key: Sequence[str], names: Sequence[str]) -> str:
    return (
        f"UPDATE {table} SET {', '.join(f'{name} = new.{name}' for name in names)} "
        f"FROM {_rows((*key, *names))} "
        f"WHERE {' AND '.join(f'{table}.{name} = new.{name}' for name in key)}"
    )


# Each row also proves that the session and its durability are those that were set.
LOCK: Final = (
    f"SELECT pg_backend_pid(), current_setting('synchronous_commit'), {columns(Account)} "
    "FROM accounts WHERE name = ANY(%s) ORDER BY name FOR UPDATE"
)
LOCK_FREE: Final = f"{LOCK} SKIP LOCKED"
KNOWN: Final = "SELECT name FROM accounts WHERE name = ANY(%s)"
# Locking a row writes to the WAL, so COMMIT does everything that it does for a change. No other
# lock that this service takes blocks this one.
PROVE: Final = (
    "SELECT pg_backend_pid(), current_setting('synchronous_commit') FROM sweep_lease FOR KEY SHARE"
)
LOAD_PASSES: Final = (
    f"SELECT {columns(Pass, 'passes')} FROM {_rows(PASS_KEY)} "
    "JOIN passes ON passes.account = new.account AND passes.id = new.id"
)
LOAD_RECEIPTS: Final = (
    f"SELECT {columns(Event, 'events')} FROM {_rows(RECEIPT_KEY)} "
    "JOIN events ON events.account = new.account AND events.request_id = new.request_id"
)
LOAD_EVENTS: Final = (
    f"SELECT {columns(Event, 'events')} FROM {_rows(EVENT_KEY)} "
    "JOIN events ON events.account = new.account AND events.sequence = new.sequence"
)
WRITTEN: Final = "SELECT 1 FROM events WHERE account = %s AND sequence = %s AND reference = %s"

# Creates a table of 1 MB on the database's own disk, and rolls back.
TAKE_ROOM: Final = (
    "BEGIN",
    "SET LOCAL temp_tablespaces = ''",
    "CREATE TEMPORARY TABLE room AS SELECT md5(n::text) FROM generate_series(1, 20000) AS n",
    "ROLLBACK",
)


def _insert(table: str, names: Sequence[str]) -> str:
    return f"INSERT INTO {table} ({', '.join(names)}) SELECT {', '.join(names)} FROM {_rows(names)}"


SAVE: Final[Mapping[str, str]] = {
    "update_passes": _update("passes", PASS_KEY, PASS_CHANGES),
    "insert_passes": _insert("passes", COLUMNS["insert_passes"]),
    "insert_events": _insert("events", COLUMNS["insert_events"]),
    "update_accounts": _update("accounts", ACCOUNT_KEY, ACCOUNT_CHANGES),
    "insert_timers": _insert("timers", TIMER),
    "delete_timers": f"DELETE FROM timers USING {_rows(TIMER)} "
    f"WHERE {' AND '.join(f'timers.{name} = new.{name}' for name in TIMER)}",
    "erase_references": _update("passes", PASS_KEY, COLUMNS["erase_references"][len(PASS_KEY) :]),
    # Of a pass's receipts only those of its registration and its cancellation tell of anyone.
    "erase_receipts": f"""
        WITH RECURSIVE chain (account, sequence) AS (
            SELECT passes.account, passes.event_sequence FROM {_rows(PASS_KEY)}
            JOIN passes ON passes.account = new.account AND passes.id = new.id
            UNION ALL
            SELECT events.account, events.previous_sequence FROM chain
            JOIN events ON events.account = chain.account AND events.sequence = chain.sequence
            WHERE events.previous_sequence IS NOT NULL
        )
        UPDATE events SET request_digest = '{ERASED}' FROM chain
        WHERE events.account = chain.account AND events.sequence = chain.sequence
            AND events.request_digest IS NOT NULL
            AND (events.from_status IS NULL OR events.to_status = 'cancelled')""",
}
"""The statement for each kind of write in `rows`."""

SELECT_ACCOUNT: Final = f"SELECT {columns(Account)} FROM accounts WHERE name = %s"
FULLEST_ACCOUNTS: Final = f"""
    SELECT {columns(Account)} FROM accounts
    ORDER BY slots_in_use::float / greatest(slot_limit, 1) DESC, slots_in_use DESC LIMIT %s"""
SELECT_PASS: Final = f"SELECT {columns(Pass)} FROM passes WHERE account = %s AND id = %s"
SELECT_PASSES: Final = (
    f"SELECT {columns(Pass)} FROM passes WHERE account = %s AND id = ANY(%s::uuid[])"
)
SELECT_EVENTS: Final = (
    f"SELECT {columns(Event)} FROM events WHERE account = %s AND sequence > %s "
    "ORDER BY sequence LIMIT %s"
)
PASS_EVENTS: Final = f"""
    WITH RECURSIVE chain (sequence) AS (
        SELECT event_sequence FROM passes WHERE account = %(account)s AND id = %(id)s
        UNION ALL
        SELECT events.previous_sequence FROM chain
        JOIN events ON events.account = %(account)s AND events.sequence = chain.sequence
        WHERE events.previous_sequence > %(after_sequence)s
    )
    SELECT {columns(Event, "events")} FROM chain
    JOIN events ON events.account = %(account)s AND events.sequence = chain.sequence
    WHERE events.sequence > %(after_sequence)s
    ORDER BY events.sequence LIMIT %(limit)s"""
_CANDIDATES: Final = "FROM passes WHERE account = %(account)s {start} ORDER BY id DESC"
LIST: Final = f"""
    SELECT {columns(Pass)} FROM (SELECT * {_CANDIDATES} LIMIT %(scan)s) AS scanned
    WHERE (%(statuses)s::text[] IS NULL OR status = ANY(%(statuses)s::text[]))
        AND (%(idle_before_us)s::bigint IS NULL OR update_time_us < %(idle_before_us)s::bigint)
    ORDER BY id DESC LIMIT %(limit)s::bigint + 1"""
_BEFORE_ID: Final = "AND id < %(before_id)s"
# The second condition is the index's own, and says that the index will do.
_OF_APPLICANT: Final = """
    AND applicant_reference = %(applicant_reference)s AND applicant_reference <> ''"""
LAST_SCANNED: Final = f"SELECT id {_CANDIDATES} LIMIT 1 OFFSET %(scan)s::bigint - 1"
NEWEST_EVENT_TIME: Final = """
    SELECT max(newest.event_time_us) FROM accounts CROSS JOIN LATERAL (
        SELECT event_time_us FROM events WHERE account = name ORDER BY sequence DESC LIMIT 1
    ) AS newest"""
HISTORY: Final = "SELECT id FROM history"
GAPS: Final = """
    SELECT after_sequence, before_sequence FROM history_gaps WHERE account = %s
    ORDER BY after_sequence"""
DUE: Final = f"""
    SELECT {columns(Pass, "passes")} FROM accounts
    CROSS JOIN LATERAL (
        SELECT timers.account, timers.id_pass_id FROM timers
        WHERE timers.account = accounts.name AND timers.expire_time_us <= %(due_us)s
        ORDER BY timers.expire_time_us LIMIT %(limit)s
    ) AS due
    JOIN passes ON passes.account = due.account AND passes.id = due.id_pass_id
    LIMIT %(limit)s"""
_DUE: Final = f"""
    SELECT {columns(Pass, "passes")} FROM timers
    JOIN passes ON passes.account = timers.account AND passes.id = timers.id_pass_id
    WHERE timers.account = %(account)s AND timers.expire_time_us <= %(due_us)s {{which}}
    ORDER BY timers.expire_time_us LIMIT %(limit)s"""
DUE_OF_ACCOUNT: Final = _DUE.format(which="")
OVERDUE: Final = _DUE.format(which="AND passes.end_time_us IS NULL")
LEASE: Final = """
    UPDATE sweep_lease SET holder = %(holder)s, until_us = %(until_us)s
    WHERE holder = %(holder)s OR until_us < %(now_us)s OR until_us > %(too_far_us)s"""

# The term changes whenever another process may have had the lease meanwhile.
CLAIM_LEASE: Final = """
    UPDATE leases SET holder = %(holder)s, until_us = %(until_us)s,
        term = CASE WHEN holder = %(holder)s AND until_us >= %(now_us)s
            THEN term ELSE term + 1 END
    WHERE name = %(name)s
        AND (holder = %(holder)s OR until_us < %(now_us)s OR until_us > %(too_far_us)s)
    RETURNING term"""
RELEASE_LEASE: Final = (
    "UPDATE leases SET until_us = 0 WHERE name = %(name)s AND holder = %(holder)s"
)
# Whoever claims the lease waits until the transaction has ended.
LEASE_FENCE: Final = (
    "SELECT 1 FROM leases WHERE name = :name AND holder = CAST(:holder AS uuid) AND term = :term "
    "FOR SHARE"
)
LEASE_ALONE: Final = "SELECT 1 FROM leases WHERE name = :name FOR UPDATE"


def for_query(statement: str, query: ListQuery) -> str:
    """LIST or LAST_SCANNED, with the conditions that an index serves."""
    start = _BEFORE_ID if query.before_id else ""
    return statement.format(start=start + (_OF_APPLICANT if query.applicant_reference else ""))
