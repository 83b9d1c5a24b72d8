"""The commands `idpass webhook …`."""

from typing import Any

import click

from idpass import _show
from idpass._cli import EXIT_REFUSED, Cli, command_of
from idpass._webhook_records import Webhook, WebhookAttempt, WebhookDelivery, WebhookSecret
from idpass._words import Status

webhook = click.Group("webhook", help="Create, change and show webhooks.")
_command = command_of(webhook)


class Statuses(click.ParamType["tuple[Status, ...]"]):
    name = "statuses"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[Status, ...]:
        if isinstance(value, tuple):
            return value
        if value == "all":
            return ()
        try:
            return tuple(Status(word.strip()) for word in value.split(","))
        except ValueError:
            known = ", ".join(map(str, Status))
            self.fail(f"{value!r} is not `all`, nor a list of {known}", param, ctx)


_statuses = click.option(
    "--statuses",
    type=Statuses(),
    metavar="STATUS,...",
    help="Only events of these statuses; `all` for every one.",
)


@_command
@click.argument("url")
@_statuses
@click.option("--after", type=click.IntRange(min=0), help="Events after this sequence; 0 for all.")
@click.option("--request-id", help="The request id of an attempt whose outcome is unknown.")
def create(
    cli: Cli,
    url: str,
    statuses: tuple[Status, ...] | None,
    after: int | None,
    request_id: str | None,
) -> None:
    """Create a webhook, and show its secret this once."""
    made = cli.client.webhooks.create(
        url, statuses=statuses or (), after_sequence=after, request_id=request_id
    )
    _tell_secret(cli, made, f"created webhook {made.webhook.id}")


@_command
@click.argument("id")
def get(cli: Cli, id: str) -> None:  # noqa: A002 the argument's name
    """Show one webhook."""
    found = cli.client.webhooks.get(id)
    cli.tell(found, _rows(found))


@_command
def list_(cli: Cli) -> None:
    """List webhooks, the oldest first."""
    found = cli.client.webhooks.list()
    if cli.json:
        for each in found:
            cli.tell_json(each)
        return
    _show.table(cli.out, ("id", "state", "statuses", "cursor", "url"), map(_cells, found))


@_command
@click.argument("id")
@click.option("--url", help="Where events are sent from now on.")
@_statuses
@click.option(
    "--pause/--resume", default=None, help="Let events wait, or deliver them again from there on."
)
def update(
    cli: Cli,
    id: str,  # noqa: A002 the argument's name
    url: str | None,
    statuses: tuple[Status, ...] | None,
    pause: bool | None,
) -> None:
    """Change a webhook."""
    if url is None and statuses is None and pause is None:
        raise click.UsageError("nothing to change: give --url, --statuses, --pause or --resume")
    changed = cli.client.webhooks.update(
        id,
        url=url,
        statuses=statuses,
        state=None if pause is None else "paused" if pause else "active",
    )
    cli.tell(changed, _rows(changed), f"changed webhook {changed.id}")


@_command
@click.argument("id")
def delete(cli: Cli, id: str) -> None:  # noqa: A002 the argument's name
    """Delete a webhook and the record of its deliveries."""
    cli.client.webhooks.delete(id)
    cli.tell({"deleted": id}, [("deleted", id)], f"deleted webhook {id}")


@_command
@click.argument("id")
@click.option("--immediate", is_flag=True, help="Stop the old secrets at once: one has leaked.")
def rotate(cli: Cli, id: str, *, immediate: bool) -> None:  # noqa: A002 the argument's name
    """Give a webhook a new secret; for 24 hours the old one signs too."""
    rotated = cli.client.webhooks.rotate_secret(id, immediate=immediate)
    _tell_secret(cli, rotated, f"rotated the secret of webhook {rotated.webhook.id}")


@_command
@click.argument("id")
def test(cli: Cli, id: str) -> int:  # noqa: A002 the argument's name
    """Send a test event now, and show what came of it."""
    attempt = cli.client.webhooks.test(id)
    cli.tell(attempt, _attempt_rows(attempt), "sent a test event")
    return 0 if 200 <= attempt.status_code < 300 else EXIT_REFUSED  # noqa: PLR2004 success in HTTP


@_command
@click.argument("id")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True)
def deliveries(cli: Cli, id: str, limit: int) -> None:  # noqa: A002 the argument's name
    """List deliveries, newest event first: pending ones, given up ones, and recent ones."""
    found: list[WebhookDelivery] = []
    for each in cli.client.webhooks.deliveries(id):
        if cli.json:
            cli.tell_json(each)
        found.append(each)
        if len(found) == limit:
            break
    if not cli.json:
        columns = ("sequence", "type", "pass", "state", "attempts", "last answer", "next attempt")
        _show.table(cli.out, columns, map(_delivery_cells, found))


@_command
@click.argument("id")
@click.option("--sequence", type=click.IntRange(min=1), help="Only the event of this sequence.")
@click.option("--from", "from_", type=click.IntRange(min=1), help="All events from this one on.")
def redeliver(
    cli: Cli,
    id: str,  # noqa: A002 the argument's name
    sequence: int | None,
    from_: int | None,
) -> None:
    """Deliver events again."""
    if (sequence is None) == (from_ is None):
        raise click.UsageError("give --sequence for one event, or --from for all from there on")
    found = cli.client.webhooks.redeliver(id, sequence=sequence, from_sequence=from_)
    cli.tell(found, _rows(found), "will deliver again")


def _tell_secret(cli: Cli, made: WebhookSecret, done: str) -> None:
    rows = [*_rows(made.webhook), ("secret", f"{made.secret}  (shown this once)")]
    cli.tell(made, rows, done)


def _rows(found: Webhook) -> list[_show.Row]:
    return [
        ("id", found.id),
        ("url", _show.harmless(found.url)),
        ("statuses", _statuses_of(found)),
        ("state", _state(found)),
        ("cursor", str(found.cursor)),
        ("created", f"{_show.when(found.create_time)} by {_show.harmless(found.caller)}"),
        ("last success", _show.when(found.last_success_time)),
        ("failing since", _show.when(found.failing_since)),
        ("old secret until", _show.when(found.old_secret_expire_time)),
    ]


def _cells(found: Webhook) -> tuple[_show.Shown, ...]:
    return (
        found.id,
        _state(found),
        _statuses_of(found),
        str(found.cursor),
        _show.harmless(found.url),
    )


def _statuses_of(found: Webhook) -> str:
    return ", ".join(map(str, found.statuses)) or "all"


def _state(found: Webhook) -> str:
    return f"{found.state} ({found.pause_reason})" if found.pause_reason else str(found.state)


def _attempt_rows(attempt: WebhookAttempt) -> list[_show.Row]:
    return [
        ("answer", str(attempt.status_code or "") or _show.harmless(attempt.error)),
        ("took", f"{attempt.duration_ms} ms"),
        ("body", _show.harmless(attempt.answer)),
    ]


def _delivery_cells(each: WebhookDelivery) -> tuple[_show.Shown, ...]:
    last = each.attempts[-1] if each.attempts else None
    answer = (str(last.status_code or "") or last.error) if last else ""
    return (
        str(each.sequence),
        each.type,
        each.id,
        str(each.state),
        str(each.attempt_count),
        _show.harmless(answer),
        _show.when(each.next_attempt_time),
    )
