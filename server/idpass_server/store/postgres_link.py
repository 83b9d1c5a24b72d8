"""A connection to PostgreSQL that is made again when it is lost, and what its errors mean.

`synchronous_commit` is on whatever the database's default is, since OK means on disk; where it
is `remote_apply`, which promises more, it is left. A server without fsync is refused.
"""

import logging
from collections.abc import Callable
from typing import Any, Final, TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import TransactionStatus
from psycopg.types.string import TextLoader

from idpass_server.config import shown_url
from idpass_server.refusals import StoreUnavailable
from idpass_server.store import CannotOpen, StoreBroken

# What the URL does not say. A host that is gone without a word is noticed after about 15 s.
_DEFAULTS: Final = {
    "application_name": "idpass-server",
    "connect_timeout": "5",
    "keepalives_idle": "10",
    "keepalives_interval": "3",
    "keepalives_count": "2",
    "tcp_user_timeout": "15000",
}
# Plans are made once, and for large tables, whatever their size was then: a plan that reads a
# whole table would go on doing so until the table is analysed. A session that hangs in a
# transaction (its process is stopped, its host gone) does not keep its accounts locked for long.
_SESSION: Final = (
    "SET enable_seqscan = off",
    "SET enable_hashjoin = off",
    "SET enable_mergejoin = off",
    "SET plan_cache_mode = force_generic_plan",
    "SET jit = off",
    "SET lock_timeout = '10s'",
    "SET idle_in_transaction_session_timeout = '10s'",
    """SELECT set_config('synchronous_commit', 'on', false)
    WHERE current_setting('synchronous_commit') NOT IN ('on', 'remote_apply')""",
)

# SQLSTATEs, by what they mean here.
OUTCOME_UNKNOWN: Final = {"40003", "08007"}
CONFLICT: Final = {"40001", "40P01"}  # serialisation failure, deadlock: run the transaction again
_ELSEWHERE: Final = {
    "25006": "the database is read-only here",
    "57P01": "the database is shutting down",
    "57P02": "the database has crashed",
    "57P03": "the database is starting up",
}
_BUSY: Final = {
    "53100": "the database's disk is full",
    "53200": "the database is out of memory",
    "53300": "the database has too many connections",
    "55P03": "the database is busy",
    "57014": "the database is busy",
}
_DAMAGED: Final = {"XX001", "XX002", "58030"}

Connection = psycopg.Connection[Any]
T = TypeVar("T")

# Or its warnings, all of which are handled here, would be printed among the log's lines.
logging.getLogger("psycopg").addHandler(logging.NullHandler())


def unavailable(error: Exception) -> StoreUnavailable | StoreBroken | None:
    """What an error that left nothing behind means for whoever waits; None if it is a fault of
    ours. The error's own text is for the log: it may name hosts and users.
    """
    if not isinstance(error, psycopg.Error):
        return None
    state = error.sqlstate or ""
    if state in _DAMAGED:
        return StoreBroken(f"the database is damaged: {error}")
    if (reason := _ELSEWHERE.get(state) or _BUSY.get(state)) is not None:
        return StoreUnavailable(f"{reason}; nothing was changed")
    if state in CONFLICT:
        return StoreUnavailable("too much happens in the database at once; nothing was changed")
    if state.startswith("08") or (not state and isinstance(error, psycopg.OperationalError)):
        return StoreUnavailable("the database is out of reach; nothing was changed")
    return None


def cannot_connect(url: str, error: psycopg.Error) -> str:
    # A server's error has details of rows; one about connecting has only its text.
    why = " ".join((error.diag.message_primary or str(error)).split())
    return f"{shown_url(url)} cannot be used: {why}"


class Link:
    """One connection, for one thread at a time.

    Args:
        url: of the database.

    Attributes:
        warnings: what the server has warned of.
        was_lost: whether the connection had to be given up, last time that something failed.
    """

    def __init__(self, url: str) -> None:
        self._conninfo = conninfo(url)
        self._connection: Connection | None = None
        self.warnings: list[str] = []
        self.was_lost = False

    def connection(self) -> Connection:
        """The connection as it is, or a new one.

        Raises:
            psycopg.Error: there is none to be had.
            StoreUnavailable: the server does not keep what it is given.
        """
        if self._connection is None:
            self.was_lost = False
            self._connection = self._connect()
        return self._connection

    def reset(self, error: BaseException) -> None:
        """After an error: gives up a connection that is of no more use, or ends its transaction."""
        connection = self._connection
        if connection is None:
            return
        state = error.sqlstate if isinstance(error, psycopg.Error) else None
        self.was_lost = connection.closed or state in _ELSEWHERE
        if not self.was_lost and connection.info.transaction_status != TransactionStatus.IDLE:
            try:
                connection.execute("ROLLBACK")
            except psycopg.Error:
                self.was_lost = True
        if self.was_lost:
            self.close()

    def run(self, work: Callable[[Connection], T]) -> T:
        """Does something in one statement; a second time where the connection turns out lost.

        Raises:
            StoreUnavailable, StoreBroken: see there.
        """
        try:
            try:
                return work(self.connection())
            except psycopg.Error as error:
                self.reset(error)
                if not self.was_lost:
                    raise
                return work(self.connection())
        except psycopg.Error as error:
            self.reset(error)
            raise unavailable(error) or error from error

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _connect(self) -> Connection:
        connection = psycopg.connect(self._conninfo, autocommit=True, prepare_threshold=0)
        try:
            row = connection.execute("SELECT current_setting('fsync', true)").fetchone()
            if row == ("off",):
                raise StoreUnavailable(
                    "the PostgreSQL server runs with fsync = off and would lose what it has "
                    "acknowledged; turn it on"
                )
            for statement in _SESSION:
                connection.execute(statement)
            # Ids are text here, as in every record.
            connection.adapters.register_loader("uuid", TextLoader)
            connection.add_notice_handler(self._noticed)
        except BaseException:
            connection.close()
            raise
        return connection

    def _noticed(self, notice: psycopg.errors.Diagnostic) -> None:
        if notice.severity_nonlocalized == "WARNING":
            self.warnings.append(notice.message_primary or "")


def conninfo(url: str) -> str:
    """What to connect with: the URL, and defaults for what it does not say.

    Raises:
        CannotOpen: the URL is none.
    """
    try:
        given = conninfo_to_dict(url)
    except psycopg.ProgrammingError as error:
        raise CannotOpen(f"{shown_url(url)!r} is no database URL: {error}") from error
    several = "," in f"{given.get('host', '')}{given.get('hostaddr', '')}"
    primary = {"target_session_attrs": "read-write"} if several else {}
    return make_conninfo("", **(_DEFAULTS | primary | given))
