"""The command `idpass-server` itself, and what its commands share: options and the way out."""

import importlib
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import fields
from typing import Any, Final, get_args

import click

from idpass_server.config import OPTIONS, Settings
from idpass_server.failures import EXIT_USAGE, OperatorError
from idpass_server.options import Option

EXIT_OUTPUT: Final = 5
"""Exit code of a command that did its work but could not write its output."""
COMMANDS: Final = {
    "account": "accounts",
    "admin-log": "admin_log",
    "audit": "databases",
    "backup": "backups",
    "callers": "callers",
    "compact": "databases",
    "copy": "databases",
    "demo": "serving",
    "dev-certs": "credentials",
    "erase": "retention",
    "export": "exporting",
    "gateway": "serving",
    "health": "health",
    "init": "databases",
    "migrate": "databases",
    "new-history": "backups",
    "pass": "passes",
    "purge": "retention",
    "report": "reports",
    "restore": "backups",
    "serve": "serving",
    "token": "credentials",
    "webhook-key": "credentials",
}
"""The module of each command. It is imported when the command is used: the server with all it needs
takes longer to import than most commands to run, and shell completion runs the program on each Tab.
"""
Command = Callable[..., Any]
_RANGES: Final[dict[object, Command]] = {int: click.IntRange, float: click.FloatRange}
_TYPES: Final = {each.name: each.type for each in fields(Settings)}


def option(name: str, **instead: Any) -> Callable[[Command], Command]:
    """The click option of a setting, also read from its environment variable.

    Args:
        name: of the setting's field in `Settings`.
        instead: click's arguments that differ from those of `serve`.
    """
    declared, default, kind = OPTIONS[name], getattr(Settings, name), _TYPES[name]
    words: dict[str, Any] = {
        "default": default,
        "envvar": declared.variable,
        "show_envvar": True,
        "show_default": default is not None and default is not False,
        "help": declared.help,
    }
    flag = declared.flag
    if kind is bool:
        words["is_flag"] = True
    elif bool in get_args(kind):
        flag += f"/--no-{flag.removeprefix('--')}"
    else:
        words |= {"type": _click_type(declared, kind), "metavar": declared.value}
    return click.option(flag, name, **words | instead)


def _click_type(declared: Option, kind: object) -> Any:
    if declared.choices:
        return click.Choice(declared.choices)
    for number, ranged in _RANGES.items():
        if kind is number or number in get_args(kind):
            return ranged(declared.least, declared.most)
    return click.STRING


class _Group(click.Group):
    """Imports commands when they are used, and says in a message and an exit code what could not be
    done, without a traceback.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 click's method
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in COMMANDS and cmd_name not in self.commands:
            importlib.import_module(f"idpass_server.cli.{COMMANDS[cmd_name]}")
        return super().get_command(ctx, cmd_name)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except OperatorError as error:
            if error.exit_code == EXIT_USAGE:
                raise click.UsageError(str(error)) from error
            raise click.ClickException(str(error)) from error
        except OSError as error:
            if not _output_failed(error):
                raise
            click.echo(
                f"Error: the output cannot be written ({error.strerror}); the command's changes "
                "were made",
                err=True,
            )
            ctx.exit(EXIT_OUTPUT)


def _output_failed(error: OSError) -> bool:
    """Whether writing the output failed; if so, nothing more is written to it."""
    frames = traceback.walk_tb(error.__traceback__)
    failed = any(frame.f_code is click.echo.__code__ for frame, _ in frames)
    if failed:
        # Otherwise Python would flush the buffer at exit and fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return failed


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="idpass-server")
def main() -> None:
    """Cancel in-flight ID Passes: once, durably, with the right refund."""
