"""Commands that serve: `serve`, `gateway` and `demo`."""

import asyncio
import os
from typing import Any

import click
import structlog
import uvloop

from idpass_server import logs
from idpass_server.cli.base import Command, main, option
from idpass_server.cli.environment import unknown_variables
from idpass_server.config import OPTIONS, Settings
from idpass_server.processes import ending, running, supervisor
from idpass_server.trying.demo import demo
from idpass_server.trying.sandbox import on_free_ports

log = structlog.get_logger()


def _every_option(command: Command) -> Command:
    for name in reversed(OPTIONS):  # each decorator puts its option before the others
        command = option(name)(command)
    return command


@main.command()
@_every_option
@click.pass_context
def serve(context: click.Context, /, **values: Any) -> None:
    """Serve until SIGTERM or Ctrl-C, then drain.

    Without --callers everyone who can reach the address acts for the account `demo`. The callers
    file and the certificates are reread when they change, and on SIGHUP. SIGUSR2 hands over to a
    new process, with the program that is on disk by then, or has it replace the workers one by one.
    SIGUSR1 prints the stack of every thread.
    """
    settings = Settings(**values)
    logs.configure(settings.log_level)
    for variable, nearest in unknown_variables(os.environ).items():
        log.warning("unknown_variable", variable=variable, nearest=nearest)
    if settings.sandbox:
        settings = on_free_ports(settings)
    if settings.workers > 1:
        if not asyncio.run(supervisor.serve(settings)):
            context.exit(1)
    elif not ending.run(running.serve(settings)):
        context.exit(ending.EXIT_STORE_BROKEN)


@main.command("gateway")
@click.option(
    "--target",
    default=Settings.listen,
    show_default=True,
    metavar=OPTIONS["listen"].value,
    help="Address of the service, loopback only.",
)
@option("http", default="127.0.0.1:8080", show_default=True, help="Address, loopback only.")
@option("log_level")
def gateway_command(target: str, http: str, log_level: str) -> None:
    """Serve HTTP/JSON alone, for a service that runs separately on this machine."""
    logs.configure(log_level)
    ending.run(running.serve_http(target, http))


@main.command("demo")
@click.pass_context
def demo_command(context: click.Context) -> None:
    """Cancel a pass in each of the seven statuses and show the outcome."""
    logs.configure("warning")
    if not uvloop.run(demo()):
        context.exit(1)
