"""What can be set about a server, checked; the command line fills it in."""

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from idpass_server.records import Money

MICROS: Final = 1_000_000
_MONEY: Final = re.compile(r"([A-Z]{3}) (\d{1,9})(?:\.(\d{1,6}))?")
MAX_PORT: Final = 65_535
_ADDRESS: Final = re.compile(r"\[?(?P<host>[^\[\]]+)\]?:(?P<port>\d{1,5})")
_SQLITE: Final = "sqlite:///"
_POSTGRESQL: Final = ("postgresql://", "postgres://")
_PASSWORD: Final = re.compile(r"(?<=:)[^:/@]*(?=@)|(?<=[?&]password=)[^&]*")
NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
"""Of an account or a caller."""


class BadSetting(ValueError):
    """A value cannot be used; the message says why and what would do."""


@dataclass(frozen=True)
class Settings:
    """
    Args:
        listen: HOST:PORT to serve; port 0 takes a free one.
        tls_cert: PEM file of the server's certificate chain, or None for plain text.
        tls_key: PEM file of its private key.
        tls_client_ca: PEM file of the authorities of callers' certificates; None asks for none.
        max_connection_age_s: after so long a connection is to be made anew.
        db: URL of the database: sqlite:///FILE, or postgresql://… as libpq takes it.
        accept_clock: whether to serve by a clock that does not fit to what is stored.
        metrics: HOST:PORT for Prometheus, or None for none.
        max_calls: how many unary calls may be in flight.
        max_pending: how many changes may wait for the store.
        max_watchers: how many streams may be open.
        max_watchers_per_account: how many of them on one account.
        rate_per_s: how many calls each caller may make; 0 means that there is no limit.
        burst: how many calls a caller may make at once after a rest.
        max_message_bytes: how large a request may be.
        max_metadata_bytes: how large a request's metadata may be, as HTTP/2 counts it.
        max_connections: how many may be open.
        max_streams: how many calls and streams may be open on one connection.
        handshake_timeout_s: how long a new connection may take to become one.
        max_idle_s: how long a connection may be open without a call or stream on it.
        min_ping_interval_s: pings that come sooner after one another cost a client its connection.
        drain_s: how long calls in flight may take to finish when the server stops.
        http: HOST:PORT for HTTP/JSON, or None for none.
        workers: how many processes serve.
        sandbox: whether to serve mock data, in a database of their own, with a page to try it on.
        callers: file of those who may call, or None where everyone acts for the account `demo`.
        reflection: whether to tell everyone the API; None means where there is no callers file.

    Raises:
        BadSetting: a value cannot be used.
    """

    listen: str = "127.0.0.1:50051"
    tls_cert: str | None = None
    tls_key: str | None = None
    tls_client_ca: str | None = None
    max_connection_age_s: float = 3_600.0
    db: str = "sqlite:///idpass.db"
    accept_clock: bool = False
    metrics: str | None = None
    max_calls: int = 1_000
    max_pending: int = 20_000
    max_watchers: int = 1_000
    max_watchers_per_account: int = 100
    rate_per_s: float = 500.0
    burst: int = 1_000
    # A batch of 1,000 cancellations with the longest notes and ids fits.
    max_message_bytes: int = 2_500_000
    max_metadata_bytes: int = 8 * 1024
    max_connections: int = 500
    max_streams: int = 1_000
    handshake_timeout_s: float = 10.0
    max_idle_s: float = 300.0
    min_ping_interval_s: float = 10.0
    drain_s: float = 10.0
    http: str | None = None
    workers: int = 1
    sandbox: bool = False
    callers: str | None = None
    reflection: bool | None = None

    def __post_init__(self) -> None:
        self._check_tls()
        if self.http is not None:
            loopback("--http", self.http)
        elif self.sandbox:
            raise BadSetting("--sandbox is a page: say where with --http, such as 127.0.0.1:8080")
        if self.metrics is not None:
            address(self.metrics)
            if self.sandbox:
                raise BadSetting("--metrics is not for a --sandbox: its figures would be of no use")
        if self.callers is not None and self.sandbox:
            raise BadSetting("--callers is not for a --sandbox: its mock data are for everyone")
        if self.workers > 1:
            self._check_workers()
        sqlite_path(self.db)

    def _check_workers(self) -> None:
        if self.sandbox:
            raise BadSetting("--workers is not for a --sandbox: one process serves it")
        if sqlite_path(self.db) is not None:
            raise BadSetting(
                f"--workers {self.workers} needs PostgreSQL: one process serves a SQLite file, "
                "and two were no faster. Leave --workers out, or give --db postgresql://..."
            )
        if self.metrics is not None and address(self.metrics)[1] + self.workers - 1 > MAX_PORT:
            raise BadSetting(
                f"--metrics {self.metrics} leaves no ports for {self.workers} workers: each has "
                "the next one"
            )

    def _check_tls(self) -> None:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise BadSetting("--tls-cert and --tls-key belong together: give both")
        host, _ = address(self.listen)
        if self.tls_cert is None:
            if self.tls_client_ca is not None:
                raise BadSetting("--tls-client-ca needs --tls-cert and --tls-key")
            loopback("--listen", self.listen, "Give --tls-cert, --tls-key and --callers")
        elif self.sandbox:
            raise BadSetting("--tls-cert is not for a --sandbox, which is for this machine only")
        elif self.callers is None and not is_loopback(host):
            raise BadSetting(
                f"--listen {self.listen} is refused: it can be reached from other machines, and "
                "without a callers file everyone may cancel passes. Give --callers"
            )

    @property
    def reflects(self) -> bool:
        """Whether everyone is told the API."""
        return self.callers is None if self.reflection is None else self.reflection


