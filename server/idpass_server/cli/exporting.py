"""The command `export`: everything of one account, as HTTP/JSON shows it."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import click
from google.protobuf.message import Message

from idpass_server import logs
from idpass_server.api import responses
from idpass_server.cli import asking
from idpass_server.cli.base import main, option
from idpass_server.cli.pacing import progress
from idpass_server.engine.clock import shown, wall_us
from idpass_server.failures import OperatorError
from idpass_server.gateway import messages
from idpass_server.store import exporting, opening

PROGRESS_ROWS: Final = 1_000
"""Number of rows between two reports of progress."""
_STDOUT: Final = "-"

Write = Callable[[str], None]


@main.command("export")
@click.option("--account", "name", required=True, metavar="NAME", help="Account to export.")
@click.option(
    "--format", "_format", type=click.Choice(("jsonl",)), default="jsonl", help="One object a line."
)
@click.option(
    "--to",
    "target",
    default=_STDOUT,
    metavar="FILE",
    help="New file, readable by you alone.  [default: standard output]",
)
@asking.dry_run
@option("db")
def export_command(name: str, _format: str, target: str, db: str, *, dry_run: bool) -> None:
    """Export an account, its passes and its events, as they are at one moment.

    The database may be in use. Each line is a JSON object with a `type`: `export` first, then
    `account`, `purged` with the sums of what was purged, each `id_pass` and each `event` as
    HTTP/JSON shows them, and at last `end` with the numbers of each: an export without it is not
    whole. An export that is interrupted leaves no FILE; run it again.
    """
    logs.configure("warning")
    if target != _STDOUT and Path(target).exists():
        raise OperatorError(f"{target} exists; name a new file, or remove it")
    with opening.reading_store(db) as connection:
        rows = exporting.count(connection, name)
        if exporting.account(connection, name) is None:
            raise OperatorError(f"there is no account {name}; see: idpass-server account list")
        told = f"{rows[0]} passes and {rows[1]} events of {name}"
        if dry_run:
            click.echo(f"{told} would be exported")
            return
        with _written(target) as write, progress("export", sum(rows)) as moved:
            _export(connection, name, write, moved)
    click.echo(f"{told} exported", err=True)


def _export(connection: Any, name: str, write: Write, moved: Callable[[int], None]) -> None:
    write(_line("export", format="jsonl", version=1, account=name, time=shown(wall_us())))
    account = exporting.account(connection, name)
    if account is not None:
        shown_account = responses.account(account, exporting.positions(connection, name))
        write(_shown("account", shown_account))
        if purged := exporting.purged(connection, name):
            write(_purged(account.currency, purged))
    passes = events = 0
    for passes, each in enumerate(exporting.passes(connection, name), start=1):
        write(_shown("id_pass", responses.id_pass(each)))
        if passes % PROGRESS_ROWS == 0:
            moved(PROGRESS_ROWS)
    moved(passes % PROGRESS_ROWS)
    for events, event in enumerate(exporting.events(connection, name), start=1):
        write(_shown("event", responses.event(event)))
        if events % PROGRESS_ROWS == 0:
            moved(PROGRESS_ROWS)
    moved(events % PROGRESS_ROWS)
    write(_line("end", accounts=1, id_passes=passes, events=events))


def _purged(currency: str, purged: dict[str, int]) -> str:
    amounts = {
        f"fees_{what}": messages.money(responses.money(currency, purged[f"{what}_micros"]))
        for what in ("charged", "refunded")
    }
    return _line("purged", id_passes=purged["passes"], events=purged["events"], **amounts)


def _shown(kind: str, message: Message) -> str:
    return _line(kind, **messages.render(message))


def _line(kind: str, **fields: object) -> str:
    return json.dumps({"type": kind} | fields, ensure_ascii=False, separators=(",", ":"))


@contextmanager
def _written(target: str) -> Iterator[Write]:
    """Yields what writes a line to the target. A file gets its name once it is whole, on disk.

    Raises:
        OperatorError: it cannot be written.
    """
    if target == _STDOUT:
        yield click.echo
        return
    path = Path(target)
    part = path.with_name(f"{path.name}.part")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(part, flags, 0o600), "w", encoding="utf-8", newline="\n") as file:
            try:
                yield lambda line: print(line, file=file)
                file.flush()
                os.fsync(file.fileno())
                part.replace(path)
            except BaseException:
                part.unlink(missing_ok=True)
                raise
        _sync_folder(path)
    except OSError as error:
        raise OperatorError(f"{target} cannot be written: {error.strerror}") from error


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path.absolute().parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
