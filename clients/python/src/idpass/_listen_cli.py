"""The command `idpass listen`."""

from pathlib import Path
from typing import Any

import click
from rich.text import Text

from idpass import _listen, _show
from idpass._cli import Cli, target
from idpass._webhook_cli import Statuses
from idpass._words import Status


class _Url(click.ParamType[str]):
    name = "url"

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        try:
            return _listen.check_url(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.option("--forward-to", "url", type=_Url(), required=True, help="URL of your receiver.")
@click.option("--statuses", type=Statuses(), metavar="STATUS,...", help="Only these events.")
@click.option(
    "--after",
    type=click.IntRange(min=0),
    help="Start after this sequence; 0 for all. Without it: where the last run stopped, or now.",
)
@click.option(
    "--position",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File that keeps where it stopped.",
)
def listen(
    cli: Cli,
    url: str,
    statuses: tuple[Status, ...] | None,
    after: int | None,
    position: Path | None,
) -> None:
    """Forward events to a receiver on this machine, signed as a webhook's are.

    Each event is sent once, and its answer shown. Ctrl-C stops it; the next run goes on from there.
    """
    account = cli.client.account()
    path = position or _listen.position_path(target().address, account.id, url)
    try:
        kept = _listen.Position(path)
        kept.keep(_first(after, kept.sequence, account.last_sequence))
    except (OSError, ValueError) as error:
        raise click.UsageError(str(error)) from error
    cli.err.print(f"Forwarding what comes after event {kept.sequence} to {url}")
    cli.err.print(f"Signing secret: {kept.secret}")
    for forwarded in _listen.forward(cli.client, url, kept, statuses or ()):
        if cli.json:
            cli.tell_json(forwarded)
        else:
            cli.out.print(_line(forwarded), soft_wrap=True)


def _first(after: int | None, kept: int | None, last: int) -> int:
    if after is not None:
        return after
    return last if kept is None else kept


def _line(forwarded: _listen.Forwarded) -> Text:
    line = Text(f"{forwarded.event.sequence:>8}  ", "dim")
    line.append(f"{forwarded.type}  {forwarded.event.id}  ")
    if forwarded.status_code:
        fine = 200 <= forwarded.status_code < 300  # noqa: PLR2004 success in HTTP
        line.append(str(forwarded.status_code), "green" if fine else "red")
    else:
        line.append(_show.harmless(forwarded.error), "red")
    return line.append(f"  {forwarded.duration_ms} ms", "dim")
