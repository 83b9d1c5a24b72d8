"""The command `idpass cleanup`."""

import signal
import sys
from collections import deque
from datetime import timedelta

import click

from idpass import _show
from idpass._cleanup import IN_FLIGHT, Cleanup
from idpass._cli import EXIT_INTERRUPTED, EXIT_REFUSED, Cli, Duration, status_option
from idpass._records import CancelResult
from idpass._words import Status


@click.option(
    "--idle-for",
    type=Duration(),
    required=True,
    help="Cancel passes unchanged for this long, such as 7d.",
)
@status_option(IN_FLIGHT)
@click.option("--note", default="", help="Free text, kept with each pass.")
@click.option("--limit", type=click.IntRange(min=1), help="Maximum number of passes.")
@click.option("--dry-run", is_flag=True, help="Show what would be cancelled, and stop.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
def cleanup(
    cli: Cli,
    *,
    idle_for: timedelta,
    statuses: tuple[str, ...],
    note: str,
    limit: int | None,
    dry_run: bool,
    yes: bool,
) -> int:
    """Cancel abandoned passes: those in flight whose status has not changed for a while.

    Ctrl-C stops it after the batches under way; run again, it continues with the rest. A pass
    whose status changes meanwhile is left alone. With --json each pass has a line, and the last
    line is the summary.
    """
    chosen = [Status(word) for word in statuses] or IN_FLIGHT
    work = Cleanup(cli.client, chosen, idle_for, note, limit)
    if dry_run:
        _show_plan(cli, work)
        return 0
    deque(work.survey(), maxlen=0)
    if not work.found:
        cli.tell(work.summary(), _show.plan_rows(work))
        return 0
    if not yes:
        if cli.json or not sys.stdin.isatty():
            raise click.UsageError("give --yes to cancel without confirmation, or --dry-run")
        _show.rows(cli.err, _show.plan_rows(work))
        click.confirm("Cancel them?", abort=True, err=True)
    whole = False
    try:
        with _show.progress(cli.err, work.found) as advance, work.stopped_by(signal.SIGINT):

            def tell(result: CancelResult) -> None:
                advance()
                cli.tell_result(result)

            work.run(tell)
        whole = True
    finally:
        done = _show.summary_line(work) + ("" if whole else "; others may be too, run it again")
        cli.tell(work.summary(), _show.summary_rows(work), done)
    if work.stopping:
        return EXIT_INTERRUPTED
    return EXIT_REFUSED if work.refused else 0


def _show_plan(cli: Cli, work: Cleanup) -> None:
    if cli.json:
        for id_pass in work.survey():
            cli.tell_json(id_pass)
    else:
        _show.pass_table(cli.out, work.survey())
    cli.tell(work.plan(), _show.plan_rows(work))
