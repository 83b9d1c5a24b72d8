"""Reading all that an account has, for databases of either kind."""

from collections.abc import Iterator
from typing import Any, Final

from idpass_server.rules.positions import Gap, Positions
from idpass_server.rules.records import Account, Event, Pass
from idpass_server.store import either
from idpass_server.store.purging import TOTALS
from idpass_server.store.rows import columns

_ACCOUNT: Final = f"SELECT {columns(Account)} FROM accounts WHERE name = :account"
_PASSES: Final = f"SELECT {columns(Pass)} FROM passes WHERE account = :account ORDER BY id"
_EVENTS: Final = f"SELECT {columns(Event)} FROM events WHERE account = :account ORDER BY sequence"
_HISTORY: Final = "SELECT id FROM history"
_GAPS: Final = """
    SELECT after_sequence, before_sequence FROM history_gaps WHERE account = :account
    ORDER BY after_sequence"""
_PURGED: Final = f"SELECT {', '.join(TOTALS[1:])} FROM purged_totals WHERE account = :account"
_COUNT: Final = """
    SELECT (SELECT count(*) FROM passes WHERE account = :account),
        (SELECT count(*) FROM events WHERE account = :account)"""


def account(connection: Any, name: str) -> Account | None:
    """The account of that name, or None."""
    row = either.run(connection, _ACCOUNT, account=name).fetchone()
    return Account._make(row) if row else None


def positions(connection: Any, name: str) -> Positions:
    """The history, and the gaps in the account's numbers."""
    (history,) = either.run(connection, _HISTORY).fetchone()
    return Positions(history, tuple(map(Gap._make, either.run(connection, _GAPS, account=name))))


def purged(connection: Any, name: str) -> dict[str, int]:
    """What purges have removed of the account, by column; empty if there was none."""
    row = either.run(connection, _PURGED, account=name).fetchone()
    return dict(zip(TOTALS[1:], row, strict=True)) if row else {}


def passes(connection: Any, name: str) -> Iterator[Pass]:
    """Yields an account's passes in the order of their ids; in a read transaction."""
    return map(Pass._make, either.stream(connection, _PASSES, account=name))


def events(connection: Any, name: str) -> Iterator[Event]:
    """Yields an account's events in order; in a read transaction."""
    return map(Event._make, either.stream(connection, _EVENTS, account=name))


def count(connection: Any, name: str) -> tuple[int, int]:
    """Number of an account's passes and events."""
    found: tuple[int, int] = either.run(connection, _COUNT, account=name).fetchone()
    return found
