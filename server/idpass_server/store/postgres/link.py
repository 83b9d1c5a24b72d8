"""Connections to PostgreSQL that are replaced when they are lost.

Every wait for an answer is bounded: a server may hang while its kernel keeps the connection open.
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

from idpass_server.store.observing import NOBODY, StoreObserver
from idpass_server.store.postgres.errors import ELSEWHERE, NoAnswer, refused, said
from idpass_server.store.postgres.session import SERVING, conninfo, prepare

PATIENCE_S: Final = 10.0
"""Timeout for an answer, seconds; longer than the server's own timeouts."""

CANCEL_S: Final = 1.0
"""Timeout for a cancelled statement to end, seconds."""

T = TypeVar("T")
log = structlog.get_logger()

# Its warnings are all handled here; without a handler they would be printed into the log.
logging.getLogger("psycopg").addHandler(logging.NullHandler())


class Connection(psycopg.Connection[Any]):
    """A connection on which every wait is bounded.

    If the server does not answer in time, the connection is closed and the statement raises
    NoAnswer. The server carries on with the statement: a COMMIT that waits for a standby still
    waits, and stays invisible until the standby has it.

    Attributes:
        patience_s: timeout for an answer, seconds.
        session: process id of the server's session; each change proves that it runs there.
    """

    patience_s = PATIENCE_S
    _hurried_s: float | None = None
    session = 0

    @contextmanager
    def hurried(self, patience_s: float) -> Iterator[None]:
        """Within it, statements are cancelled after `patience_s` seconds; for those that may be."""
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
    """Bounds a psycopg wait, whose generator runs several times a second while nothing comes."""
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
    """A database, and whether it can be reached; logs when that changes.

    Args:
        url: as libpq takes it.
        read_only: accept a server that does not accept changes.
        observer: is told of connections that were replaced.

    Attributes:
        conninfo: what connections are made with.
        choice: version of `conninfo`.

    Raises:
        CannotOpen: the URL cannot be used.
    """

    def __init__(
        self, url: str, *, read_only: bool = False, observer: StoreObserver = NOBODY
    ) -> None:
        self.url = url
        self.observer = observer
        self.conninfo = conninfo(url, read_only=read_only)
        self._lock = threading.Lock()
        self._lost = False
        self._turn = 0
        self.choice = 0

    def choose(self, conninfo: str) -> None:
        """Makes every connection reconnect with another conninfo before its next use."""
        self.conninfo = conninfo
        self.choice += 1

    def connect(self, settings: dict[str, str], patience_s: float) -> Connection:
        """Opens a connection in autocommit mode, with every setting that the code relies on.

        Args:
            settings: OPERATING or SERVING, perhaps with other values.
            patience_s: timeout for an answer, seconds.

        Raises:
            psycopg.Error: no host accepts connections and changes.
            StoreUnavailable: the server's commits cannot be relied on.
        """
        connection = self._connect()
        try:
            connection.patience_s = patience_s
            connection.session = prepare(connection, self._connect, settings)
            # Ids are text, as in every record.
            connection.adapters.register_loader("uuid", TextLoader)
        except BaseException:
            connection.close()
            raise
        return connection

    def _connect(self) -> Connection:
        return Connection.connect(self.conninfo, autocommit=True, prepare_threshold=0)

    def link(self, patience_s: float = PATIENCE_S, **settings: str) -> "Link":
        """Makes a link, which connects when it is first used.

        Args:
            patience_s: timeout for an answer, seconds.
            settings: of its sessions, on top of SERVING.
        """
        return Link(self, SERVING | settings, patience_s)

    def found(self, connection: Connection) -> int:
        """Notes a new connection. Returns the number of times that the database came in reach."""
        with self._lock:
            if self._lost:
                info = connection.info
                log.warning("database_back", host=info.host or info.hostaddr, port=info.port)
            if self._lost or not self._turn:
                self._turn += 1
            self._lost = False
            return self._turn

    def lost(self, error: BaseException, turn: int | None = None) -> None:
        """Notes a lost connection or failed attempt, and logs the first one.

        Args:
            error: why.
            turn: what `found` returned for the lost connection; None for a failed attempt.
        """
        with self._lock:
            if self._turn and not self._lost and turn in (None, self._turn):
                self._lost = True
                log.error("database_lost", error=str(said(error, self.url)))


class Link:
    """One connection, for one thread at a time.

    Attributes:
        url: of the database; may hold secrets.
        warnings: the server's warnings since the list was last cleared.
        was_lost: whether the latest failure ended the connection.
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
        """Returns the connection, or a new one if there is none.

        Raises:
            psycopg.Error: no host accepts connections and changes.
            StoreUnavailable: the server's commits cannot be relied on.
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
            if self._turn:
                self._database.observer.reconnected()
            self._turn = self._database.found(self._connection)
        return self._connection

    def reset(self, error: BaseException) -> None:
        """Cleans up after an error: ends the transaction, or the connection if it is lost."""
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
        """Runs one statement, and repeats it if the connection turns out to be lost.

        Args:
            work: runs it on the connection.

        Raises:
            StoreUnavailable: nothing was changed.
            StoreBroken: the database is damaged.
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
        """Closes the connection; the next use opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _noticed(self, notice: psycopg.errors.Diagnostic) -> None:
        if notice.severity_nonlocalized == "WARNING":
            self.warnings.append(notice.message_primary or "")
