"""The log of operators' changes: who did what to which account, before and after.

A change and its entry are one transaction, so that neither is there without the other. The log says
who the operator claims to be; it proves nothing, since whoever may write the database may write the
log. It never holds what a business or an applicant wrote: no note, no applicant reference.
"""

import json
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from idpass_server.ids import new_uuid
from idpass_server.store import either

State = Mapping[str, object]
"""What an operator can set of something, in the words of the command line; a few short values."""


class Entry(NamedTuple):
    """One change by an operator. The field order is the column order of its table.

    Attributes:
        id: UUIDv7, so that ids follow the time.
        time_us: when, microseconds since the epoch.
        who: the operator, as NAME@HOST.
        what: the command, such as "account set".
        account: name of the account changed; None for the database as a whole.
        before: what was changed, as it was, as JSON; None if it was not there.
        after: the same as it is now, as JSON; None if it is gone.
    """

    id: str
    time_us: int
    who: str
    what: str
    account: str | None
    before: str | None
    after: str | None


_COLUMNS: Final = ", ".join(Entry._fields)
_INSERT: Final = (
    f"INSERT INTO admin_log ({_COLUMNS}) VALUES ({', '.join(f':{name}' for name in Entry._fields)})"
)
_SELECT: Final = f"""
    SELECT {_COLUMNS} FROM admin_log
    WHERE time_us >= :since_us AND (CAST(:account AS text) IS NULL OR account = :account)
    ORDER BY id"""


def record(
    connection: Any,
    who: str,
    what: str,
    account: str | None,
    *,
    before: State | None,
    after: State | None,
) -> None:
    """Writes an entry.

    Args:
        connection: to a database of either kind, in the transaction of the change.
        who: the operator, as `cli.asking.operator` tells it.
        what: the command, such as "purge".
        account: name of the account changed; None for the database as a whole.
        before: what was changed, as it was; None if it was not there.
        after: the same as it is now; None if it is gone.
    """
    entry = Entry(
        new_uuid(), time.time_ns() // 1_000, who, what, account, _json(before), _json(after)
    )
    either.run(connection, _INSERT, **entry._asdict())


def entries(connection: Any, *, account: str | None = None, since_us: int = 0) -> Iterator[Entry]:
    """Yields the entries, oldest first.

    Args:
        connection: in a read transaction.
        account: only those about this account; None for all.
        since_us: only those from this time on, microseconds since the epoch.
    """
    rows = either.stream(connection, _SELECT, account=account, since_us=since_us)
    return map(Entry._make, rows)


def _json(state: State | None) -> str | None:
    return None if state is None else json.dumps(state)
