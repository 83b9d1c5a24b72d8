"""The fees that were given back, one by one and in total, for databases of either kind.

Events have no index of times: a report reads all events, in the order of their keys. All is read
from one snapshot, so that the rows and the totals belong together.
"""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from idpass_server.rules.records import Event
from idpass_server.store import either
from idpass_server.store.rows import columns

_CHOSEN: Final = "CAST(:account AS text) IS NULL OR account = :account"
_ROWS: Final = f"""
    SELECT {columns(Event)} FROM events
    WHERE refund_micros IS NOT NULL AND event_time_us >= :from_us AND event_time_us < :to_us
        AND ({_CHOSEN})
    ORDER BY account, sequence"""


def _sum(column: str, condition: str = "TRUE") -> str:
    """A sum over an account's events. PostgreSQL's sum of bigint is numeric."""
    return f"CAST(coalesce(sum(CASE WHEN {condition} THEN {column} END), 0) AS bigint)"


_RANGE: Final = "event_time_us >= :from_us AND event_time_us < :to_us"
_TOTALS: Final = f"""
    SELECT name, accounts.currency, coalesce(e.charged, 0), coalesce(e.refunded, 0),
        coalesce(e.refunds, 0), coalesce(e.all_charged, 0) + coalesce(p.charged_micros, 0),
        coalesce(e.all_refunded, 0) + coalesce(p.refunded_micros, 0),
        accounts.charged_micros, accounts.refunded_micros
    FROM accounts LEFT JOIN (
        SELECT account, {_sum("charge_micros", _RANGE)} AS charged,
            {_sum("refund_micros", _RANGE)} AS refunded,
            count(CASE WHEN refund_micros IS NOT NULL AND {_RANGE} THEN 1 END) AS refunds,
            {_sum("charge_micros")} AS all_charged, {_sum("refund_micros")} AS all_refunded
        FROM events WHERE {_CHOSEN} GROUP BY account
    ) AS e ON e.account = name
    LEFT JOIN purged_totals p ON p.account = name
    WHERE CAST(:account AS text) IS NULL OR name = :account
    ORDER BY name"""


class Range(NamedTuple):
    """Which refunds to report.

    Attributes:
        from_us: the first moment, microseconds since the epoch.
        to_us: the first moment after the last, microseconds since the epoch.
        account: name of the only account; None for all.
    """

    from_us: int
    to_us: int
    account: str | None = None


class Total(NamedTuple):
    """An account's fees. An account has one currency from its first event on.

    Attributes:
        account: its name.
        currency: ISO 4217 code.
        charged_micros: fees charged within the range.
        refunded_micros: fees given back within the range.
        refunds: number of refunds within the range.
        events_charged_micros: fees charged by all events that there are and that were purged.
        events_refunded_micros: fees given back by all events that there are and that were purged.
        account_charged_micros: what the account itself says was ever charged.
        account_refunded_micros: what the account itself says was ever given back.
    """

    account: str
    currency: str
    charged_micros: int
    refunded_micros: int
    refunds: int
    events_charged_micros: int
    events_refunded_micros: int
    account_charged_micros: int
    account_refunded_micros: int


def refunds(connection: Any, wanted: Range) -> Iterator[Event]:
    """Yields the events that gave a fee back, by account, in order.

    Args:
        connection: in a read transaction.
        wanted: which ones.
    """
    return map(Event._make, either.stream(connection, _ROWS, **wanted._asdict()))


def totals(connection: Any, wanted: Range) -> list[Total]:
    """The totals of each account, by name.

    Args:
        connection: in the read transaction that the refunds come from.
        wanted: of which refunds.
    """
    return list(map(Total._make, either.run(connection, _TOTALS, **wanted._asdict())))
