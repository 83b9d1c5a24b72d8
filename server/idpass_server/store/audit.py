"""Checks every invariant of a database against the table of transitions.

Each check is a query for rows that must not exist, in SQL that both SQLite and PostgreSQL speak. It
takes time linear in the size of the database: tables are scanned in the order of their keys, and a
row looks up at most one other. All checks run in one read transaction, so that a database can be
audited while it is served, and no check holds rows in memory.
"""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from idpass_server.rules.domain import DAY_US, IN_FLIGHT, TRANSITIONS, Fee
from idpass_server.rules.positions import PURGED

SHOWN_PER_CHECK: Final = 5
"""Number of findings shown per check."""
CLOCKS_APART_US: Final = 1_000_000
"""Largest expected clock difference between hosts that serve one database, microseconds."""


def _arrows(fee: Fee | None = None) -> str:
    """The transitions as an SQL list of rows; only those that do `fee` if it is given."""
    return ", ".join(
        f"('{before}', '{after}')"
        for before, arrows in TRANSITIONS.items()
        for after, done in arrows.items()
        if fee in (None, done)
    )


_FLYING: Final = ", ".join(f"'{status}'" for status in sorted(IN_FLIGHT))
_REFUNDED: Final = f"(from_status, to_status) IN (VALUES {_arrows(Fee.REFUNDED)})"


def _of_events(columns: str, sums: str, wrong: str) -> str:
    """A query for accounts that disagree with sums over their events."""
    return f"""SELECT name, {columns} FROM accounts LEFT JOIN (
        SELECT account, {sums} FROM events GROUP BY account) AS e ON account = name
        WHERE {wrong}"""


def _purged(column: str) -> str:
    """What purges have removed of an account."""
    return f"coalesce((SELECT p.{column} FROM purged_totals p WHERE p.account = name), 0)"


def _sums(column: str, name: str) -> str:
    """Sums that two sets of numbers hardly ever share unless they are equal."""
    return (
        f"sum({column}) AS {name}, sum(({column} % 1000003) * ({column} % 1000003)) AS {name}{name}"
    )


class Check(NamedTuple):
    """One invariant.

    Attributes:
        wrong: what a finding means, for operators.
        sql: query for findings; its columns identify them.
        which: query that identifies them more closely, and needs memory; None for none.
        quick: whether it looks at each table by itself.
        warning: whether a service without a bug can get there.
    """

    wrong: str
    sql: str
    which: str | None = None
    quick: bool = False
    warning: bool = False


