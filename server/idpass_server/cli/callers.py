"""The command `callers check`; it changes nothing."""

from pathlib import Path

import click

from idpass_server import logs
from idpass_server.cli.base import main, option
from idpass_server.hosting import callers
from idpass_server.store import accounts, opening
from idpass_server.urls import shown_url


@main.group("callers")
def callers_group() -> None:
    """Look after the callers file."""


@callers_group.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@option("db", default=None, help="Database that must have the callers' accounts.")
def check(file: Path, db: str | None) -> None:
    """Check a callers file as the server would, and name each mistake with its line.

    Without --db any account will do.
    """
    logs.configure("warning")
    known = None
    if db is not None:
        with opening.reading_store(db) as connection:
            known = {each.name: each for each in accounts.every(connection)}
    found = callers.read(file, lambda name: known is None or name in known)
    everyone = {caller for _, caller in found.by_token} | set(found.by_spiffe_id.values())
    for caller in sorted(everyone):
        if known is not None and known[caller.account].disabled:
            click.echo(f"warning: account {caller.account} of {caller.name} is disabled", err=True)
    where = "not compared with any database" if db is None else f"all in {shown_url(db)}"
    click.echo(
        f"{file}: all is well: {found.total} callers with {len(found.by_token)} tokens and "
        f"{len(found.by_spiffe_id)} SPIFFE IDs; accounts: {where}"
    )
