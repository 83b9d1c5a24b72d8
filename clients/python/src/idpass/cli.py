"""The command line `idpass`: for people at a terminal, and with --json for scripts."""

import contextlib
import functools
import io
import os
import sys
from collections.abc import Iterable
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
from idpass._change_cli import advance, register, supersede
from idpass._cleanup_cli import cleanup
from idpass._cli import Cli, Duration, command_of, status_option
from idpass._cli_address import Address, Target
from idpass._listen_cli import listen
from idpass._ping_cli import ping, whoami
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
    type=Address(),
    metavar="HOST:PORT",
    help="Of the service; also grpc://HOST:PORT, grpcs://HOST:PORT with TLS, or unix:PATH.",
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
    *,
    ca: str | None,
    tls: bool,
    cert: str | None,
    key: str | None,
    address: Target,
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
    if address.tls is False and (tls or ca or cert):
        raise click.UsageError(
            "the address begins with a scheme for plain text, and TLS is asked for; begin it with "
            "grpcs:// or https://"
        )
    context.obj = functools.partial(
        IdPassClient,
        address.address,
        tls=ca or tls or address.tls is True,
        client_certificate=(cert, key) if cert and key else None,
        token=os.environ.get("IDPASS_TOKEN") or None,
        **settings,
    )


_command = command_of(main)


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
@status_option(Status)
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
def account(cli: Cli) -> None:
    """Show your account."""
    found = cli.client.account()
    cli.tell(found, _show.account_rows(found))


for _each in (register, supersede, advance, cleanup, ping, whoami, listen):
    _command(_each)
main.add_command(webhook)


if __name__ == "__main__":
    main(prog_name="idpass")
