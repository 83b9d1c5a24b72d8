"""Commands that find passes for a support desk, whoever owns them; they change nothing."""

import json
import re
import time
from typing import Any, Final

import click

from idpass_server import logs
from idpass_server.cli.base import main, option
from idpass_server.cli.showing import show_time, table
from idpass_server.rules.money import show_amount, show_money
from idpass_server.rules.records import Event, Money, Pass
from idpass_server.store import inquiries, opening

_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_account: Final = click.option("--account", metavar="NAME", help="Only passes of this account.")
_as_json: Final = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def _uuid(_context: Any, _parameter: Any, value: str) -> str:
    if not _UUID.fullmatch(value.lower()):
        raise click.BadParameter(f"{value!r} is not a UUID")
    return value.lower()


@main.group("pass")
def pass_group() -> None:
    """Find passes of any account, for a support desk."""


@pass_group.command()
@click.argument("pass_id", metavar="ID", callback=_uuid)
@_account
@_as_json
@option("db")
def show(pass_id: str, account: str | None, db: str, *, as_json: bool) -> None:
    """Show a pass with its note and its events."""
    logs.configure("warning")
    with opening.reading_store(db) as connection:
        found = [
            (each, inquiries.events_of(connection, each))
            for each in inquiries.passes_by_id(connection, pass_id, account)
        ]
    if not found:
        where = f"account {account} has no pass" if account else "no account has a pass"
        raise click.ClickException(f"{where} {pass_id}; check the id, and which database --db is")
    for id_pass, events in found:
        if as_json:
            facts = _facts(id_pass) | {
                "note": id_pass.cancel_note,
                "events": [_event_facts(each) for each in events],
            }
            click.echo(json.dumps(facts, indent=2))
        else:
            _show(id_pass, events)


@pass_group.command()
@click.option("--applicant", required=True, metavar="REF", help="The whole applicant reference.")
@_account
@_as_json
@option("db")
def find(applicant: str, account: str | None, db: str, *, as_json: bool) -> None:
    """Find the passes of an applicant, newest first in each account."""
    logs.configure("warning")
    if not applicant:
        raise click.UsageError("--applicant is empty; give the whole reference")
    with opening.reading_store(db) as connection:
        found = list(inquiries.passes_by_applicant(connection, applicant, account))
    if as_json:
        click.echo(json.dumps([_facts(each) for each in found], indent=2))
        return
    if not found:
        raise click.ClickException(
            "there is no pass with this applicant reference; it is compared as a whole, and may "
            "have been erased"
        )
    heads = ("id", "account", "status", "registered", "fee", "refunded")
    rows = [
        (
            each.id,
            each.account,
            _status(each),
            show_time(each.create_time_us),
            show_money(Money(each.currency, each.fee_micros)),
            "yes" if each.fee_refunded else "no",
        )
        for each in found
    ]
    click.echo(table(heads, rows))


def _status(id_pass: Pass) -> str:
    overdue = id_pass.overdue(time.time_ns() // 1_000)
    return f"{id_pass.status} (overdue)" if overdue else id_pass.status


def _show(id_pass: Pass, events: list[Event]) -> None:
    fee = show_money(Money(id_pass.currency, id_pass.fee_micros))
    facts = {
        "pass": id_pass.id,
        "account": id_pass.account,
        "status": _status(id_pass),
        "fee": f"{fee}, refunded" if id_pass.fee_refunded else fee,
        "applicant": _quoted(id_pass.applicant_reference),
        "supersedes": id_pass.supersedes,
        "superseded by": id_pass.superseded_by,
        "registered": show_time(id_pass.create_time_us),
        "expires": show_time(id_pass.expire_time_us),
        "consented": id_pass.consent_time_us and show_time(id_pass.consent_time_us),
        "ended": id_pass.end_time_us and show_time(id_pass.end_time_us),
        "reason": id_pass.cancel_reason,
        "note": _quoted(id_pass.cancel_note),
    }
    for name, value in facts.items():
        if value:
            click.echo(f"{name:<13}  {value}")
    heads = ("sequence", "time", "status", "caller", "reason", "amount", "reference", "request_id")
    click.echo(f"\n{table(heads, [_event_row(each) for each in events])}")


def _event_row(event: Event) -> tuple[str, ...]:
    if event.charge_micros is not None:
        amount = f"charged {show_money(Money(event.currency, event.charge_micros))}"
    elif event.refund_micros is not None:
        amount = f"refunded {show_money(Money(event.currency, event.refund_micros))}"
    else:
        amount = "-"
    return (
        str(event.sequence),
        show_time(event.event_time_us),
        "erased" if event.erased else event.to_status,
        event.caller,
        event.reason or "-",
        amount,
        event.reference,
        event.request_id or "-",
    )


def _quoted(text: str | None) -> str:
    """Free text on one line; whatever steers a terminal is escaped."""
    return json.dumps(text, ensure_ascii=not text.isprintable()) if text else ""


def _facts(id_pass: Pass) -> dict[str, object]:
    """A pass for programs, without its note; amounts as decimals."""
    facts: dict[str, object] = {}
    for name, value in id_pass._asdict().items():
        if name.endswith("_us"):
            facts[name.removesuffix("_us")] = None if value is None else show_time(value)
        elif name not in ("fee_micros", "fee_refunded", "cancel_note"):
            facts[name] = value
    facts["fee"] = show_amount(Money(id_pass.currency, id_pass.fee_micros))
    return facts | {"fee_refunded": bool(id_pass.fee_refunded)}


def _event_facts(event: Event) -> dict[str, object]:
    """An event for programs; amounts as decimals."""
    amounts = {"charge": event.charge_micros, "refund": event.refund_micros}
    return {
        "sequence": event.sequence,
        "time": show_time(event.event_time_us),
        "from_status": event.from_status,
        "to_status": event.to_status,
        "caller": event.caller,
        "reference": event.reference,
        "request_id": event.request_id,
        "reason": event.reason or None,
        "currency": event.currency,
        "erased": bool(event.erased),
    } | {
        name: None if micros is None else show_amount(Money(event.currency, micros))
        for name, micros in amounts.items()
    }
