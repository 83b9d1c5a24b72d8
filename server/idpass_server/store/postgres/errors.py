"""PostgreSQL's errors: what they mean for callers, and their text for operators.

Callers learn what an error means for them. The log and operators get PostgreSQL's own text with the
SQLSTATE, without the secrets of a URL.
"""

import os
from collections.abc import Mapping
from typing import Any, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict

from idpass_server.rules.refusals import StoreUnavailable
from idpass_server.store import StoreBroken
from idpass_server.urls import HIDDEN, shown_url

# SQLSTATEs by what they mean here.
OUTCOME_UNKNOWN: Final = {"40003", "08007"}
CONFLICT: Final = {"40001", "40P01"}  # serialisation failure, deadlock: run the transaction again
LOCKED: Final = "55P03"
DISK_FULL: Final = "53100"
_READ_ONLY: Final = "25006"
ELSEWHERE: Final = {
    _READ_ONLY: "the database is read-only here",
    "57P01": "the database is shutting down",
    "57P02": "the database has crashed",
    "57P03": "the database is starting up",
}
_BUSY: Final = {
    DISK_FULL: "the database's disk is full",
    "53200": "the database is out of memory",
    "53300": "the database has too many connections",
    LOCKED: "the database is busy",
    "57014": "the database took too long",
}
_DAMAGED: Final = {"XX001", "XX002", "58030"}
_SHOWN: Final = {"host", "hostaddr", "port", "dbname", "user"}
_SHORT: Final = 4
"""Length up to which a parameter of a URL, such as a number, is no secret unless a password."""


class NoAnswer(psycopg.OperationalError):
    """The server did not answer in time; the connection is closed."""


class NotConfirmed(psycopg.OperationalError):
    """COMMIT was answered with a warning: a standby may not have it."""


class Said(Exception):
    """An error in PostgreSQL's or libpq's words, without secrets."""


def _reason(error: psycopg.Error) -> str | None:
    """What an error means for callers; None if it is a bug of ours."""
    state = error.sqlstate or ""
    if isinstance(error, NoAnswer):
        return "the database does not answer"
    if isinstance(error, NotConfirmed):
        return "a synchronous standby does not confirm commits"
    if state in CONFLICT:
        return "too much happens in the database at once"
    if "session is read-only" in str(error):  # said by libpq
        state = _READ_ONLY
    if state.startswith("08") or (not state and isinstance(error, psycopg.OperationalError)):
        return "the database is out of reach"
    return ELSEWHERE.get(state) or _BUSY.get(state)


def refused(error: psycopg.Error, url: str) -> Exception:
    """What to raise for an error after which nothing was changed.

    Args:
        error: of the database.
        url: of the database.

    Returns:
        StoreUnavailable, StoreBroken, or the error itself if it is a bug of ours.
    """
    if error.sqlstate in _DAMAGED:
        return StoreBroken(f"the database is damaged: {said(error, url)}")
    reason = _reason(error)
    if reason is None:
        return error
    return StoreUnavailable(f"{reason}; nothing was changed")


def said(error: BaseException, url: str = "") -> Said:
    """What PostgreSQL said, on one line and without secrets.

    Details of a server's error may quote rows and are left out. An error about connecting has text
    only: libpq does not pass its SQLSTATE on.

    Args:
        error: of the database.
        url: of the database, whose secrets are removed.
    """
    if isinstance(error.__cause__, Said):
        return error.__cause__
    state = error.sqlstate if isinstance(error, psycopg.Error) else None
    primary = error.diag.message_primary if isinstance(error, psycopg.Error) else None
    text = " ".join((primary or str(error) or type(error).__name__).split())
    for secret in _secrets(url):
        text = text.replace(secret, HIDDEN)
    return Said(f"{text} (SQLSTATE {state})" if state else text)


def cannot_connect(url: str, error: psycopg.Error) -> str:
    """Says why a database cannot be used, for operators."""
    return f"{shown_url(url)} cannot be used: {said(error, url)}"


def _secrets(url: str) -> list[str]:
    given: Mapping[str, Any] = {}
    try:
        given = conninfo_to_dict(url) if url else {}
    except psycopg.ProgrammingError:
        given = {}
    found = {
        str(value)
        for name, value in given.items()
        if name not in _SHOWN and ("password" in name or len(str(value)) > _SHORT)
    }
    found.add(os.environ.get("PGPASSWORD", ""))
    return sorted(filter(None, found), key=len, reverse=True)
