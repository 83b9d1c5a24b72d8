"""The command `idpass-server` itself, and what its commands share."""

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
Command = Callable[..., Any]
_RANGES: Final[dict[object, Command]] = {int: click.IntRange, float: click.FloatRange}
_TYPES: Final = {each.name: each.type for each in fields(Settings)}


def option(name: str, **instead: Any) -> Callable[[Command], Command]:
    """The click option of a setting, which is read from the environment as well.

    Args:
        name: of its field in `Settings`.
        instead: what a command wants other than `serve`, in click's words.
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
    """Says what could not be done in one line, without a stack trace."""

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
                f"Error: the output cannot be written ({error.strerror}); what the command changes "
                "is changed",
                err=True,
            )
            ctx.exit(EXIT_OUTPUT)


def _output_failed(error: OSError) -> bool:
    """Whether it was the output that failed, which is left alone from then on."""
    frames = traceback.walk_tb(error.__traceback__)
    failed = any(frame.f_code is click.echo.__code__ for frame, _ in frames)
    if failed:
        # What is still in the buffer is not to fail again when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return failed


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="idpass-server")
def main() -> None:
    """Cancels in-flight ID Passes: once, durably, with the right refund."""