CHECKS: Final = (
    Check(
        "slots in use are not the passes in flight",
        f"""SELECT name, slots_in_use, coalesce(in_flight, 0) FROM accounts LEFT JOIN (
            SELECT account, count(*) AS in_flight FROM passes WHERE status IN ({_FLYING})
            GROUP BY account) AS p ON account = name
            WHERE slots_in_use <> coalesce(in_flight, 0)""",
        quick=True,
    ),
    Check(
        "fees charged are not the sum of the events'",
        _of_events(
            "charged_micros, charges",
            "sum(charge_micros) AS charges",
            f"charged_micros <> coalesce(charges, 0) + {_purged('charged_micros')}",
        ),
        quick=True,
    ),
    Check(
        "fees refunded are not the sum of the events'",
        _of_events(
            "refunded_micros, refunds",
            "sum(refund_micros) AS refunds",
            f"refunded_micros <> coalesce(refunds, 0) + {_purged('refunded_micros')}",
        ),
        quick=True,
    ),
    Check(
        # But for what was purged, and the numbers that restores left out.
        "event sequence has gaps",
        f"""SELECT name, last_sequence, newest, n, numbers FROM accounts LEFT JOIN (
                SELECT account, max(sequence) AS newest, count(*) AS n FROM events
                GROUP BY account) AS e ON e.account = name
            LEFT JOIN (
                SELECT account, sum(before_sequence - after_sequence) AS numbers
                FROM history_gaps WHERE after_sequence <> {PURGED}
                GROUP BY account) AS g ON g.account = name
            WHERE coalesce(n, 0) + {_purged("events")} <> last_sequence - coalesce(numbers, 0)
                OR newest > last_sequence""",
        quick=True,
    ),
    Check(
        # A watcher would miss the events without being told.
        "events were purged, and no gap says so",
        f"""SELECT name FROM accounts JOIN purged_totals p ON p.account = name
            LEFT JOIN history_gaps g ON g.account = name AND after_sequence = {PURGED}
            WHERE before_sequence IS NULL OR before_sequence >= last_sequence""",
        quick=True,
    ),
    Check(
        "event has a number that was skipped when a backup was restored",
        f"""SELECT e.account, e.sequence FROM history_gaps g JOIN events e
            ON e.account = g.account AND e.sequence > g.after_sequence
                AND e.sequence <= g.before_sequence
            WHERE g.after_sequence <> {PURGED}""",
        quick=True,
    ),
    Check(
        "the database has not exactly one history",
        "SELECT count(*) FROM history HAVING count(*) <> 1",
        quick=True,
    ),
    Check(
        # It may be fewer: a program from before the quota does not count.
        "more registrations are counted in the day than there were",
        f"""SELECT name, registrations_of_day, coalesce(registered, 0)
            FROM accounts LEFT JOIN (
            SELECT account, count(*) AS registered FROM events CROSS JOIN accounts
            WHERE name = account AND from_status IS NULL
                AND event_time_us >= registration_day * {DAY_US} - {CLOCKS_APART_US}
            GROUP BY account) AS e ON account = name
            WHERE registrations_of_day > coalesce(registered, 0) + {_purged("passes")}""",
        quick=True,
        warning=True,
    ),
    Check(
        "pass or event belongs to no account",
        """SELECT account, 'passes' FROM passes GROUP BY account
            HAVING account NOT IN (SELECT name FROM accounts)
            UNION ALL SELECT account, 'events' FROM events GROUP BY account
            HAVING account NOT IN (SELECT name FROM accounts)""",
        quick=True,
    ),
    Check(
        # Any other event is about the pass of its previous event: see below.
        "registration is about no pass",
        """SELECT account, sequence, id_pass_id FROM events WHERE from_status IS NULL
            AND NOT EXISTS (SELECT 1 FROM passes
                WHERE passes.account = events.account AND id = id_pass_id)""",
    ),
    Check(
        "pass was refunded more than once",
        # A refund ends its pass: only its erasure may come after it.
        """SELECT e.account, e.id_pass_id, e.sequence FROM events e
            JOIN passes p ON p.account = e.account AND p.id = e.id_pass_id
            WHERE refund_micros IS NOT NULL AND e.sequence <> p.event_sequence AND NOT EXISTS (
                SELECT 1 FROM events n WHERE n.account = p.account
                AND n.sequence = p.event_sequence AND n.erased <> 0
                AND n.previous_sequence = e.sequence)""",
    ),
    Check(
        "refund is not what the transition says",
        f"""SELECT account, id_pass_id, from_status, to_status, refund_micros FROM events
            WHERE (refund_micros IS NOT NULL) <> (from_status IS NOT NULL AND {_REFUNDED})
            UNION ALL
            SELECT e.account, e.id_pass_id, e.from_status, e.to_status, e.refund_micros
            FROM events e JOIN passes p ON p.account = e.account AND p.id = e.id_pass_id
            WHERE refund_micros <> fee_micros""",
    ),
    Check(
        "transition is not in the table",
        f"""SELECT account, sequence, from_status, to_status FROM events
            WHERE from_status IS NOT NULL AND CASE WHEN erased = 1 THEN from_status <> to_status
                ELSE (from_status, to_status) NOT IN (VALUES {_arrows()}) END
            UNION ALL SELECT account, sequence, from_status, to_status FROM events
            WHERE from_status IS NULL
                AND NOT (to_status = 'new' AND charge_micros IS NOT NULL
                    AND previous_sequence IS NULL)""",
        quick=True,
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
        # An erasure leaves what the event before it has made. Two never follow each other.
        """SELECT p.account, p.id, p.status FROM passes p LEFT JOIN events n
            ON n.account = p.account AND n.sequence = p.event_sequence AND n.id_pass_id = p.id
            LEFT JOIN events e ON e.account = n.account AND e.id_pass_id = n.id_pass_id
                AND e.sequence = CASE WHEN n.erased = 1 THEN n.previous_sequence
                    ELSE n.sequence END
            WHERE p.status IS DISTINCT FROM n.to_status
                OR p.status IS DISTINCT FROM e.to_status
                OR p.update_time_us IS DISTINCT FROM e.event_time_us
                OR p.caller IS DISTINCT FROM e.caller
                OR (p.fee_refunded = 1) <> (e.refund_micros IS NOT NULL)""",
    ),
    Check(
        # Until its status changes again, which may bring another note.
        "pass was erased and still names its applicant",
        """SELECT p.account, p.id FROM passes p JOIN events n
            ON n.account = p.account AND n.sequence = p.event_sequence
            WHERE n.erased = 1
                AND (p.applicant_reference <> '' OR coalesce(p.cancel_note, '') <> '')""",
    ),
    Check(
        # Each event is its pass's newest, or the previous one of another event. A set difference
        # would be sorted in memory, so sums stand for the sets.
        "event is in no pass's chain of events",
        f"""SELECT name FROM accounts LEFT JOIN (
            SELECT account, count(*) AS n, {_sums("sequence", "x")},
                count(previous_sequence) AS known, {_sums("previous_sequence", "y")}
            FROM events GROUP BY account) AS e ON e.account = name
            LEFT JOIN (SELECT account, count(*) AS newest, {_sums("event_sequence", "z")}
            FROM passes GROUP BY account) AS p ON p.account = name
            WHERE coalesce(n, 0) <> coalesce(known, 0) + coalesce(newest, 0)
                OR coalesce(x, 0) <> coalesce(y, 0) + coalesce(z, 0)
                OR coalesce(xx, 0) <> coalesce(yy, 0) + coalesce(zz, 0)""",
        which="""SELECT account, sequence FROM events
            EXCEPT SELECT account, event_sequence FROM passes
            EXCEPT SELECT account, previous_sequence FROM events
            WHERE previous_sequence IS NOT NULL""",
    ),
    Check(
        "pass has ended without an end_time, or has one in flight",
        f"""SELECT account, id, status, end_time_us FROM passes
            WHERE (end_time_us IS NULL) <> (status IN ({_FLYING}))""",
        quick=True,
    ),
    Check(
        "pass in flight has no timer",
        """SELECT account, id FROM passes WHERE end_time_us IS NULL AND NOT EXISTS (
            SELECT 1 FROM timers WHERE timers.account = passes.account
                AND timers.expire_time_us = passes.expire_time_us AND id_pass_id = id)""",
    ),
    Check(
        "link between a pass and the one that superseded it is one-sided",
        # The other one may have been purged.
        """SELECT p.account, p.id, p.supersedes FROM passes p LEFT JOIN passes o
            ON o.account = p.account AND o.id = p.supersedes
            WHERE p.supersedes IS NOT NULL AND o.superseded_by IS DISTINCT FROM p.id
                AND NOT (o.id IS NULL AND p.account IN (SELECT account FROM purged_totals))
            UNION ALL SELECT o.account, o.id, o.superseded_by FROM passes o LEFT JOIN passes p
            ON p.account = o.account AND p.id = o.superseded_by
            WHERE o.superseded_by IS NOT NULL AND p.supersedes IS DISTINCT FROM o.id
                AND NOT (p.id IS NULL AND o.account IN (SELECT account FROM purged_totals))""",
    ),
    Check(
        "times go back although the sequence goes on: a clock was wrong",
        f"""SELECT e.account, e.sequence, b.event_time_us - e.event_time_us
            FROM events e JOIN events b ON b.account = e.account AND b.sequence = e.sequence - 1
            WHERE e.event_time_us < b.event_time_us - {CLOCKS_APART_US}""",
        warning=True,
    ),
)


