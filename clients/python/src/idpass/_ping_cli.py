"""The command `idpass ping`."""

import contextlib
import time
from typing import Any

import click

from idpass import __version__, _cli, _show, _stdio
from idpass._cli import Cli
from idpass.errors import IdPassError

ROUND_TRIPS = 3
"""Calls that are timed, once there is a connection; the shortest counts."""


def ping(cli: Cli) -> int:
    """Say whether the service answers, how fast, and whom it takes you for.

    It asks for your account, as `idpass account` does, and changes nothing. If the service cannot
    be reached or refuses you, it says why.
    """
    found: dict[str, Any] = {"address": _cli.target().address, "connection": _connection()}
    found["client_version"] = __version__
    try:
        account = cli.client.account()  # connects
        round_trips_ms = [_round_trip_ms(cli) for _ in range(ROUND_TRIPS)]
    except IdPassError as error:
        # Only the service itself gives a reason.
        found["reachable"] = error.reason is not None
        if not cli.json:
            with contextlib.suppress(_stdio.CannotWrite):  # the error is what matters
                _show.rows(cli.out, _show.ping_rows(found))
        return cli.complain(error, **found)
    found |= {
        "reachable": True,
        "account": account.id,
        "history": account.history,
        "last_sequence": account.last_sequence,
        "round_trip_ms": round(min(round_trips_ms), 2),
    }
    cli.tell(found, _show.ping_rows(found))
    return 0


def _connection() -> str:
    given = click.get_current_context().find_root().params
    if given["cert"]:
        return "mutual TLS"
    return "TLS" if given["ca"] or given["tls"] or _cli.target().tls else "plain text"


def whoami(cli: Cli) -> int:
    """The same as ping."""
    return ping(cli)


def _round_trip_ms(cli: Cli) -> float:
    begun_s = time.perf_counter()
    cli.client.account()
    return (time.perf_counter() - begun_s) * 1_000
