"""Commands about a database as a whole: `audit`, `migrate` and `copy`."""

import sys
from collections.abc import Callable
from contextlib import ExitStack

import click

from idpass_server.cli.base import main, must_exist, option
from idpass_server.config import shown_url
from idpass_server.store import opening


@main.command("audit")
@option("db")
@click.pass_context
def audit_command(context: click.Context, db: str) -> None:
    """Check every invariant of a database, which may be in use meanwhile."""
    must_exist(db)
    problems, counts = opening.audit_store(db)
    for problem in problems:
        click.echo(problem, err=True)
    if problems:
        context.exit(1)
    found = ", ".join(f"{count} {table}" for table, count in counts.items())
    click.echo(f"{shown_url(db)}: all is well: {found}")


@main.command("migrate")
@option("db")
def migrate_command(db: str) -> None:
    """Bring a database's schema up to date.

    A SQLite file is brought up to date by whoever opens it.
    """
    applied = opening.migrate_store(db)
    click.echo(
        f"{shown_url(db)}: {'applied ' + ', '.join(applied) if applied else 'is up to date'}"
    )


@main.command("copy")
@click.option("--from", "source", required=True, help="sqlite:///FILE, which nobody serves now.")
@click.option("--to", "target", required=True, help="postgresql://…, migrated and empty.")
def copy_command(source: str, target: str) -> None:
    """Move everything from a SQLite file to PostgreSQL: all of it, verified, or nothing."""
    with ExitStack() as stack:

        def begin(steps: int) -> Callable[[int], None]:
            bar = click.progressbar(length=steps, label="copy and verify", file=sys.stderr)
            return stack.enter_context(bar).update

        copied = opening.copy_store(source, target, begin)
    for table, (rows, checksum) in copied.items():
        click.echo(f"{table:10}{rows:>12,} rows  {checksum}")
    click.echo(f"{shown_url(target)}: verified; audit it with: idpass-server audit --db ...")
