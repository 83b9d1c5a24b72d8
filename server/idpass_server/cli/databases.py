"""Commands about a database as a whole: `audit`, `migrate` and `copy`."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import click

from idpass_server.cli.base import main, must_exist, option
from idpass_server.config import shown_url
from idpass_server.store import opening


@main.command("audit")
@option("db")
@click.option("--quick", is_flag=True, help="Leave out what compares rows with each other.")
@click.option("--json", "as_json", is_flag=True, help="Print what was found as one JSON object.")
@click.pass_context
def audit_command(context: click.Context, db: str, *, quick: bool, as_json: bool) -> None:
    """Check every invariant of a database, which may be in use meanwhile.

    Exits 1 where something is wrong; warnings are printed and change nothing. All is read as of
    one moment: until then a served SQLite file's write-ahead log grows, and PostgreSQL keeps old
    rows.
    """
    must_exist(db)
    began_s = time.monotonic()
    with _progress() as begin:
        found = opening.audit_store(db, quick=quick, begin=begin)
    if as_json:
        told = {"database": shown_url(db), "sound": not found.problems, "quick": quick}
        seconds = {"seconds": round(time.monotonic() - began_s, 1)}
        click.echo(json.dumps(told | found._asdict() | seconds))
    else:
        for warning in found.warnings:
            click.echo(f"warning: {warning}", err=True)
        for problem in found.problems:
            click.echo(problem, err=True)
        if not found.problems:
            rows = ", ".join(f"{count} {table}" for table, count in found.counts.items())
            click.echo(f"{shown_url(db)}: all is well: {rows}")
    if found.problems:
        context.exit(1)


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """Shows on a terminal what is being looked for, on a line that goes away."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    erase = "\r\x1b[K"

    def begin(step: str) -> None:
        click.echo(f"{erase}looking for: {step} …", err=True, nl=False)

    try:
        yield begin
    finally:
        click.echo(erase, err=True, nl=False)


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
