"""Removing old passes with their events, for databases of either kind.

What is left adds up: the account keeps its totals and its last sequence, a table sums up what was
removed, and a gap in the account's numbers says from which position events can be resumed. All of
it is one transaction, so a purge that ends at any instant leaves nothing to repair.

The pass of an account's newest event stays until there is a newer one: a server compares its clock
with that event.
"""

import json
from collections.abc import Sequence
from typing import Any, Final

from idpass_server.rules.positions import PURGED
from idpass_server.store import either

TOTALS: Final = ("account", "passes", "events", "charged_micros", "refunded_micros")
"""Columns of the table that sums up what was removed."""
_LOCK: Final = "SELECT name FROM accounts WHERE name = :account"
_OLD: Final = """
    SELECT id FROM passes WHERE account = :account AND id IN ({ids})
        AND end_time_us < :ended_before_us
        AND event_sequence < (SELECT max(sequence) FROM events WHERE account = :account)"""
_CHAIN: Final = """
    WITH RECURSIVE chain (sequence) AS (
        SELECT event_sequence FROM passes WHERE account = :account AND id IN ({ids})
        UNION ALL
        SELECT events.previous_sequence FROM chain
        CROSS JOIN events
        WHERE events.account = :account AND events.sequence = chain.sequence
            AND events.previous_sequence IS NOT NULL
    )"""
_SUMS: Final = f"""{_CHAIN}
    SELECT count(*), coalesce(sum(charge_micros), 0), coalesce(sum(refund_micros), 0),
        max(events.sequence)
    FROM chain CROSS JOIN events
    WHERE events.account = :account AND events.sequence = chain.sequence"""
_DELETE: Final = (
    f"""{_CHAIN}
    DELETE FROM events WHERE account = :account AND sequence IN (SELECT sequence FROM chain)""",
    """DELETE FROM timers WHERE account = :account AND (expire_time_us, id_pass_id) IN (
        SELECT expire_time_us, id FROM passes WHERE account = :account AND id IN ({ids}))""",
    "DELETE FROM passes WHERE account = :account AND id IN ({ids})",
)
_ADD: Final = f"""
    INSERT INTO purged_totals ({", ".join(TOTALS)})
    VALUES ({", ".join(f":{name}" for name in TOTALS)}) ON CONFLICT (account) DO UPDATE SET
    {", ".join(f"{name} = purged_totals.{name} + excluded.{name}" for name in TOTALS[1:])}"""
_WIDEN: Final = """
    INSERT INTO history_gaps (account, after_sequence, before_sequence)
    VALUES (:account, :after_sequence, :before_sequence)
    ON CONFLICT (account, after_sequence) DO UPDATE SET
        before_sequence = excluded.before_sequence
    WHERE excluded.before_sequence > history_gaps.before_sequence"""


def purge(connection: Any, account: str, ids: Sequence[str], ended_before_us: int) -> int:
    """Removes those of the passes that ended before a time, with all that belongs to them.

    Args:
        connection: to a database of either kind, in a transaction for changes.
        account: name of the account that owns them.
        ids: of the passes, as found before.
        ended_before_us: the time, microseconds since the epoch.

    Returns:
        number of passes removed.
    """
    either.run(connection, _LOCK + either.for_update(connection), account=account).fetchone()
    values: dict[str, Any] = {"account": account, "ended_before_us": ended_before_us}

    def run(statement: str, ids: Sequence[str]) -> Any:
        listed = statement.format(ids=either.uuids(connection, "ids"))
        return either.run(connection, listed, ids=json.dumps(list(ids)), **values)

    old = [pass_id for (pass_id,) in run(_OLD, ids)]
    if not old:
        return 0
    events, charged_micros, refunded_micros, newest = map(int, run(_SUMS, old).fetchone())
    for statement in _DELETE:
        run(statement, old)
    either.run(
        connection,
        _ADD,
        account=account,
        passes=len(old),
        events=events,
        charged_micros=charged_micros,
        refunded_micros=refunded_micros,
    )
    either.run(connection, _WIDEN, account=account, after_sequence=PURGED, before_sequence=newest)
    return len(old)
