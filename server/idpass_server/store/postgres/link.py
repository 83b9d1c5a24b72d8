"""A connection to PostgreSQL that is made again when it is lost.

Nothing waits for an answer without a bound: a server may hang while its kernel keeps the
connection open.
"""

import logging
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, TypeVar

import psycopg
import structlog
from psycopg.pq import TransactionStatus
from psycopg.types.string import TextLoader

from idpass_server.store.postgres.errors import ELSEWHERE, NoAnswer, refused, said
from idpass_server.store.postgres.session import SERVING, conninfo, prepare

PATIENCE_S: Final = 10.0
"""Time that the server gets to answer, seconds; longer than its own timeouts."""

CANCEL_S: Final = 1.0
"""Time that a cancelled statement gets to end, seconds."""

T = TypeVar("T")
log = structlog.get_logger()

# Or its warnings, all of which are handled here, would be printed among the log's lines.
logging.getLogger("psycopg").addHandler(logging.NullHandler())


class Connection(psycopg.Connection[Any]):
    """A connection on which no wait is endless.

    A server that does not answer in time has its connection closed, and what was asked ends with
    NoAnswer. What it was doing there it still does: a COMMIT that waits for a standby goes on
    waiting, and is seen by nobody before it may be.

    Attributes:
        patience_s: the time that the server gets to answer.
        session: the server's number of it; each change proves that it is made there.
    """

    patience_s = PATIENCE_S
    _hurried_s: float | None = None
    session = 0

    @contextmanager
    def hurried(self, patience_s: float) -> Iterator[None]:
        """For work of which nothing is lost: it is cancelled after that many seconds."""
        self._hurried_s = patience_s
        try:
            yield
        finally:
            self._hurried_s = None

    def wait(self, gen: Any, *args: Any, **options: Any) -> Any:
        try:
            try:
                patience_s = self._hurried_s or self.patience_s
                return super().wait(_bounded(gen, patience_s), *args, **options)
            except NoAnswer:
                if self._hurried_s is None:
                    raise
                with suppress(psycopg.Error):
                    self.cancel_safe(timeout=CANCEL_S)
                return super().wait(_bounded(gen, CANCEL_S), *args, **options)
        except NoAnswer:
            self.pgconn.finish()
            raise


def _bounded(gen: Generator[Any, Any, T], patience_s: float) -> Generator[Any, Any, T]:
    """What psycopg waits with: it hears several times a second that nothing came."""
    until_s = time.monotonic() + patience_s
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted
            if not ready and time.monotonic() >= until_s:
                raise NoAnswer(f"the server has not answered for {patience_s:g} s")
            wanted = gen.send(ready)
    except StopIteration as done:
        answer: T = done.value
        return answer


class Database:
    """A database, and whether it is within reach: told in the log when that changes.

    Args:
        url: as libpq takes it.
        read_only: a server that takes no changes will do.

    Raises:
        CannotOpen: the URL is none.

    Attributes:
        conninfo: what connections are made with.
        choice: the number of that.
    """

    def __init__(self, url: str, *, read_only: bool = False) -> None:
        self.url = url
        self.conninfo = conninfo(url, read_only=read_only)
        self._lock = threading.Lock()
        self._lost = False
        self._turn = 0
        self.choice = 0

    def choose(self, conninfo: str) -> None:
        """Has every connection made anew, by another conninfo, before it is next used."""
        self.conninfo = conninfo
        self.choice += 1

    def connect(self, settings: dict[str, str], patience_s: float) -> Connection:
        """A new connection in autocommit, with all that is relied on set.

        Args:
            settings: OPERATING or SERVING, or with other values.
            patience_s: the time that the server gets to answer.

        Raises:
            psycopg.Error: no host takes connections and changes.
            StoreUnavailable: the server cannot be relied on.
        """
        connection = self._connect()
        try:
            connection.patience_s = patience_s
            connection.session = prepare(connection, self._connect, settings)
            # Ids are text here, as in every record.
            connection.adapters.register_loader("uuid", TextLoader)
        except BaseException:
            connection.close()
            raise
        return connection

    def _connect(self) -> Connection:
        return Connection.connect(self.conninfo, autocommit=True, prepare_threshold=0)

    def link(self, patience_s: float = PATIENCE_S, **settings: str) -> "Link":
        """
        Args:
            patience_s: the time that the server gets to answer.
            settings: of its sessions, instead of those of SERVING.
        """
        return Link(self, SERVING | settings, patience_s)

    def found(self, connection: Connection) -> int:
        """Returns which time it is that the database was found."""
        with self._lock:
            if self._lost:
                info = connection.info
                log.warning("database_back", host=info.host or info.hostaddr, port=info.port)
            if self._lost or not self._turn:
                self._turn += 1
            self._lost = False
            return self._turn

    def lost(self, error: BaseException, turn: int | None = None) -> None:
        """
        Args:
            turn: of the connection that is lost, if it was one: of those of one turn one tells.
        """
        with self._lock:
            if self._turn and not self._lost and turn in (None, self._turn):
                self._lost = True
                log.error("database_lost", error=str(said(error, self.url)))


class Link:
    """One connection, for one thread at a time.

    Attributes:
        url: of the database; it may hold secrets.
        warnings: what the server has warned of.
        was_lost: whether the connection had to be given up, last time that something failed.
    """

    def __init__(self, database: Database, settings: dict[str, str], patience_s: float) -> None:
        self.url = database.url
        self._database = database
        self._settings = settings
        self._patience_s = patience_s
        self._connection: Connection | None = None
        self._turn = 0
        self._choice = 0
        self.warnings: list[str] = []
        self.was_lost = False

    def connection(self) -> Connection:
        """The connection as it is, or a new one.

        Raises:
            psycopg.Error: there is none to be had.
            StoreUnavailable: the server does not keep what it is given.
        """
        if self._choice != self._database.choice:
            self.close()
        if self._connection is None:
            self.was_lost = False
            self._choice = self._database.choice
            try:
                connection = self._connection = self._database.connect(
                    self._settings, self._patience_s
                )
            except psycopg.Error as error:
                self._database.lost(error)
                raise
            connection.add_notice_handler(self._noticed)
            self._turn = self._database.found(self._connection)
        return self._connection

    def reset(self, error: BaseException) -> None:
        """After an error: gives up a connection that is of no more use, or ends its transaction."""
        connection = self._connection
        if connection is None:
            return
        state = error.sqlstate if isinstance(error, psycopg.Error) else None
        self.was_lost = connection.closed or state in ELSEWHERE
        if not self.was_lost and connection.info.transaction_status != TransactionStatus.IDLE:
            try:
                connection.execute("ROLLBACK")
            except psycopg.Error:
                self.was_lost = True
        if self.was_lost:
            self.close()
            self._database.lost(error, self._turn)

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
                if not self.was_lost or isinstance(error, NoAnswer):
                    raise
                return work(self.connection())
        except psycopg.Error as error:
            self.reset(error)
            raise refused(error, self.url) from said(error, self.url)

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _noticed(self, notice: psycopg.errors.Diagnostic) -> None:
        if notice.severity_nonlocalized == "WARNING":
            self.warnings.append(notice.message_primary or "")
