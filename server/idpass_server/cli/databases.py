"""Commands about a database as a whole: `init`, `migrate`, `audit` and `copy`."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import click

from idpass_server import logs
from idpass_server.cli.base import main, option
from idpass_server.store import opening
from idpass_server.urls import shown_url


@main.command("audit")
@option("db")
@click.option("--quick", is_flag=True, help="Skip the checks that compare rows.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as one JSON object.")
@click.pass_context
def audit_command(context: click.Context, db: str, *, quick: bool, as_json: bool) -> None:
    """Check every invariant of a database, which may be in use.

    Exits 1 if something is wrong; warnings are printed and do not change the exit code. Everything
    is read from one snapshot: while the audit runs, a served SQLite file's write-ahead log grows,
    and PostgreSQL keeps dead rows.
    """
    logs.configure("warning")
    began_s = time.monotonic()
    with progress() as begin:
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
def progress() -> Iterator[Callable[[str], None]]:
    """Shows on a terminal what is being checked, on a line that is erased at the end."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    erase = "\r\x1b[K"

    def begin(step: str) -> None:
        click.echo(f"{erase}checking: {step} …", err=True, nl=False)

    try:
        yield begin
    finally:
        click.echo(erase, err=True, nl=False)


@main.command("init")
@option("db")
def init_command(db: str) -> None:
    """Create the tables of a new database. Create a PostgreSQL database with createdb first."""
    logs.configure("warning")
    opening.make_store(db)
    click.echo(f"{shown_url(db)}: made")


@main.command("migrate")
@option("db")
@click.option("--check", is_flag=True, help="Change nothing; exit 1 if not up to date.")
@click.option("--plan", is_flag=True, help="Change nothing; print what would be done.")
@click.pass_context
def migrate_command(context: click.Context, db: str, *, check: bool, plan: bool) -> None:
    """Bring a database's schema up to date. A SQLite file is backed up beside it first.

    Only this command and `serve` on a SQLite file change a schema.
    """
    logs.configure("warning")
    if check or plan:
        missing, ends_older = opening.plan_store(db)
        click.echo(f"{shown_url(db)}: {_told(missing, ends_older=ends_older)}")
        if check and missing:
            context.exit(1)
        return
    applied = opening.migrate_store(db)
    click.echo(
        f"{shown_url(db)}: {'applied ' + ', '.join(applied) if applied else 'is up to date'}"
    )


def _told(missing: list[str], *, ends_older: bool) -> str:
    if not missing:
        return "is up to date"
    after = (
        "stop servers of the previous version first: they cannot serve it afterwards"
        if ends_older
        else "servers of the previous version can serve it meanwhile and afterwards"
    )
    return f"lacks {', '.join(missing)}; {after}"


@main.command("compact")
@option("db")
def compact_command(db: str) -> None:
    """Give the room of what was deleted from a SQLite file, which no server is using, to the disk.

    While it runs, it needs twice as much room as the file will have. Room that is not given back is
    used again.
    """
    logs.configure("warning")
    before, after = opening.compact_store(db)
    click.echo(f"{shown_url(db)}: {before:,} bytes before, {after:,} now")


@main.command("copy")
@click.option("--from", "source", required=True, help="sqlite:///FILE, which no server is using.")
@click.option("--to", "target", required=True, help="postgresql://…, migrated and empty.")
def copy_command(source: str, target: str) -> None:
    """Copy everything from a SQLite file to PostgreSQL: all of it, verified, or nothing."""
    logs.configure("warning")
    with ExitStack() as stack:

        def begin(steps: int) -> Callable[[int], None]:
            bar = click.progressbar(length=steps, label="copy and verify", file=sys.stderr)
            return stack.enter_context(bar).update

        copied = opening.copy_store(source, target, begin)
    for table, (rows, checksum) in copied.items():
        click.echo(f"{table:10}{rows:>12,} rows  {checksum}")
    click.echo(f"{shown_url(target)}: verified; audit it with: idpass-server audit --db ...")
