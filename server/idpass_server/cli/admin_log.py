"""The command `admin-log`: what operators have changed."""

import json

import click

from idpass_server import logs
from idpass_server.cli.base import main, option
from idpass_server.cli.showing import Moment, show_time
from idpass_server.store import opening
from idpass_server.store.admin_log import Entry, entries


@main.command("admin-log")
@click.option("--account", metavar="NAME", help="Only changes to this account.")
@click.option(
    "--since", type=Moment(), default=0, help="Only changes from this day (UTC) or time on."
)
@click.option("--format", "form", type=click.Choice(("text", "json")), default="text")
@option("db")
def admin_log_command(account: str | None, since: int, form: str, db: str) -> None:
    """Show what operators have changed, oldest first: when, who, what, before and after.

    `json` is one object a line. Who an operator is, is what they said with --as, or the user they
    had logged in as: the log records it and cannot prove it.
    """
    logs.configure("warning")
    with opening.reading_store(db) as connection:
        for entry in entries(connection, account=account, since_us=since):
            click.echo(_as_json(entry) if form == "json" else _as_text(entry))


def _as_json(entry: Entry) -> str:
    facts = entry._asdict() | {"time": show_time(entry.time_us)}
    for side in ("before", "after"):
        facts[side] = json.loads(facts[side]) if facts[side] else None
    del facts["time_us"]
    return json.dumps(facts)


def _as_text(entry: Entry) -> str:
    change = f"{entry.before or '-'} -> {entry.after or '-'}"
    return "  ".join(
        (show_time(entry.time_us), entry.who, entry.what, entry.account or "-", change)
    )
