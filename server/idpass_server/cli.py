"""The command line `idpass-server`: the one place that reads options and the environment.

Exit codes: 0 done; 1 it could not be done, or what was checked is not right; 2 the command line
is wrong; 74 the store broke while serving.
"""

import asyncio
import hashlib
import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import click
import uvloop

from idpass_server import logs, running, workers
from idpass_server.config import (
    NAME,
    BadSetting,
    Settings,
    parse_money,
    show_money,
    shown_url,
    sqlite_path,
)
from idpass_server.demo import demo
from idpass_server.records import Account, Money
from idpass_server.store import Store, opening

MAX_SLOTS: Final = 2**31 - 1
MAX_CONNECTION_AGE_S: Final = 7 * 86_400
_MAX_INT: Final = 2**31 - 1  # gRPC's own settings are 32-bit numbers

Command = Callable[..., Any]


class _Money(click.ParamType[Money]):
    name = "money"

    def convert(self, value: Any, param: Any, ctx: Any) -> Money:
        try:
            return value if isinstance(value, Money) else parse_money(value)
        except BadSetting as error:
            self.fail(str(error), param, ctx)


def _setting(name: str, *names: str, **options: Any) -> Callable[[Command], Command]:
    """An option that is read from the environment as well: --max-calls from IDPASS_MAX_CALLS."""
    word = name.removeprefix("--").partition("/")[0]
    variable = f"IDPASS_{word.replace('-', '_').upper()}"
    return click.option(
        name,
        *names,
        envvar=variable,
        show_envvar=True,
        show_default="default" in options,
        **options,
    )


_db_option: Final = _setting("--db", default=Settings.db, help="Database URL.")


def _account_name(_context: Any, _parameter: Any, value: str) -> str:
    if not NAME.fullmatch(value):
        raise click.BadParameter(
            f"{value!r} is not 1 to 63 of a-z, 0-9 and -, with a letter or digit at both ends"
        )
    return value


