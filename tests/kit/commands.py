"""Commands of idpass-server run in the test's own process, which is faster than in another."""

from typing import Protocol

import click
from click.testing import CliRunner, Result

from idpass_server.cli import main


class Command(Protocol):
    """Runs a command, and checks its exit code."""

    def __call__(self, *arguments: str, code: int = 0) -> Result: ...


def run(*arguments: str, code: int = 0) -> Result:
    """Runs a command, and checks its exit code."""
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == code, done.output
    return done


def subcommands(command: click.Command) -> dict[str, click.Command]:
    """The commands below one, by name."""
    if not isinstance(command, click.Group):
        return {}
    context = click.Context(command)
    found = {name: command.get_command(context, name) for name in command.list_commands(context)}
    return {name: each for name, each in found.items() if each is not None}
