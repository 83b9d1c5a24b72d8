"""Old passes: finding them without an index, for databases of either kind.

An account's passes are read in the order of their ids, in pages that look at a bounded number of
rows; whoever reads them keeps the position. There is no index of end times or applicants: it would
cost every cancellation, for what is asked once a day.
"""

from typing import Any, Final, NamedTuple

from idpass_server.store import either

SCAN_ROWS: Final = 5_000
"""Number of passes that one page looks at."""

_PAGE: Final = "FROM passes WHERE account = :account {start} ORDER BY id"
_FIND: Final = f"""
    SELECT id FROM (SELECT * {_PAGE} LIMIT :scan) AS scanned WHERE {{which}}
    ORDER BY id LIMIT :limit"""
_LAST_SCANNED: Final = f"SELECT id {_PAGE} LIMIT 1 OFFSET :scan - 1"


class Wanted(NamedTuple):
    """Which passes of an account to find; all conditions apply.

    Attributes:
        account: name of the account that owns them.
        ended_before_us: only passes that ended before this, microseconds since the epoch; None for
            any, in flight or not.
        applicant_reference: only passes with this reference; None for any.
        id: only the pass with this id; None for any.
        personal: only passes with something to erase.
    """

    account: str
    ended_before_us: int | None = None
    applicant_reference: str | None = None
    id: str | None = None
    personal: bool = False


class Found(NamedTuple):
    """A page of what was found.

    Attributes:
        ids: in order; may be none although more follow.
        next_after_id: where the next page begins; None after the last.
    """

    ids: list[str]
    next_after_id: str | None


def find(connection: Any, wanted: Wanted, after_id: str | None, limit: int) -> Found:
    """Finds passes by looking at up to SCAN_ROWS of an account.

    Args:
        connection: to a database of either kind.
        wanted: which passes.
        after_id: where the page begins; None for the first.
        limit: largest number of ids.
    """
    start = "AND id > :after_id" if after_id else ""
    conditions = ["true"]
    if wanted.ended_before_us is not None:
        conditions.append("end_time_us < :ended_before_us")
    if wanted.applicant_reference is not None:
        conditions.append("applicant_reference = :applicant_reference")
    if wanted.id is not None:
        start += " AND id = :id"
    if wanted.personal:
        conditions.append("(applicant_reference <> '' OR cancel_note <> '')")
    values = {**wanted._asdict(), "after_id": after_id, "limit": limit, "scan": SCAN_ROWS}
    statement = _FIND.format(start=start, which=" AND ".join(conditions))
    rows = either.run(connection, statement, **values)
    ids = [pass_id for (pass_id,) in rows]
    if len(ids) == limit:
        return Found(ids, ids[-1])
    row = either.run(connection, _LAST_SCANNED.format(start=start), **values).fetchone()
    return Found(ids, row[0] if row else None)


def account_names(connection: Any) -> list[str]:
    """Names of all accounts, in order."""
    return [name for (name,) in either.run(connection, "SELECT name FROM accounts ORDER BY name")]
