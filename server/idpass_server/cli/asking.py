"""What commands ask of operators: who they are, and whether they mean it."""

import getpass
import os
import re
import socket
import sys
from collections.abc import Callable
from typing import Any, Final

import click

from idpass_server.failures import BadSetting

Command = Callable[..., Any]
_NAME: Final = re.compile(r"[!-~]{1,128}")


def _said(_context: Any, _parameter: Any, value: str | None) -> str:
    return operator(value)


as_operator: Final = click.option(
    "--as",
    "who",
    metavar="NAME",
    callback=_said,
    help="Who you are, for the admin log.  [default: the user you logged in as]",
)
"""The option of every command that changes something; the command gets `who`, for the admin log."""

yes: Final = click.option("--yes", is_flag=True, help="Do it without asking.")
"""The option of every command that asks; the command passes it to `confirm`."""

dry_run: Final = click.option(
    "--dry-run", is_flag=True, help="Change nothing; print what would be done."
)
"""The option of commands that can say beforehand what they would do."""


def operator(name: str | None = None) -> str:
    """Who is giving this command, as NAME@HOST. It is a claim: nothing proves it.

    Args:
        name: what they call themselves; None for the user who logged in, also behind sudo.

    Raises:
        BadSetting: the name cannot be used.
    """
    if name is not None and not _NAME.fullmatch(name):
        raise BadSetting(f"--as {name!r} is not 1 to 128 visible ASCII characters, without spaces")
    return f"{name or os.environ.get('SUDO_USER') or _user()}@{socket.gethostname()}"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # containers may run as a user without a name
        return f"uid-{os.getuid()}"


def confirm(question: str, *, given: bool) -> None:
    """Asks the operator, before something that cannot be undone.

    Args:
        question: such as "Delete account acme?".
        given: whether --yes was given; nothing is asked then.

    Raises:
        BadSetting: there is nobody to ask; exit code 2.
        click.Abort: the answer is no; exit code 1.
    """
    if given:
        return
    if not sys.stdin.isatty():
        raise BadSetting(
            f"{question} There is no terminal to ask on, and nothing was changed; give --yes"
        )
    click.confirm(question, abort=True, err=True)
