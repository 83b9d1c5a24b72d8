"""The command line `idpass`: for people at a terminal, and with --json for scripts."""

import contextlib
import functools
import io
import os
import signal
import sys
from collections.abc import Callable, Iterable
from datetime import timedelta
from itertools import islice
from typing import Any

try:
    import click
    import rich  # noqa: F401 what shows things needs it
except ImportError:
    sys.exit(
        "The command line needs click and rich, the extra 'cli' of idpass-client: "
        "pip install click rich"
    )

from idpass import __version__, _show
from idpass._cleanup import IN_FLIGHT, Cleanup
from idpass._cli import (
    EXIT_INTERRUPTED,
    EXIT_REFUSED,
    Cli,
    Command,
    Duration,
    command_of,
)
from idpass._listen_cli import listen
from idpass._webhook_cli import webhook
from idpass._words import CancelReason, Status
from idpass.client import IdPassClient
from idpass.errors import IdPassError

_FILE = click.Path(exists=True, dir_okay=False)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--address",
    envvar="IDPASS_ADDRESS",
    default="localhost:50051",
    show_default=True,
    show_envvar=True,
    help="HOST:PORT of the service.",
)
@click.option("--tls", is_flag=True, envvar="IDPASS_TLS", show_envvar=True, help="Use TLS.")
@click.option(
    "--ca",
    type=_FILE,
    envvar="IDPASS_CA",
    show_envvar=True,
    help="Use TLS and trust the authorities in this PEM file.",
)
@click.option(
    "--cert",
    type=_FILE,
    envvar="IDPASS_CERT",
    show_envvar=True,
    help="Mutual TLS: PEM file of the certificate chain.",
)
@click.option(
    "--key",
    type=_FILE,
    envvar="IDPASS_KEY",
    show_envvar=True,
    help="Mutual TLS: PEM file of its private key.",
)
@click.option("--allow-plaintext", is_flag=True, help="Allow plain text to other machines.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="Time limit of each call, with all its retries.",
)
@click.version_option(__version__)
@click.pass_context
def main(
    context: click.Context,
    /,
    ca: str | None,
    tls: bool,
    cert: str | None,
    key: str | None,
    **settings: Any,
) -> None:
    """Cancels ID Passes, and shows them.

    A bearer token is read from the environment variable IDPASS_TOKEN only: everyone on the
    machine could see an option.

    Exit codes: 0 done; 1 refused, or one of several was; 2 wrong usage; 3 the outcome is not
    known, run it again; 4 the service is out of reach or overloaded; 5 done, but the output
    could not be written; 130 interrupted.
    """
    if (cert is None) != (key is None):
        raise click.UsageError("--cert and --key must be given together")
    context.obj = functools.partial(
        IdPassClient,
        tls=ca or tls,
        client_certificate=(cert, key) if cert and key else None,
        token=os.environ.get("IDPASS_TOKEN") or None,
        **settings,
    )


_command = command_of(main)


def _status_option(choices: Iterable[Status]) -> Callable[[Command], Command]:
    return click.option(
        "--status",
        "statuses",
        type=click.Choice([str(status) for status in choices]),
        multiple=True,
        help="Only passes in this status; may be repeated.",
    )


@_command
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@click.option("--reason", type=click.Choice([str(r) for r in CancelReason]), default="unspecified")
@click.option("--note", default="", help="Free text, kept with the pass.")
@click.option("--require-refund", is_flag=True, help="Only if the fee is refunded.")
@click.option("--validate-only", is_flag=True, help="Check and answer, but change nothing.")
@click.option(
    "--request-id", help="For a single ID: the request id of an attempt whose outcome is unknown."
)
def cancel(
    cli: Cli,
    ids: tuple[str, ...],
    reason: str,
    validate_only: bool,
    request_id: str | None,
    **options: Any,
) -> int:
    """Cancel passes; the fee is refunded if no verification step was taken.

    With - for ID, ids are read from standard input, one a line.
    """
    options["reason"] = reason
    given = _lines() if ids == ("-",) else iter(ids)
    if request_id and (len(ids) > 1 or ids == ("-",)):
        raise click.UsageError("--request-id is for a single ID")
    if len(ids) == 1 and ids != ("-",):
        options |= {"validate_only": validate_only, "request_id": request_id}
        cli.tell_receipt(cli.client.cancel(ids[0], **options), checked=validate_only)
        return 0
    if validate_only:
        raise click.UsageError("--validate-only is for a single ID")
    code = 0
    # If the service is out of reach, every item's result says so before the error is raised.
    with contextlib.suppress(IdPassError):
        for result in cli.client.cancel_many(given, **options):
            if result.receipt:
                cli.tell_receipt(result.receipt, others="; others may be too, run again to see")
            elif result.error:
                code = max(code, cli.complain(result.error, id=result.id))
    return code


