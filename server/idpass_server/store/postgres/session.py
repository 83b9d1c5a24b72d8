"""PostgreSQL sessions: every setting that the code relies on is set, or the session is refused.

The environment, the role, the database and the URL may each have set something else.
"""

import re
from collections.abc import Callable
from contextlib import closing
from typing import Any, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from idpass_server.rules.refusals import StoreUnavailable
from idpass_server.store import CannotOpen
from idpass_server.urls import is_ambiguous, shown_url

# Defaults for what the URL does not say. A host that vanishes is noticed after about 15 s. A host
# that does not accept changes is skipped, even if it is the only one: its address may lead to
# several.
_DEFAULTS: Final = {
    "application_name": "idpass-server",
    "connect_timeout": "3",
    "keepalives_idle": "10",
    "keepalives_interval": "3",
    "keepalives_count": "2",
    "tcp_user_timeout": "15000",
    "target_session_attrs": "read-write",
}
OPERATING: Final = {
    "client_encoding": "UTF8",
    "default_transaction_isolation": "read committed",
    "default_transaction_deferrable": "off",
    "TimeZone": "UTC",
    "synchronous_commit": "on",
    "lock_timeout": "0",
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "transaction_timeout": "0",
    "idle_session_timeout": "0",
}
"""Settings for operators' work, which may take its time."""
# Plans are generic and made for large tables, whatever their size is: a plan that scans a small
# table would stay in use until the table is analysed. A session that hangs in a transaction (its
# process is stopped, its host gone) must not keep its accounts locked for long.
SERVING: Final = OPERATING | {
    "lock_timeout": "2s",
    "statement_timeout": "10s",
    "idle_in_transaction_session_timeout": "10s",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "plan_cache_mode": "force_generic_plan",
    "jit": "off",
}
DURABLE: Final = {"on", "remote_apply"}
"""Values of synchronous_commit with which COMMIT returns once it is on disk, here and on a
synchronous standby."""
_NOT_EVERYWHERE: Final = {"transaction_timeout"}

# A stronger setting of the server's is kept.
_SET: Final = """
    SELECT set_config(name, CASE WHEN name = 'synchronous_commit'
        AND current_setting(name) = 'remote_apply' THEN 'remote_apply' ELSE value END, false)
    FROM unnest(%s::text[], %s::text[]) AS wanted (name, value)
    WHERE current_setting(name, true) IS NOT NULL OR NOT name = ANY(%s)"""
_FACTS: Final = """
    SELECT pg_backend_pid(), current_setting('fsync', true), current_setting('synchronous_commit'),
        current_setting('client_encoding')"""
_PID: Final = "SELECT pg_backend_pid()"
_SCHEMA: Final = re.compile(r"(?:-c\s*|--)search_path=((?:\\.|\S)+)")
POOLER_TURNS: Final = 3
"""Number of attempts to catch a pooler switching sessions."""
POOLER_WAIT_S: Final = 2.0
"""Timeout of each attempt, seconds."""
POOLED: Final = (
    "a pooler between this server and PostgreSQL gives its transactions to different sessions, "
    "whose settings are lost, durability among them; connect to PostgreSQL itself, or have the "
    "pooler keep sessions (PgBouncer: pool_mode = session)"
)


def conninfo(url: str, *, read_only: bool = False) -> str:
    """Completes a URL with defaults.

    Args:
        url: as libpq takes it.
        read_only: accept a server that does not accept changes.

    Raises:
        CannotOpen: the URL cannot be used.
    """
    # libpq's own reason might show parts of a password.
    wrong = CannotOpen(
        f"{shown_url(url)!r} is no database URL: it is postgresql://USER:PASSWORD@HOST:PORT/"
        "DATABASE, where @ : / ? % in a user or password are written as %40 %3A %2F %3F %25"
    )
    if is_ambiguous(url):
        raise wrong
    try:
        given = conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        raise wrong from None
    any_server = {"target_session_attrs": "any"} if read_only else {}
    return make_conninfo("", **(_DEFAULTS | any_server | given | {"client_encoding": "UTF8"}))


def prepare(connection: Any, connect: Callable[[], Any], settings: dict[str, str]) -> int:
    """Sets up a session, and checks what cannot be set.

    Args:
        connection: new, in autocommit mode.
        connect: opens another connection to the same place.
        settings: OPERATING or SERVING, perhaps with other values.

    Returns:
        process id of the session; each transaction with changes proves that it runs there.

    Raises:
        StoreUnavailable: commits of the server, or of a pooler before it, cannot be relied on.
        psycopg.Error: a setting was refused; the message names it.
    """
    wanted = {"search_path": _search_path(connection)} | settings
    # Prepared statements would fail in a pooler before it is recognised as one.
    values = list(wanted), list(wanted.values()), list(_NOT_EVERYWHERE)
    connection.execute(_SET, values, prepare=False)
    facts = connection.execute(_FACTS, prepare=False).fetchone()
    pid, fsync, synchronous_commit, encoding = facts
    if fsync == "off":
        raise StoreUnavailable(
            "the PostgreSQL server runs with fsync = off and would lose what it has "
            "acknowledged; turn it on"
        )
    if connection.info.backend_pid != pid:
        _prove_sessions_are_kept(connection, connect, pid)
    if synchronous_commit not in DURABLE or encoding != "UTF8":
        raise StoreUnavailable(POOLED)
    return int(pid)


def _search_path(connection: Any) -> str:
    """The search_path named in the options of the URL or the environment, or else `public`.

    The schemas of the user and of temporary tables never come first: others could fill them.
    """
    match = _SCHEMA.search(connection.info.get_parameters().get("options", ""))
    return f"{match[1].replace(chr(92), '') if match else 'public'}, pg_temp"


def _prove_sessions_are_kept(connection: Any, connect: Callable[[], Any], pid: int) -> None:
    """Checks that a pooler keeps sessions.

    A pooler shows by a process id that is not the session's. While another of its clients is in a
    transaction, a pooler that keeps sessions gives this connection neither that client's session
    nor a third one.

    Raises:
        StoreUnavailable: it does not keep sessions.
    """
    for _ in range(POOLER_TURNS):
        with closing(connect()) as other:
            other.execute("BEGIN", prepare=False)
            others = other.execute(_PID, prepare=False).fetchone()[0]
            try:
                with connection.hurried(POOLER_WAIT_S):
                    kept = (
                        others != pid
                        and connection.execute(_PID, prepare=False).fetchone()[0] == pid
                    )
            except psycopg.Error:  # it has only one session, which the other client uses
                kept = False
        if not kept:
            raise StoreUnavailable(POOLED)