class _Group(click.Group):
    """Says what could not be done in one line, without a stack trace."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BadSetting as error:
            raise click.UsageError(str(error)) from error
        except (*running.CANNOT_SERVE, workers.CannotStart) as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="idpass-server")
def main() -> None:
    """Cancels in-flight ID Passes: once, durably, with the right refund."""


@main.command()
@_setting(
    "--listen",
    default=Settings.listen,
    help="HOST:PORT to serve; port 0 takes a free one. Without TLS loopback addresses only.",
)
@_setting(
    "--tls-cert",
    help="Speak TLS: PEM file of the certificate, and of those between it and its authority.",
)
@_setting("--tls-key", help="PEM file of its private key.")
@_setting(
    "--tls-client-ca",
    help="Mutual TLS: PEM file of the authorities that callers' certificates come from.",
)
@_setting(
    "--max-connection-age",
    "max_connection_age_s",
    type=click.FloatRange(1, MAX_CONNECTION_AGE_S),
    default=Settings.max_connection_age_s,
    help="Seconds after which a connection is made anew.",
)
@_db_option
@_setting(
    "--metrics",
    help="HOST:PORT to answer Prometheus on; not given: nowhere.",
)
@_setting(
    "--max-calls",
    type=click.IntRange(min=1),
    default=Settings.max_calls,
    help="Calls in flight; more are answered OVERLOADED.",
)
@_setting(
    "--max-pending",
    type=click.IntRange(min=1_000),
    default=Settings.max_pending,
    help="Changes waiting for the disk; more are answered OVERLOADED.",
)
@_setting(
    "--max-watchers",
    type=click.IntRange(min=0),
    default=Settings.max_watchers,
    help="Open WatchIdPasses streams; more are answered OVERLOADED.",
)
@_setting(
    "--max-watchers-per-account",
    type=click.IntRange(min=0),
    default=Settings.max_watchers_per_account,
    help="Open WatchIdPasses streams of one account; more are answered OVERLOADED.",
)
@_setting(
    "--rate",
    "rate_per_s",
    type=click.FloatRange(min=0),
    default=Settings.rate_per_s,
    help="Calls a second of each caller, cancellations in a batch counted one by one; more are "
    "answered OVERLOADED. 0: no limit.",
)
@_setting(
    "--burst",
    type=click.IntRange(min=1),
    default=Settings.burst,
    help="Calls that a caller may make at once after a rest.",
)
@_setting(
    "--max-message-bytes",
    type=click.IntRange(min=1_024, max=_MAX_INT),
    default=Settings.max_message_bytes,
    help="Size of a request.",
)
@_setting(
    "--max-metadata-bytes",
    type=click.IntRange(min=1_024, max=_MAX_INT),
    default=Settings.max_metadata_bytes,
    help="Size of a request's metadata, 32 bytes for each entry included.",
)
@_setting(
    "--max-connections",
    type=click.IntRange(min=1, max=_MAX_INT),
    default=Settings.max_connections,
    help="Open connections; more are closed at once.",
)
@_setting(
    "--max-streams",
    type=click.IntRange(min=1, max=_MAX_INT),
    default=Settings.max_streams,
    help="Calls and streams open on one connection; clients keep more waiting.",
)
@_setting(
    "--handshake-timeout",
    "handshake_timeout_s",
    type=click.FloatRange(min=0.1),
    default=Settings.handshake_timeout_s,
    help="Seconds for TLS and HTTP/2 to be agreed on; a connection that takes longer is closed.",
)
@_setting(
    "--max-idle",
    "max_idle_s",
    type=click.FloatRange(min=1),
    default=Settings.max_idle_s,
    help="Seconds without any call or stream after which a connection is closed.",
)
@_setting(
    "--min-ping-interval",
    "min_ping_interval_s",
    type=click.FloatRange(min=0.1),
    default=Settings.min_ping_interval_s,
    help="Seconds between a client's pings; the connection of one that sends more is closed.",
)
@_setting(
    "--drain",
    "drain_s",
    type=click.FloatRange(min=0),
    default=Settings.drain_s,
    help="Seconds that calls in flight get to finish on SIGTERM or Ctrl-C.",
)
@_setting(
    "--http",
    help="HOST:PORT for HTTP/JSON; not given: nowhere. Loopback addresses only.",
)
@_setting(
    "--workers",
    type=click.IntRange(1, 256),
    default=Settings.workers,
    help="Processes that serve together, each with the limits above; PostgreSQL only.",
)
@_setting(
    "--sandbox",
    is_flag=True,
    default=Settings.sandbox,
    help="Serve mock data, in a throw-away database instead of --db, and a page to try it on.",
)
@_setting(
    "--callers",
    help="File of those who may call; not given: everyone, for the account `demo`.",
)
@_setting(
    "--reflection/--no-reflection",
    default=None,
    help="Tell everyone the API; by default where there is no callers file.",
)
@_setting(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    help="The least severe lines to write to standard error.",
)
@click.pass_context
def serve(context: click.Context, /, log_level: str, **values: Any) -> None:
    """Serve until SIGTERM or Ctrl-C, then finish what is in flight.

    Without --callers everyone who can reach the address acts for the account `demo`. On SIGHUP the
    callers file is read again, as it is when it changes.
    """
    settings = Settings(**values)
    logs.configure(log_level)
    if settings.workers > 1:
        if not asyncio.run(workers.serve(settings, log_level)):
            context.exit(1)
    elif not uvloop.run(running.serve(settings)):
        context.exit(running.EXIT_STORE_BROKEN)


@main.command("gateway")
@click.option(
    "--target",
    default=Settings.listen,
    show_default=True,
    help="HOST:PORT of the service. Loopback addresses only.",
)
@click.option(
    "--http",
    default="127.0.0.1:8080",
    show_default=True,
    help="HOST:PORT for HTTP/JSON; port 0 takes a free one. Loopback addresses only.",
)
def gateway_command(target: str, http: str) -> None:
    """Serve HTTP/JSON alone, for a service that runs elsewhere on this machine."""
    logs.configure("info")
    uvloop.run(running.serve_http(target, http))


@main.command("demo")
@click.pass_context
def demo_command(context: click.Context) -> None:
    """Cancel a pass in each of the seven statuses and show what comes of it."""
    logs.configure("warning")
    if not uvloop.run(demo()):
        context.exit(1)


@main.command("audit")
@_db_option
@click.pass_context
def audit_command(context: click.Context, db: str) -> None:
    """Check every invariant of a database, which may be in use meanwhile."""
    _existing(db)
    problems, counts = opening.audit_store(db)
    for problem in problems:
        click.echo(problem, err=True)
    if problems:
        context.exit(1)
    found = ", ".join(f"{count} {table}" for table, count in counts.items())
    click.echo(f"{shown_url(db)}: all is well: {found}")


@main.command("migrate")
@_db_option
def migrate_command(db: str) -> None:
    """Bring a database's schema up to date, also while older servers use it.

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