def _lines() -> Iterable[str]:
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")  # what is not text is not an id either
    return (line.strip() for line in sys.stdin if line.strip())


@_command
@click.argument("id")
def get(cli: Cli, id: str) -> None:  # noqa: A002 the argument's name
    """Show one pass."""
    id_pass = cli.client.get(id)
    cli.tell(id_pass, _show.pass_rows(id_pass))


@_command
@_status_option(Status)
@click.option(
    "--idle-for", type=Duration(), help="Only passes unchanged for this long, such as 7d."
)
@click.option("--applicant", default="", help="Only passes with this name for the applicant.")
@click.option("--limit", type=click.IntRange(min=1), help="Maximum number of passes.")
def list_(
    cli: Cli,
    *,
    statuses: tuple[str, ...],
    idle_for: timedelta | None,
    applicant: str,
    limit: int | None,
) -> None:
    """List passes, newest first."""
    found = cli.client.list(
        statuses=map(Status, statuses), idle_for=idle_for, applicant_reference=applicant
    )
    passes = islice(found, limit)
    if not cli.json:
        _show.pass_table(cli.out, passes)
        return
    for id_pass in passes:
        cli.tell_json(id_pass)


@_command
@click.argument("id", required=False)
@click.option(
    "--after", type=click.IntRange(min=0), help="Sequence of the last event seen; 0 for all."
)
def watch(cli: Cli, id: str | None, after: int | None) -> None:  # noqa: A002 likewise
    """Show events as they happen; of one pass, its whole history until it ends."""
    if after is None:
        after = 0 if id else cli.client.account().last_sequence
    for event in cli.client.watch(id, after_sequence=after):
        if cli.json:
            cli.tell_json(event)
        else:
            cli.out.print(_show.event_line(event), soft_wrap=True)


@_command
@click.option(
    "--days",
    type=click.IntRange(1, 14),
    default=7,
    show_default=True,
    help="Days until the link expires.",
)
@click.option("--applicant", default="", help="Your own name for the applicant.")
@click.option("--supersedes", metavar="ID", help="A pass in flight that the new one replaces.")
@click.option("--request-id", help="The request id of an attempt whose outcome is unknown.")
def register(
    cli: Cli, days: int, applicant: str, supersedes: str | None, request_id: str | None
) -> None:
    """Register a pass."""
    receipt = cli.client.register(
        link_validity_days=days,
        applicant_reference=applicant,
        supersedes=supersedes,
        request_id=request_id,
    )
    cli.tell(receipt, _show.pass_rows(receipt.id_pass), f"registered {receipt.id_pass.id}")


@_command
def account(cli: Cli) -> None:
    """Show your account."""
    found = cli.client.account()
    cli.tell(found, _show.account_rows(found))


@_command
@click.option(
    "--idle-for",
    type=Duration(),
    required=True,
    help="Cancel passes unchanged for this long, such as 7d.",
)
@_status_option(IN_FLIGHT)
@click.option("--note", default="", help="Free text, kept with each pass.")
@click.option("--dry-run", is_flag=True, help="Show what would be cancelled, and stop.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
def cleanup(
    cli: Cli,
    *,
    idle_for: timedelta,
    statuses: tuple[str, ...],
    note: str,
    dry_run: bool,
    yes: bool,
) -> int:
    """Cancel abandoned passes: those in flight whose status has not changed for a while.

    Ctrl-C stops it after the batches under way; run again, it continues with the rest. A pass
    whose status changes meanwhile is left alone.
    """
    work = Cleanup(cli.client, [Status(word) for word in statuses] or IN_FLIGHT, idle_for, note)
    work.survey()
    if dry_run or not work.found:
        cli.tell(work.plan() if dry_run else work.summary(), _show.plan_rows(work))
        return 0
    if not yes:
        if cli.json or not sys.stdin.isatty():
            raise click.UsageError("give --yes to cancel without confirmation, or --dry-run")
        _show.rows(cli.err, _show.plan_rows(work))
        click.confirm("Cancel them?", abort=True, err=True)
    try:
        with _show.progress(cli.err, work.found) as advance, work.stopped_by(signal.SIGINT):
            work.run(advance)
    finally:
        cli.tell(work.summary(), _show.summary_rows(work), _show.summary_line(work))
    if work.stopping:
        return EXIT_INTERRUPTED
    return EXIT_REFUSED if work.refused else 0


main.add_command(webhook)
_command(listen)


if __name__ == "__main__":
    main(prog_name="idpass")
