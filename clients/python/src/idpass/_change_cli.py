"""The commands of `idpass` that register and advance passes."""

from typing import Any

import click

from idpass import _show
from idpass._cli import Cli, Command
from idpass._words import Status

_REACHABLE = (
    Status.OPENED,
    Status.IN_PROGRESS,
    Status.COMPLETE,
    Status.FAILED,
    Status.EXPIRED,
)
"""Statuses that a pass can be advanced to; it is cancelled by `cancel` alone."""
_REQUEST_ID = click.option(
    "--request-id", help="The request id of an attempt whose outcome is unknown."
)


def _registering(command: Command) -> Command:
    """The options of commands that register a pass."""
    for option in (
        _REQUEST_ID,
        click.option("--applicant", default="", help="Your own name for the applicant."),
        click.option(
            "--days",
            type=click.IntRange(1, 14),
            default=7,
            show_default=True,
            help="Days until the link expires.",
        ),
    ):
        command = option(command)
    return command


@_registering
@click.option("--supersedes", metavar="ID", help="A pass in flight that the new one replaces.")
def register(cli: Cli, supersedes: str | None, **given: Any) -> None:
    """Register a pass."""
    _register(cli, supersedes, **given)


@_registering
@click.argument("id")
def supersede(cli: Cli, id: str, **given: Any) -> None:  # noqa: A002 the argument's name
    """Replace a pass in flight by a new one, in one transaction.

    The old one is cancelled, with the reason `superseded` and a refund as by `cancel`; if it has
    ended, nothing happens at all.
    """
    _register(cli, id, **given)


def _register(
    cli: Cli, supersedes: str | None, *, days: int, applicant: str, request_id: str | None
) -> None:
    receipt = cli.client.register(
        link_validity_days=days,
        applicant_reference=applicant,
        supersedes=supersedes,
        request_id=request_id,
    )
    done = f"registered {receipt.id_pass.id}"
    rows = _show.pass_rows(receipt.id_pass)
    if receipt.superseded:
        done += f" in place of {receipt.superseded.id}"
        rows.append(("replaced", _show.receipt_line(receipt.superseded)))
    cli.tell(receipt, rows, done)


@click.argument("id")
@click.argument(
    "status", metavar="STATUS", type=click.Choice([str(status) for status in _REACHABLE])
)
@click.option(
    "--expected-status",
    type=click.Choice([str(status) for status in Status]),
    help="Only if the pass is in this status.",
)
@_REQUEST_ID
def advance(
    cli: Cli,
    id: str,  # noqa: A002 the argument's name
    status: str,
    expected_status: str | None,
    request_id: str | None,
) -> None:
    """Advance a pass to a status, as the applicant and the verification proceed.

    STATUS is opened, in_progress, complete, failed or expired.
    """
    receipt = cli.client.advance(
        id,
        Status(status),
        expected_status=Status(expected_status) if expected_status else None,
        request_id=request_id,
    )
    id_pass = receipt.id_pass
    cli.tell(receipt, _show.pass_rows(id_pass), f"{id_pass.id} is {id_pass.status}")