@main.command("dev-certs")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--host", "hosts", multiple=True, help="Name or IP address of the server; may be repeated."
)
@click.option(
    "--spiffe-id",
    "spiffe_ids",
    multiple=True,
    help="Of a caller, such as spiffe://example.org/billing; may be repeated.",
)
@click.option(
    "--days", type=click.IntRange(1, 3_650), default=90, show_default=True, help="Validity."
)
def dev_certs_command(
    folder: Path, hosts: tuple[str, ...], spiffe_ids: tuple[str, ...], days: int
) -> None:
    """Make an authority and certificates to try TLS with, in DIR.

    The server's is for localhost, 127.0.0.1, ::1 and each --host. Each --spiffe-id gets a client
    certificate of its own.
    """
    try:
        from idpass_server import dev_certs  # noqa: PLC0415 an extra may be missing
    except ImportError as error:
        raise click.ClickException(
            f"dev-certs needs {error.name}, which is missing: "
            "pip install 'idpass-server[dev-certs]'"
        ) from error
    try:
        made = dev_certs.make(folder, hosts=hosts, spiffe_ids=spiffe_ids, days=days)
    except dev_certs.CannotMake as error:
        raise click.ClickException(str(error)) from error
    click.echo(made.described())


@main.command("token")
def token_command() -> None:
    """Make a token for a caller, and the line that its table in the callers file gets.

    The token is for the caller alone; the service knows only what the line says.
    """
    token = secrets.token_urlsafe(32)
    click.echo(token)
    click.echo(f'token_sha256 = "{hashlib.sha256(token.encode()).hexdigest()}"', err=True)


@main.group()
def account() -> None:
    """Make, show and change accounts, also while they are being served."""


@account.command()
@click.argument("name", callback=_account_name)
@click.option("--slots", type=click.IntRange(0, MAX_SLOTS), required=True, help="Passes in flight.")
@click.option("--fee", type=_Money(), required=True, help="Fee for a pass, such as 'AUD 4.50'.")
@_db_option
def create(name: str, slots: int, fee: Money, db: str) -> None:
    """Make an account."""
    with _opened(db) as store:
        if not store.create_account(Account(name, slots, 0, *fee, 0, 0, 0)):
            raise click.ClickException(
                f"account {name} exists; change it with: idpass-server account set {name}"
            )
        _show(store, name)


@account.command()
@click.argument("name")
@_db_option
def show(name: str, db: str) -> None:
    """Show an account."""
    with _opened(_existing(db)) as store:
        _show(store, name)


@account.command("set")
@click.argument("name")
@click.option("--slots", type=click.IntRange(0, MAX_SLOTS), help="Passes in flight.")
@click.option("--fee", type=_Money(), help="Fee for passes registered from now on.")
@_db_option
def set_account(name: str, slots: int | None, fee: Money | None, db: str) -> None:
    """Change an account. Passes keep the fee they were registered with."""
    if slots is None and fee is None:
        raise click.UsageError("nothing to change; give --slots or --fee")
    with _opened(_existing(db)) as store:
        before = _account(store, name)
        if not store.set_account(name, slot_limit=slots, fee=fee):
            raise click.ClickException(
                f"account {name} has charged fees in {before.currency} and keeps that currency"
            )
        _show(store, name)


@contextmanager
def _opened(db: str) -> Iterator[Store]:
    """A store beside a server that may be running."""
    store = opening.open_store(db, exclusive=False)
    try:
        yield store
    finally:
        store.close()


def _existing(db: str) -> str:
    path = sqlite_path(db)
    if path is not None and not path.exists():
        raise click.ClickException(f"there is no database {path}; say which with --db")
    return db


def _account(store: Store, name: str) -> Account:
    found = store.get_account(name)
    if found is None:
        raise click.ClickException(
            f"there is no account {name}; make it with: "
            f"idpass-server account create {name} --slots 100 --fee 'AUD 4.50'"
        )
    return found


def _show(store: Store, name: str) -> None:
    found = _account(store, name)
    click.echo(f"account        {found.name}")
    click.echo(f"fee            {show_money(Money(found.currency, found.fee_micros))}")
    click.echo(f"slots          {found.slots_in_use} of {found.slot_limit} in use")
    click.echo(f"fees charged   {show_money(Money(found.currency, found.charged_micros))}")
    click.echo(f"fees refunded  {show_money(Money(found.currency, found.refunded_micros))}")
    click.echo(f"last event     {found.last_sequence}")
