"""The command `report refunds`, for finance; it changes nothing."""

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Final

import click

from idpass_server import logs
from idpass_server.cli.base import main, option
from idpass_server.cli.showing import Moment, show_time
from idpass_server.rules.money import show_amount, show_money
from idpass_server.rules.records import Event, Money
from idpass_server.store import opening
from idpass_server.store.refunds import Range, Total, refunds, totals

COLUMNS: Final = (
    *("record", "account", "pass", "time", "reference", "caller", "reason"),
    *("currency", "refunded", "charged", "refunds"),
)
"""Columns of the CSV, and names in the JSON. `record` is "refund" or, at the end, "total"."""
WRITTEN_CHARACTERS: Final = 100_000
"""Size of the pieces in which a report is written, characters."""
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
LAST_US: Final = 2**53
"""A moment after all that the service can store, microseconds since the epoch."""

Row = dict[str, str]


@main.group()
def report() -> None:
    """Report to finance."""


@report.command("refunds")
@click.option(
    "--from",
    "from_us",
    type=Moment(),
    default=0,
    metavar="WHEN",
    help="First day (UTC), or time with its zone.  [default: the beginning]",
)
@click.option(
    "--to",
    "to_us",
    type=Moment(),
    default=LAST_US,
    metavar="WHEN",
    help="Day (UTC) or time to stop before: it is not reported itself.  [default: the end]",
)
@click.option("--account", metavar="NAME", help="Only refunds of this account.")
@click.option("--format", "form", type=click.Choice(("csv", "json")), default="csv")
@option("db")
@click.pass_context
def refunds_command(
    context: click.Context, *, from_us: int, to_us: int, account: str | None, form: str, db: str
) -> None:
    """List every refund within a time, then the totals of each account.

    It reads all events from one snapshot and compares their sums with the accounts' totals. Exits 1
    if they differ.
    """
    if from_us >= to_us:
        raise click.UsageError(
            f"--from {show_time(from_us)} is not before --to {show_time(to_us)}, which is not "
            "reported itself"
        )
    logs.configure("warning")
    wanted = Range(from_us, to_us, account)
    with opening.reading_store(db) as connection:
        sums = totals(connection, wanted)
        if account is not None and not sums:
            raise click.ClickException(f"there is no account {account}")
        listed = _Listed(refunds(connection, wanted))
        rows = chain(map(_refund, listed), map(_total, sums))
        for piece in _pieces(_as_csv(rows) if form == "csv" else _as_json(rows)):
            click.echo(piece, nl=False)
    wrong = [line for each in sums for line in _differences(each, listed)]
    for line in wrong:
        click.echo(f"not reconciled: {line}", err=True)
    if wrong:
        click.echo("Run: idpass-server audit", err=True)
        context.exit(1)
    click.echo(_reconciled(sums), err=True)


class _Listed:
    """Passes refunds on, and sums them up by account."""

    def __init__(self, events: Iterator[Event]) -> None:
        self._events = events
        self.micros: Counter[str] = Counter()

    def __iter__(self) -> Iterator[Event]:
        for event in self._events:
            self.micros[event.account] += event.refund_micros or 0
            yield event


def _differences(total: Total, listed: _Listed) -> Iterator[str]:
    compared = (
        ("refunds listed", listed.micros[total.account], total.refunded_micros),
        ("fees charged", total.events_charged_micros, total.account_charged_micros),
        ("fees refunded", total.events_refunded_micros, total.account_refunded_micros),
    )
    for what, events, expected in compared:
        if events != expected:
            currency = total.currency
            yield (
                f"account {total.account}, {what}: {show_money(Money(currency, events))} by its "
                f"events, {show_money(Money(currency, expected))} by its totals"
            )


def _reconciled(sums: list[Total]) -> str:
    count = f"{len(sums)} account" + ("" if len(sums) == 1 else "s")
    return f"reconciled: the events of {count} add up to the accounts' totals, to the last digit"


def _refund(event: Event) -> Row:
    return {
        "record": "refund",
        "account": event.account,
        "pass": event.id_pass_id,
        "time": show_time(event.event_time_us),
        "reference": event.reference,
        "caller": event.caller,
        "reason": event.reason,
        "currency": event.currency,
        "refunded": show_amount(Money(event.currency, event.refund_micros or 0)),
    }


def _total(total: Total) -> Row:
    return {
        "record": "total",
        "account": total.account,
        "currency": total.currency,
        "refunded": show_amount(Money(total.currency, total.refunded_micros)),
        "charged": show_amount(Money(total.currency, total.charged_micros)),
        "refunds": str(total.refunds),
    }


def _as_csv(rows: Iterable[Row]) -> Iterator[str]:
    """RFC 4180, with cells that a spreadsheet would take for a formula made text."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow(_harmless(row.get(name, "")) for name in COLUMNS)
        yield buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()
    yield buffer.getvalue()


def _harmless(cell: str) -> str:
    return f"'{cell}" if cell.startswith(_FORMULA) else cell


def _as_json(rows: Iterable[Row]) -> Iterator[str]:
    """One object a line."""
    for row in rows:
        yield json.dumps(row) + "\n"


def _pieces(texts: Iterable[str]) -> Iterator[str]:
    """Joins texts to pieces that are worth a write."""
    waiting: list[str] = []
    size = 0
    for text in texts:
        waiting.append(text)
        size += len(text)
        if size >= WRITTEN_CHARACTERS:
            yield "".join(waiting)
            waiting, size = [], 0
    yield "".join(waiting)
