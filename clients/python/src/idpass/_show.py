"""How the command line shows things: tables for people, JSON for programs."""

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

from idpass._cleanup import Cleanup
from idpass._records import Account, Event, IdPass, Receipt, Status
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


def as_json(value: Any) -> str:
    """One line. Field names are the records'; times are RFC 3339, amounts of money text."""
    return json.dumps(_plain(value), ensure_ascii=False)


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
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
    """Local time for people; "" for none."""
    return f"{time.astimezone():%Y-%m-%d %H:%M:%S}" if time else ""


def ago(time: datetime) -> str:
    seconds = int((datetime.now(timezone.utc) - time).total_seconds())
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= length:
            return f"{seconds // length}{unit}"
    return f"{max(seconds, 0)}s"


def styled(status: Status | None) -> str:
    if status is None:
        return ""
    style = STYLES.get(status)
    return f"[{style}]{status}[/]" if style else str(status)


Column = tuple[str, Callable[[Any], str]]
PASS_COLUMNS: tuple[Column, ...] = (
    ("id", lambda p: p.id),
    ("status", lambda p: styled(p.status)),
    ("idle", lambda p: ago(p.update_time)),
    ("expires", lambda p: when(p.expire_time)),
    ("fee", lambda p: f"{p.fee}{' refunded' if p.fee_refunded else ''}"),
    ("applicant", lambda p: escaped(p.applicant_reference)),
)


def pass_table(console: Console, passes: Iterable[IdPass]) -> None:
    """Args: passes: shown as they come, a screen at a time: their number has no limit."""
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


def rows(console: Console, pairs: Iterable[tuple[str, str]]) -> None:
    """Names and values, one to a line; what is empty is left out."""
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in pairs:
        if value:
            table.add_row(f"[dim]{name}[/]", value)
    console.print(table, crop=False)


def pass_rows(id_pass: IdPass) -> list[tuple[str, str]]:
    how = id_pass.cancellation
    return [
        ("id", id_pass.id),
        ("status", styled(id_pass.status)),
        ("fee", f"{id_pass.fee}{', refunded' if id_pass.fee_refunded else ''}"),
        ("applicant", escaped(id_pass.applicant_reference)),
        ("supersedes", id_pass.supersedes or ""),
        ("superseded by", id_pass.superseded_by or ""),
        ("registered", when(id_pass.create_time)),
        ("last change", f"{when(id_pass.update_time)} by {id_pass.caller}"),
        ("expires", when(id_pass.expire_time)),
        ("consent", when(id_pass.consent_time)),
        ("ended", when(id_pass.end_time)),
        ("reason", str(how.reason) if how else ""),
        ("note", escaped(how.note) if how else ""),
    ]


def account_rows(account: Account) -> list[tuple[str, str]]:
    return [
        ("account", account.id),
        ("slots", f"{account.slots_in_use} of {account.slot_limit} in use"),
        ("fee", str(account.fee)),
        ("fees charged", str(account.fees_charged)),
        ("fees refunded", str(account.fees_refunded)),
        ("last event", str(account.last_sequence)),
    ]


def event_line(event: Event) -> str:
    refund = f", {event.refund} refunded" if event.refund else ""
    reason = f", {event.reason}" if event.reason else ""
    arrow = f"{styled(event.from_status)} → " if event.from_status else ""
    return (
        f"[dim]{event.sequence:>8}  {when(event.event_time)}[/]  {event.id}  "
        f"{arrow}{styled(event.to_status)}{refund}{reason}  [dim]{escaped(event.caller)}[/]"
    )


def receipt_line(receipt: Receipt) -> str:
    refund = f"{receipt.refund} refunded" if receipt.refund else "no refund"
    before = f" (was {styled(receipt.previous_status)})" if receipt.previous_status else ""
    again = ", as answered before" if receipt.replayed else ""
    return f"{receipt.id}  {styled(receipt.status)}{before}, {refund}{again}"


def error_line(error: IdPassError) -> str:
    return f"[red]{type(error).__name__}[/]: {escaped(str(error))}"


def plan_rows(work: Cleanup) -> list[tuple[str, str]]:
    if not work.found:
        return [("", "There is nothing to clean up.")]
    return [
        *((str(status), f"{count} to cancel") for status, count in work.counts.items() if count),
        ("all", f"{work.found} to cancel, {work.expected} to come back"),
    ]


def summary_rows(work: Cleanup) -> list[tuple[str, str]]:
    return [
        ("cancelled", f"{work.cancelled}, {work.refunded} of them refunded: {work.refunds}"),
        ("left alone", f"{work.moved_on}, which moved on meanwhile" if work.moved_on else ""),
        ("refused", str(work.refused or "")),
        ("stopped", "before the end; run it again for the rest" if work.stopping else ""),
    ]


@contextmanager
def progress(console: Console, total: int) -> Iterator[Callable[[], None]]:
    """A bar on a terminal, nothing elsewhere. Yields what is to be called for each pass."""
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=total)
        yield lambda: bar.advance(task)


def escaped(text: str) -> str:
    """Text of others, which must neither be taken for markup nor steer the terminal."""
    printable = "".join(c if c.isprintable() else "�" for c in text)
    return printable.replace("[", r"\[")