class Audit(NamedTuple):
    """The result of an audit.

    Attributes:
        problems: violated invariants, one finding per line.
        warnings: what operators should know.
        counts: number of accounts, passes and events.
    """

    problems: list[str]
    warnings: list[str]
    counts: dict[str, int]


def audit(
    connection: Any, *, quick: bool = False, begin: Callable[[str], None] = lambda _: None
) -> Audit:
    """Checks a database.

    Args:
        connection: to the database, in a read transaction.
        quick: leave out checks that compare rows of different tables.
        begin: called before each step with what it looks for.
    """
    found: tuple[list[str], list[str]] = ([], [])
    for check in _checks(quick=quick):
        begin(check.wrong)
        rows = _rows(connection, check.sql)
        if rows and check.which is not None:
            rows = _rows(connection, check.which) or rows
        lines = [f"{check.wrong}: {', '.join(map(str, row))}" for row in rows[:SHOWN_PER_CHECK]]
        if len(rows) > SHOWN_PER_CHECK:
            lines.append(f"{check.wrong}: and more")
        found[check.warning].extend(lines)
    begin("rows")
    return Audit(*found, count(connection))


def _rows(connection: Any, sql: str) -> list[Any]:
    found: list[Any] = connection.execute(f"{sql} LIMIT {SHOWN_PER_CHECK + 1}").fetchall()
    return found


def _checks(*, quick: bool) -> list[Check]:
    return [check for check in CHECKS if check.quick or not quick]


def count(connection: Any) -> dict[str, int]:
    """Number of accounts, passes and events."""
    return {
        table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        for table in ("accounts", "passes", "events")
    }