def address(text: str) -> tuple[str, int]:
    """HOST:PORT as a pair; an IPv6 host stands in brackets. Raises: BadSetting."""
    match = _ADDRESS.fullmatch(text)
    if not match or int(match["port"]) > MAX_PORT:
        raise BadSetting(f"{text!r} is not HOST:PORT, such as 127.0.0.1:50051")
    return match["host"], int(match["port"])


def loopback(
    option: str, text: str, instead: str = "Put a proxy with TLS that knows its callers in front"
) -> tuple[str, int]:
    """As `address`, for one that only this machine can reach, since plain text is spoken there.

    Args:
        instead: what else to do so that others can get there.

    Raises:
        BadSetting: it is another.
    """
    host, port = address(text)
    if not is_loopback(host):
        raise BadSetting(
            f"{option} {text} is refused: it can be reached from other machines, and plain text "
            f"could be read and changed on the way. {instead}, or use 127.0.0.1"
        )
    return host, port


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def sqlite_path(url: str) -> Path | None:
    """The file of a sqlite:///FILE (relative) or sqlite:////FILE (absolute) URL; None where the
    URL is PostgreSQL's.

    Raises:
        BadSetting: the URL is of another form.
    """
    if url.startswith(_POSTGRESQL):
        return None
    if not url.startswith(_SQLITE) or url == _SQLITE:
        raise BadSetting(
            f"{shown_url(url)!r} is not a database URL such as sqlite:///idpass.db (relative), "
            "sqlite:////var/lib/idpass.db (absolute) or postgresql://host/database"
        )
    return Path(url.removeprefix(_SQLITE))


def shown_url(url: str) -> str:
    """A database URL without its password."""
    return _PASSWORD.sub("***", url)


def parse_money(text: str) -> Money:
    """ "AUD 4.50" as money. Raises: BadSetting."""
    match = _MONEY.fullmatch(text)
    if not match:
        raise BadSetting(f"{text!r} is no amount of money such as 'AUD 4.50'")
    currency, units, fraction = match.groups()
    return Money(currency, int(units) * MICROS + int((fraction or "").ljust(6, "0")))


def show_money(money: Money) -> str:
    """Money as "AUD 4.50": two decimals, more where they are needed."""
    units, micros = divmod(money.micros, MICROS)
    fraction = f"{micros:06}".rstrip("0").ljust(2, "0")
    return f"{money.currency} {units}.{fraction}"
