"""Every invariant of a database, checked against nothing but the table of transitions.

Each check is a query for what must not be there, in SQL that SQLite and PostgreSQL both speak.
All run in one read transaction, so that a database can be audited while it is being served.
"""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from idpass_server.domain import IN_FLIGHT, TRANSITIONS, Fee

SHOWN_PER_CHECK: Final = 5

_ARROWS: Final = ", ".join(
    [
        f"('{before}', '{after}', {int(fee is Fee.REFUNDED)})"
        for before, arrows in TRANSITIONS.items()
        for after, fee in arrows.items()
    ]
)
_FLYING: Final = ", ".join(f"'{status}'" for status in sorted(IN_FLIGHT))
_WITH: Final = f"WITH arrows (from_status, to_status, refunds) AS (VALUES {_ARROWS})"


class Check(NamedTuple):
    """Args: sql: finds what is wrong, with columns that say which; `WITH arrows` precedes it."""

    wrong: str
    sql: str


CHECKS: Final = (
    Check(
        "slots in use are not the passes in flight",
        f"""SELECT name, slots_in_use, in_flight FROM (
            SELECT name, slots_in_use, (SELECT count(*) FROM passes
                WHERE passes.account = name AND status IN ({_FLYING})) AS in_flight
            FROM accounts) AS a WHERE slots_in_use <> in_flight""",
    ),
    Check(
        "fees charged are not the sum of the events'",
        """SELECT name, charged_micros, total FROM (
            SELECT name, charged_micros, (SELECT coalesce(sum(charge_micros), 0) FROM events
                WHERE events.account = name) AS total
            FROM accounts) AS a WHERE charged_micros <> total""",
    ),
    Check(
        "fees refunded are not the sum of the events'",
        """SELECT name, refunded_micros, total FROM (
            SELECT name, refunded_micros, (SELECT coalesce(sum(refund_micros), 0) FROM events
                WHERE events.account = name) AS total
            FROM accounts) AS a WHERE refunded_micros <> total""",
    ),
    Check(
        "event sequence has gaps",
        """SELECT name, last_sequence, newest, events FROM (
            SELECT name, last_sequence, (SELECT coalesce(max(sequence), 0) FROM events
                WHERE events.account = name) AS newest, (SELECT count(*) FROM events
                WHERE events.account = name AND sequence > 0) AS events
            FROM accounts) AS a WHERE newest <> last_sequence OR events <> last_sequence""",
    ),
    Check(
        "pass or event belongs to no account",
        """SELECT account, CAST(id AS text) FROM passes
            WHERE account NOT IN (SELECT name FROM accounts)
            UNION ALL SELECT account, CAST(sequence AS text) FROM events
            WHERE account NOT IN (SELECT name FROM accounts)""",
    ),
    Check(
        "event is about no pass",
        """SELECT account, sequence, id_pass_id FROM events WHERE NOT EXISTS (
            SELECT 1 FROM passes WHERE passes.account = events.account AND id = id_pass_id)""",
    ),
    Check(
        "pass was refunded more than once",
        """SELECT account, id_pass_id, count(*) FROM events WHERE refund_micros IS NOT NULL
            GROUP BY account, id_pass_id HAVING count(*) > 1""",
    ),
    Check(
        "refund is not what the transition says",
        """SELECT e.account, e.id_pass_id, e.from_status, e.to_status, e.refund_micros
            FROM events e JOIN arrows USING (from_status, to_status)
            JOIN passes p ON p.account = e.account AND p.id = e.id_pass_id
            WHERE e.refund_micros IS DISTINCT FROM CASE WHEN refunds = 1 THEN p.fee_micros END""",
    ),
    Check(
        "pass says otherwise than its events whether it was refunded",
        """SELECT p.account, p.id, fee_refunded FROM passes p
            JOIN events e ON e.account = p.account AND e.sequence = p.event_sequence
            WHERE (fee_refunded = 1) <> (refund_micros IS NOT NULL)""",
    ),
    Check(
        "transition is not in the table",
        """SELECT account, sequence, from_status, to_status FROM events
            WHERE from_status IS NOT NULL
                AND (from_status, to_status) NOT IN (SELECT from_status, to_status FROM arrows)
            UNION ALL SELECT account, sequence, from_status, to_status FROM events
            WHERE from_status IS NULL
                AND NOT (to_status = 'new' AND charge_micros IS NOT NULL
                    AND previous_sequence IS NULL)""",
    ),
    Check(
        "event does not follow the one before of the same pass",
        """SELECT e.account, e.sequence, e.previous_sequence FROM events e LEFT JOIN events b
            ON b.account = e.account AND b.sequence = e.previous_sequence
                AND b.id_pass_id = e.id_pass_id AND b.sequence < e.sequence
            WHERE e.from_status IS NOT NULL AND b.to_status IS DISTINCT FROM e.from_status""",
    ),
    Check(
        "pass is not as its newest event left it",
        """SELECT p.account, p.id, p.status FROM passes p LEFT JOIN events e
            ON e.account = p.account AND e.sequence = p.event_sequence AND e.id_pass_id = p.id
            WHERE p.status IS DISTINCT FROM e.to_status
                OR p.update_time_us IS DISTINCT FROM e.event_time_us
                OR p.caller IS DISTINCT FROM e.caller""",
    ),
    Check(
        "pass has more events than its history",
        """SELECT e.account, e.sequence FROM events e
            WHERE NOT EXISTS (SELECT 1 FROM passes p WHERE p.account = e.account
                AND p.id = e.id_pass_id AND p.event_sequence = e.sequence)
            AND NOT EXISTS (SELECT 1 FROM events n WHERE n.account = e.account
                AND n.sequence > e.sequence AND n.id_pass_id = e.id_pass_id
                AND n.previous_sequence = e.sequence)""",
    ),
    Check(
        "pass has ended without an end_time, or has one in flight",
        f"""SELECT account, id, status, end_time_us FROM passes
            WHERE (end_time_us IS NULL) <> (status IN ({_FLYING}))""",
    ),
    Check(
        "pass in flight has no timer",
        """SELECT account, id FROM passes WHERE end_time_us IS NULL AND NOT EXISTS (
            SELECT 1 FROM timers WHERE timers.account = passes.account
                AND timers.expire_time_us = passes.expire_time_us AND id_pass_id = id)""",
    ),
    Check(
        "link between a pass and the one that superseded it is one-sided",
        """SELECT p.account, p.id, p.supersedes FROM passes p LEFT JOIN passes o
            ON o.account = p.account AND o.id = p.supersedes
            WHERE p.supersedes IS NOT NULL AND o.superseded_by IS DISTINCT FROM p.id
            UNION ALL SELECT o.account, o.id, o.superseded_by FROM passes o LEFT JOIN passes p
            ON p.account = o.account AND p.id = o.superseded_by
            WHERE o.superseded_by IS NOT NULL AND p.supersedes IS DISTINCT FROM o.id""",
    ),
)


def audit(connection: Any) -> Iterator[str]:
    """What is wrong with a database, a line each; nothing if all is well.

    Args:
        connection: to the database, in a read transaction.
    """
    for check in CHECKS:
        rows = connection.execute(f"{_WITH} {check.sql} LIMIT {SHOWN_PER_CHECK + 1}").fetchall()
        for row in rows[:SHOWN_PER_CHECK]:
            yield f"{check.wrong}: {', '.join(map(str, row))}"
        if len(rows) > SHOWN_PER_CHECK:
            yield f"{check.wrong}: and more"


def count(connection: Any) -> dict[str, int]:
    """How many rows each table has that a user knows of."""
    return {
        table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        for table in ("accounts", "passes", "events")
    }
