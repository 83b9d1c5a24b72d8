"""What the commands of `cli` share: output, exit codes, durations."""

import functools
import io
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import Any

import click

from idpass import _show, _stdio
from idpass._cli_address import Target
from idpass._records import CancelResult, Receipt
from idpass._words import Status
from idpass.client import IdPassClient
from idpass.errors import (
    BadAnswer,
    DeadlineExceeded,
    IdPassError,
    OutcomeUnknown,
    Overloaded,
    Unavailable,
)

EXIT_REFUSED = 1
EXIT_UNKNOWN = 3
EXIT_UNREACHABLE = 4
EXIT_OUTPUT = 5
EXIT_INTERRUPTED = 130

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
Command = Callable[..., Any]


class Duration(click.ParamType[timedelta]):
    name = "duration"

    def convert(self, value: Any, param: Any, ctx: Any) -> timedelta:
        if isinstance(value, timedelta):
            return value
        match = re.fullmatch(r"(\d{1,5})([smhdw])", value, re.ASCII)
        if not match:
            self.fail(f"{value!r} is not a duration such as 30m, 12h, 7d or 2w", param, ctx)
        return timedelta(**{_UNITS[match[2]]: int(match[1])})


def status_option(choices: Iterable[Status]) -> Callable[[Command], Command]:
    return click.option(
        "--status",
        "statuses",
        type=click.Choice([str(status) for status in choices]),
        multiple=True,
        help="Only passes in this status; may be repeated.",
    )


def target() -> Target:
    """The address that the command was given."""
    found: Target = click.get_current_context().find_root().params["address"]
    return found


def command_of(group: click.Group) -> Callable[[Command], Command]:
    """Makes a function a command of a group: it is given a Cli and may return an exit code."""

    def make(function: Command) -> Command:
        @group.command(function.__name__.rstrip("_"))
        @click.option("--json", is_flag=True, help="For scripts: one JSON object per line.")
        @click.pass_obj
        @functools.wraps(function)
        def run(connect: Callable[[], IdPassClient], /, json: bool, **arguments: Any) -> None:
            try:
                client = connect()
            except (ValueError, OSError) as error:
                raise click.UsageError(str(error)) from error
            with client:
                sys.exit(_run(function, Cli(client, json=json), arguments))

        return run

    return make


def _run(function: Command, cli: "Cli", arguments: Mapping[str, Any]) -> int:
    try:
        return function(cli, **arguments) or 0
    except IdPassError as error:
        return cli.complain(error)
    except _stdio.CannotWrite as failure:
        return cli.not_told(failure)
    except UnicodeEncodeError as error:
        raise click.UsageError(f"{error.object!r} is not in UTF-8") from error
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


class Cli:
    """A client, and what the command writes and returns.

    Args:
        json: whether to write JSON, for scripts.

    Raises:
        UsageError: standard output is closed.
    """

    def __init__(self, client: IdPassClient, *, json: bool) -> None:
        if sys.stdout is None:
            raise click.UsageError("standard output is closed, and the answer would be lost")
        self.client = client
        self.json = json
        # A table in a file or a pipe is as wide as it needs to be.
        width = None if sys.stdout.isatty() else 1_000
        self.out = _stdio.console(sys.stdout, needed=True, width=width)
        self.err = _stdio.console(sys.stderr or io.StringIO(), needed=False, soft_wrap=True)
        self._ascii_only = not _stdio.encodes_everything(sys.stdout)
        self._done = ""

    def tell(self, value: Any, rows: Iterable[_show.Row], done: str = "") -> None:
        """
        Args:
            done: what has been changed, told if the output cannot be written.
        """
        self._done = done
        if self.json:
            self.tell_json(value)
        else:
            _show.rows(self.out, rows)

    def tell_receipt(self, receipt: Receipt, *, checked: bool = False, others: str = "") -> None:
        """
        Args:
            checked: whether the pass was only checked and nothing was changed.
            others: what to say of further passes if the output cannot be written.
        """
        line = _show.receipt_line(receipt, checked=checked)
        self._done = "" if checked else line.plain + others
        if self.json:
            self.tell_json(receipt)
        else:
            self.out.print(line, soft_wrap=True)

    def tell_result(self, result: CancelResult) -> None:
        """One of very many: a line in JSON; people see the sums."""
        if not self.json:
            return
        if result.receipt:
            self.tell_json(result.receipt)
        elif result.error:
            self.tell_json({"id": result.id} | _show.error_fields(result.error))

    def tell_json(self, value: Any) -> None:
        self.out.file.write(_show.as_json(value, ascii_only=self._ascii_only) + "\n")
        self.out.file.flush()

    def complain(self, error: IdPassError, **context: Any) -> int:
        """Reports an error. Returns its exit code. Args: context: further fields, in JSON."""
        try:
            if self.json:
                self.tell_json(context | _show.error_fields(error))
            else:
                self.err.print(_show.error_line(error))
        except _stdio.CannotWrite:
            self.err.print(_show.error_line(error))
        if isinstance(error, OutcomeUnknown):
            return EXIT_UNKNOWN
        if isinstance(error, (BadAnswer, DeadlineExceeded, Overloaded, Unavailable)):
            return EXIT_UNREACHABLE
        return EXIT_REFUSED

    def not_told(self, failure: _stdio.CannotWrite) -> int:
        """Reports that the output is lost, and what was done. Returns the exit code."""
        if self._done:
            self.err.print(f"The output cannot be written ({failure}). Done: {self._done}")
        elif not failure.reader_left:  # as with `| head`
            self.err.print(f"The output cannot be written ({failure}).")
        return EXIT_OUTPUT
