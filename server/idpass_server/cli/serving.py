"""Commands that serve: `serve`, `gateway` and `demo`."""

import asyncio
from typing import Any, Final

import click
import uvloop

from idpass_server import logs, running, workers
from idpass_server.cli.base import db_option, main, setting
from idpass_server.config import Settings
from idpass_server.demo import demo

MAX_CONNECTION_AGE_S: Final = 7 * 86_400
_MAX_INT: Final = 2**31 - 1  # gRPC's own settings are 32-bit numbers


@main.command()
@setting(
    "--listen",
    default=Settings.listen,
    help="HOST:PORT to serve; port 0 takes a free one. Without TLS loopback addresses only.",
)
@setting(
    "--tls-cert",
    help="Speak TLS: PEM file of the certificate, and of those between it and its authority.",
)
@setting("--tls-key", help="PEM file of its private key.")
@setting(
    "--tls-client-ca",
    help="Mutual TLS: PEM file of the authorities that callers' certificates come from.",
)
@setting(
    "--max-connection-age",
    "max_connection_age_s",
    type=click.FloatRange(1, MAX_CONNECTION_AGE_S),
    default=Settings.max_connection_age_s,
    help="Seconds after which a connection is made anew.",
)
@db_option
@setting(
    "--accept-clock",
    is_flag=True,
    default=Settings.accept_clock,
    help="Start though the clock does not fit to the stored events: it has been checked.",
)
@setting(
    "--metrics",
    help="HOST:PORT to answer Prometheus on; not given: nowhere.",
)
@setting(
    "--max-calls",
    type=click.IntRange(min=1),
    default=Settings.max_calls,
    help="Calls in flight; more are answered OVERLOADED.",
)
@setting(
    "--max-pending",
    type=click.IntRange(min=1_000),
    default=Settings.max_pending,
    help="Changes waiting for the disk; more are answered OVERLOADED.",
)
@setting(
    "--max-watchers",
    type=click.IntRange(min=0),
    default=Settings.max_watchers,
    help="Open WatchIdPasses streams; more are answered OVERLOADED.",
)
@setting(
    "--max-watchers-per-account",
    type=click.IntRange(min=0),
    default=Settings.max_watchers_per_account,
    help="Open WatchIdPasses streams of one account; more are answered OVERLOADED.",
)
@setting(
    "--rate",
    "rate_per_s",
    type=click.FloatRange(min=0),
    default=Settings.rate_per_s,
    help="Calls a second of each caller, cancellations in a batch counted one by one; more are "
    "answered OVERLOADED. 0: no limit.",
)
@setting(
    "--burst",
    type=click.IntRange(min=1),
    default=Settings.burst,
    help="Calls that a caller may make at once after a rest.",
)
@setting(
    "--max-message-bytes",
    type=click.IntRange(min=1_024, max=_MAX_INT),
    default=Settings.max_message_bytes,
    help="Size of a request.",
)
@setting(
    "--max-metadata-bytes",
    type=click.IntRange(min=1_024, max=_MAX_INT),
    default=Settings.max_metadata_bytes,
    help="Size of a request's metadata, 32 bytes for each entry included.",
)
@setting(
    "--max-connections",
    type=click.IntRange(min=1, max=_MAX_INT),
    default=Settings.max_connections,
    help="Open connections; more are closed at once.",
)
@setting(
    "--max-streams",
    type=click.IntRange(min=1, max=_MAX_INT),
    default=Settings.max_streams,
    help="Calls and streams open on one connection; more wait in the client, or are refused.",
)
@setting(
    "--handshake-timeout",
    "handshake_timeout_s",
    type=click.FloatRange(min=0.1),
    default=Settings.handshake_timeout_s,
    help="Seconds for TLS and HTTP/2 to be agreed on; a connection that takes longer is closed.",
)
@setting(
    "--max-idle",
    "max_idle_s",
    type=click.FloatRange(min=1),
    default=Settings.max_idle_s,
    help="Seconds without any call or stream after which a connection is closed.",
)
@setting(
    "--min-ping-interval",
    "min_ping_interval_s",
    type=click.FloatRange(min=0.1),
    default=Settings.min_ping_interval_s,
    help="Seconds between a client's pings; the connection of one that sends more is closed.",
)
@setting(
    "--drain",
    "drain_s",
    type=click.FloatRange(min=0),
    default=Settings.drain_s,
    help="Seconds that calls in flight get to finish on SIGTERM or Ctrl-C.",
)
@setting(
    "--http",
    help="HOST:PORT for HTTP/JSON; not given: nowhere. Loopback addresses only.",
)
@setting(
    "--workers",
    type=click.IntRange(1, 256),
    default=Settings.workers,
    help="Processes that serve together, each with the limits above; PostgreSQL only.",
)
@setting(
    "--sandbox",
    is_flag=True,
    default=Settings.sandbox,
    help="Serve mock data, in a throw-away database instead of --db, and a page to try it on.",
)
@setting(
    "--callers",
    help="File of those who may call; not given: everyone, for the account `demo`.",
)
@setting(
    "--reflection/--no-reflection",
    default=None,
    help="Tell everyone the API; by default where there is no callers file.",
)
@setting(
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
