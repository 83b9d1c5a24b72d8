"""Commands that keep a database: `backup`, `restore` and `new-history`."""

import json
import signal
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from idpass_server import logs
from idpass_server.cli import asking
from idpass_server.cli.base import main, option
from idpass_server.cli.databases import progress
from idpass_server.cli.showing import show_time
from idpass_server.failures import BadSetting, OperatorError
from idpass_server.options import parse_duration
from idpass_server.store import opening
from idpass_server.store.history import NewHistory
from idpass_server.store.sqlite.backup import Backup
from idpass_server.store.sqlite.restoring import Former
from idpass_server.urls import shown_url


def _interval(_context: Any, _parameter: Any, value: str | None) -> int | None:
    try:
        return None if value is None else parse_duration(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@main.command("backup")
@option("db")
@click.option(
    "--to",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE|DIR",
    help="A new file, or a folder, in which the file is named after the time.",
)
@click.option(
    "--every",
    callback=_interval,
    metavar="INTERVAL",
    help="Go on until stopped, with a backup every 30m, 1h, 1d, …",
)
@click.option(
    "--keep",
    type=click.IntRange(1),
    metavar="N",
    help="After each backup remove the oldest in the folder, down to N.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each backup.")
@click.option("--yes", is_flag=True, help="Replace FILE if it exists.")
def backup_command(
    db: str, to: Path, every: int | None, keep: int | None, *, as_json: bool, yes: bool
) -> None:
    """Back up a SQLite file, which may be served: one snapshot, audited, and on disk.

    FILE.sha256 beside it is for `sha256sum --check` and for `restore`. Until the copy is made, a
    served file's write-ahead log grows.
    """
    logs.configure("warning")
    if (every or keep) and not to.is_dir():
        raise BadSetting(f"--every and --keep need a folder; {to} is none")
    stopped = threading.Event()
    if every is not None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stopped.set())
    while True:
        began_s = time.monotonic()
        try:
            with progress() as begin:
                made = opening.back_up(db, to, keep=keep, replace=yes, begin=begin)
            _tell(made, as_json=as_json)
        except OperatorError as error:
            if every is None or isinstance(error, BadSetting):
                raise
            click.echo(f"Error: {error}; the next one is tried in time", err=True)
        if every is None or stopped.wait(max(0.0, began_s + every - time.monotonic())):
            return


def _tell(made: Backup, *, as_json: bool) -> None:
    if as_json:
        told = made._asdict() | {"path": str(made.path), "removed": list(map(str, made.removed))}
        click.echo(json.dumps(told))
    else:
        click.echo(f"{made.path}: {made.bytes:,} bytes, audited, in {made.seconds:g} s")
        click.echo(f"sha256   {made.sha256}")
        click.echo(f"history  {made.history}")
        for name, sequence in made.newest.items():
            click.echo(f"newest   {sequence} of {name}")
        if made.accounts > len(made.newest):
            click.echo(f"newest   of {made.accounts - len(made.newest)} more accounts in the file")
        for path in made.removed:
            click.echo(f"removed  {path}")
    sys.stdout.flush()


@main.command("restore")
@click.argument("file", type=click.Path(path_type=Path))
@option("db")
@asking.as_operator
@asking.yes
def restore_command(file: Path, db: str, who: str, *, yes: bool) -> None:
    """Replace a SQLite file, which no server uses, by a backup, and begin a new history.

    FILE is what `backup` or Litestream has made. It is audited, and compared with FILE.sha256 if
    there is one. Watchers and page tokens from beyond the backup are told HISTORY_LOST.
    """
    logs.configure("warning")

    def confirm(former: Former) -> None:
        state = f", which cannot be read ({former.unreadable})" if former.unreadable else ""
        asking.confirm(
            f"Replace {former.path}{state}? All that it has stored since the backup will be gone.",
            given=yes,
        )

    restored = opening.restore(file, db, who, confirm=confirm)
    rows = ", ".join(f"{count} {table}" for table, count in restored.counts.items())
    checked = "its SHA-256 is right; " if restored.verified else ""
    click.echo(f"{restored.path}: restored from {file}: {checked}all is well: {rows}")
    _tell_history(restored.history)


@main.command("new-history")
@option("db")
@asking.as_operator
@asking.yes
def new_history_command(db: str, who: str, *, yes: bool) -> None:
    """Begin a new history, after a database was brought back to an older state by other means.

    Run it once, before it is served again: after a point-in-time restore of PostgreSQL, or after
    an older copy of a SQLite file was put in place by hand. `restore` does it by itself.
    """
    logs.configure("warning")
    asking.confirm(
        f"Begin a new history of {shown_url(db)}? Watchers and page tokens from beyond its newest "
        "event will be told HISTORY_LOST.",
        given=yes,
    )
    _tell_history(opening.begin_history(db, who))


def _tell_history(history: NewHistory) -> None:
    click.echo(f"history: {history.id}, after {history.former}")
    click.echo(f"sequences go on from {history.base_sequence + 1}")
    newest_us, now_us = history.newest_event_time_us, time.time_ns() // 1_000
    if newest_us is None:
        click.echo("It has no events: every request of before would be executed again.")
        return
    lasted = timedelta(seconds=max(0, now_us - newest_us) // 1_000_000)
    click.echo(
        f"Requests that were first executed between {show_time(newest_us)} (its newest event) and "
        f"now ({lasted}) are unknown to it: a retry with such a request_id is executed again."
    )
