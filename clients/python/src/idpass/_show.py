"""How the command line shows things: tables for people, JSON for programs.

Text written by others is never markup, and no character of it controls the terminal.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from datetime import datetime, timezone
from decimal import Decimal
from enum import Enum
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from idpass._cleanup import Cleanup
from idpass._records import Account, Event, IdPass, Receipt
from idpass._words import Status
from idpass.errors import IdPassError

TABLE_ROWS = 500
STYLES = {
    Status.NEW: "cyan",
    Status.OPENED: "blue",
    Status.IN_PROGRESS: "yellow",
    Status.COMPLETE: "green",
    Status.EXPIRED: "dim",
    Status.FAILED: "red",
    Status.CANCELLED: "magenta",
}


def as_json(value: Any, *, ascii_only: bool = False) -> str:
    """One line. Field names are those of the records; times are RFC 3339, amounts are strings."""
    line = json.dumps(_plain(value), ensure_ascii=ascii_only)
    # Such characters occur in strings only, where JSON allows escapes.
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in line)


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    return str(value) if isinstance(value, (Enum, Decimal)) else value


def error_fields(error: IdPassError) -> dict[str, Any]:
    return {
        "error": type(error).__name__,
        "code": error.code.name,
        "reason": error.reason,
        "message": error.message,
        "metadata": error.metadata,
        "reference": error.reference,
        "request_id": error.request_id,
    }


def when(time: datetime | None) -> str:
    """Local time with its offset from UTC, for people; "" for None."""
    return time.astimezone().isoformat(" ", "seconds") if time else ""


def ago(time: datetime) -> str:
    seconds = int((datetime.now(timezone.utc) - time).total_seconds())
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= length:
            return f"{seconds // length}{unit}"
    return f"{max(seconds, 0)}s"


def styled(status: Status | None) -> Text:
    return Text(str(status or ""), STYLES.get(status, "") if status else "")


Shown = str | Text
Row = tuple[str, Shown]
Column = tuple[str, Callable[[Any], Shown]]
PASS_COLUMNS: tuple[Column, ...] = (
    ("id", lambda p: p.id),
    ("status", lambda p: styled(p.status)),
    ("idle", lambda p: ago(p.update_time)),
    ("expires", lambda p: when(p.expire_time)),
    ("fee", lambda p: f"{p.fee}{' refunded' if p.fee_refunded else ''}"),
    ("applicant", lambda p: harmless(p.applicant_reference)),
)


def pass_table(console: Console, passes: Iterable[IdPass]) -> None:
    """Shows passes as they come, a screen at a time: there may be any number of them."""
    chunk: list[IdPass] = []
    shown = 0
    for id_pass in passes:
        chunk.append(id_pass)
        if len(chunk) == TABLE_ROWS:
            _print_table(console, chunk, header=not shown)
            shown += len(chunk)
            chunk = []
    if chunk or not shown:
        _print_table(console, chunk, header=not shown)


def _print_table(console: Console, passes: list[IdPass], *, header: bool) -> None:
    table = Table(box=None, show_header=header, pad_edge=False)
    for name, _ in PASS_COLUMNS:
        table.add_column(name, no_wrap=True, overflow="ignore" if name == "id" else "ellipsis")
    for id_pass in passes:
        table.add_row(*(show(id_pass) for _, show in PASS_COLUMNS))
    console.print(table, crop=False)


def table(console: Console, names: Iterable[str], cells: Iterable[Iterable[Shown]]) -> None:
    """A table with a header."""
    shown = Table(box=None, pad_edge=False)
    for name in names:
        shown.add_column(name, no_wrap=True, overflow="ignore")
    for row in cells:
        shown.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))
    console.print(shown, crop=False)


def rows(console: Console, pairs: Iterable[Row]) -> None:
    """Names and values, one pair a line; empty values are left out."""
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in pairs:
        if value:
            table.add_row(Text(name, "dim"), value)
    console.print(table, crop=False)


def pass_rows(id_pass: IdPass) -> list[Row]:
    how = id_pass.cancellation
    return [
        ("id", id_pass.id),
        ("status", styled(id_pass.status)),
        ("fee", f"{id_pass.fee}{', refunded' if id_pass.fee_refunded else ''}"),
        ("applicant", harmless(id_pass.applicant_reference)),
        ("supersedes", id_pass.supersedes or ""),
        ("superseded by", id_pass.superseded_by or ""),
        ("registered", when(id_pass.create_time)),
        ("last change", f"{when(id_pass.update_time)} by {harmless(id_pass.caller)}"),
        ("expires", when(id_pass.expire_time)),
        ("consent", when(id_pass.consent_time)),
        ("ended", when(id_pass.end_time)),
        ("reason", str(how.reason) if how else ""),
        ("note", harmless(how.note) if how else ""),
    ]


def account_rows(account: Account) -> list[Row]:
    return [
        ("account", account.id),
        ("slots", f"{account.slots_in_use} of {account.slot_limit} in use"),
        ("fee", str(account.fee)),
        ("fees charged", str(account.fees_charged)),
        ("fees refunded", str(account.fees_refunded)),
        ("last event", str(account.last_sequence)),
        ("oldest position", str(account.oldest_sequence or "")),
        ("history", account.history),
    ]


def ping_rows(found: dict[str, Any]) -> list[Row]:
    trip_ms = found.get("round_trip_ms")
    return [
        ("address", found["address"]),
        ("connection", found["connection"]),
        ("reachable", "yes" if found["reachable"] else "no"),
        ("account", found.get("account", "")),
        ("history", found.get("history", "")),
        ("last event", str(found.get("last_sequence", ""))),
        ("round trip", f"{trip_ms} ms" if trip_ms is not None else ""),
        ("client", found["client_version"]),
    ]


def event_line(event: Event) -> Text:
    line = Text.assemble(
        (f"{event.sequence:>8}  {when(event.event_time)}", "dim"), f"  {event.id}  "
    )
    if event.from_status and not event.erased:
        line.append_text(styled(event.from_status)).append(" → ")
    line.append_text(styled(event.to_status))
    if event.refund:
        line.append(f", {event.refund} refunded")
    if event.reason:
        line.append(f", {event.reason}")
    if event.erased:
        line.append(", applicant reference and note erased")
    return line.append(f"  {harmless(event.caller)}  {harmless(event.reference)}", "dim")


def receipt_line(receipt: Receipt, *, checked: bool = False) -> Text:
    line = Text(f"{receipt.id}  ").append_text(styled(receipt.status))
    if checked:
        line = Text("checked only, nothing is changed: ").append_text(line)
    if receipt.previous_status:
        line.append(" (was ").append_text(styled(receipt.previous_status)).append(")")
    line.append(f", {receipt.refund} refunded" if receipt.refund else ", no refund")
    if receipt.replayed:
        line.append(", as answered before")
    return line.append(f"  reference {receipt.reference}", "dim")


def error_line(error: IdPassError) -> Text:
    return Text.assemble((type(error).__name__, "red"), f": {harmless(str(error))}")


def plan_rows(work: Cleanup) -> list[Row]:
    if not work.found:
        return [("", "There is nothing to clean up.")]
    return [
        *((str(status), f"{count} to cancel") for status, count in work.counts.items() if count),
        ("all", f"{work.found} to cancel, {work.expected} to come back"),
    ]


def summary_rows(work: Cleanup) -> list[Row]:
    return [
        ("cancelled", summary_line(work).removeprefix("cancelled ")),
        ("left alone", f"{work.moved_on}, which moved on meanwhile" if work.moved_on else ""),
        ("refused", str(work.refused or "")),
        ("stopped", "before the end; run it again for the rest" if work.stopping else ""),
    ]


def summary_line(work: Cleanup) -> str:
    return f"cancelled {work.cancelled}, {work.refunded} of them refunded: {work.refunds}"


@contextmanager
def progress(console: Console, total: int) -> Iterator[Callable[[], None]]:
    """A progress bar on a terminal, nothing elsewhere. Yields a function to call for each pass."""
    if not console.is_terminal:
        yield lambda: None
        return
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=total)
        yield lambda: bar.advance(task)


def harmless(text: str) -> str:
    """Text of others without characters that could control the terminal or reorder other text."""
    return "".join(c if c.isprintable() else "�" for c in text)
