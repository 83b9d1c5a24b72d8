"""The options of `serve`: each is declared once, as a field of `Settings`.

The command line, the environment, the checks and the table in the documents come from here.
"""

import difflib
import ipaddress
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

from idpass_server.urls import POSTGRESQL, SQLITE, shown_url

MAX_PORT: Final = 65_535
_MAX_INT: Final = 2**31 - 1  # gRPC's own settings are 32-bit numbers
_WEEK_S: Final = 7 * 86_400  # in milliseconds it is still such a number
_ADDRESS: Final = re.compile(r"\[?(?P<host>[^\[\]]+)\]?:(?P<port>\d{1,5})")
DEFAULT_RATE_PER_S: Final = 500.0
"""Of each caller, where they are several: a callers file is given."""
NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
"""Of an account or a caller."""

T = TypeVar("T")


class BadSetting(ValueError):
    """A value cannot be used; the message says why and what would do."""


class Option(NamedTuple):
    """How a setting is given on the command line and in the environment.

    Args:
        flag: its name, such as --max-calls.
        value: the form of its value, or the unit of a number; empty for a switch.
        help: a sentence or two for `--help` and the documents.
        least: the smallest number allowed, or None for any.
        most: the largest number allowed, or None for any.
        choices: the only values allowed, or none for any.
    """

    flag: str
    value: str
    help: str
    least: float | None
    most: float | None
    choices: tuple[str, ...]

    @property
    def variable(self) -> str:
        """The environment variable, such as IDPASS_MAX_CALLS for --max-calls."""
        return "IDPASS_" + self.flag.removeprefix("--").replace("-", "_").upper()

    @property
    def range(self) -> str:
        """What is allowed, for people: "1 to 256", "0 or more", "debug, info", or empty."""
        if self.choices:
            return ", ".join(self.choices)
        if self.least is None:
            return ""
        return f"{self.least} or more" if self.most is None else f"{self.least} to {self.most}"

    def check(self, value: Any) -> None:
        """Raises: BadSetting: the value is out of range."""
        if value is None:
            return
        if self.choices and value not in self.choices:
            raise BadSetting(f"{self.flag} {value} is none of {self.range}")
        most = sys.float_info.max if self.most is None else self.most
        # "Not a number" and infinity are in no range.
        if self.least is not None and not self.least <= value <= most:
            raise BadSetting(f"{self.flag} {value} is out of range: {self.range} ({self.value})")


def option(
    flag: str,
    default: T,
    value: str,
    help: str,  # noqa: A002 click's word for it
    *,
    least: float | None = None,
    most: float | None = None,
    choices: tuple[str, ...] = (),
) -> T:
    """A field of `Settings` with its `Option`, whose arguments these are.

    Returns:
        what `dataclass` takes for a field; for the type checker it has the default's type.
    """
    declared = Option(flag, value, help, least, most, choices)
    made: T = field(default=default, metadata={"option": declared})
    return made


@dataclass(frozen=True)
class Settings:
    """What can be set about a server, checked.

    Each field is what its option says; None stands for an option that is not given.

    Raises:
        BadSetting: a value is out of range, or does not go with the others.
    """

    listen: str = option(
        "--listen",
        "127.0.0.1:50051",
        "HOST:PORT",
        "Address to serve; port 0 takes a free one. Loopback only, unless TLS and --callers are "
        "given.",
    )
    tls_cert: str | None = option(
        "--tls-cert", None, "FILE", "PEM file of the server's certificate chain; turns TLS on."
    )
    tls_key: str | None = option("--tls-key", None, "FILE", "PEM file of the server's private key.")
    tls_client_ca: str | None = option(
        "--tls-client-ca",
        None,
        "FILE",
        "PEM file of the authorities that issue client certificates; turns mutual TLS on.",
    )
    max_connection_age_s: float = option(
        "--max-connection-age",
        3_600.0,
        "SECONDS",
        "Age at which a connection is closed gracefully, so that the client connects anew.",
        least=0.1,
        most=_WEEK_S,
    )
    db: str = option(
        "--db",
        "sqlite:///idpass.db",
        "URL",
        "Database: sqlite:///FILE (relative), sqlite:////FILE (absolute) or postgresql://...",
    )
    create: bool = option(
        "--create",
        False,
        "",
        "Make the SQLite database where there is none; without a callers file that is always done.",
    )
    accept_clock: bool = option(
        "--accept-clock",
        False,
        "",
        "Start although the clock does not fit the stored events: somebody has checked it.",
    )
    metrics: str | None = option(
        "--metrics", None, "HOST:PORT", "Address for Prometheus; without it there are no metrics."
    )
    metrics_remote: bool = option(
        "--metrics-remote",
        False,
        "",
        "Allow --metrics on an address that other machines can reach, unencrypted and for whoever "
        "asks.",
    )
    probe: str | None = option(
        "--probe",
        None,
        "HOST:PORT",
        "Address that answers /livez, /readyz and /readyz?verbose over plain HTTP, and nothing "
        "else.",
    )
    max_calls: int = option(
        "--max-calls",
        1_000,
        "CALLS",
        "Unary calls in flight; further ones are answered OVERLOADED.",
        least=1,
    )
    max_pending: int = option(
        "--max-pending",
        20_000,
        "CHANGES",
        "Changes waiting for the disk; further ones are answered OVERLOADED.",
        least=1_000,
    )
    max_watchers: int = option(
        "--max-watchers",
        1_000,
        "STREAMS",
        "Open WatchIdPasses streams; further ones are answered OVERLOADED.",
        least=0,
    )
    max_watchers_per_account: int = option(
        "--max-watchers-per-account",
        100,
        "STREAMS",
        "Open WatchIdPasses streams of one account; further ones are answered OVERLOADED.",
        least=0,
    )
    rate_per_s: float | None = option(
        "--rate",
        None,
        "CALLS/SECOND",
        "Rate of each caller that has none of its own in the callers file; each cancellation in a "
        "batch counts. Calls above it are answered OVERLOADED. 0 means no limit. By default 500, "
        "and no limit where there is no callers file.",
        least=0,
    )
    burst: int = option(
        "--burst", 1_000, "CALLS", "Calls that a caller may make at once after a pause.", least=1
    )
    # A batch of 1,000 cancellations with the longest notes and ids fits.
    max_message_bytes: int = option(
        "--max-message-bytes", 2_500_000, "BYTES", "Size of a request.", least=1_024, most=_MAX_INT
    )
    max_metadata_bytes: int = option(
        "--max-metadata-bytes",
        8 * 1024,
        "BYTES",
        "Size of a request's metadata, counting 32 bytes for each entry as HTTP/2 does.",
        least=1_024,
        most=_MAX_INT,
    )
    max_connections: int = option(
        "--max-connections",
        500,
        "CONNECTIONS",
        "Open gRPC connections; further ones are closed at once. HTTP has half as many besides.",
        least=1,
        most=_MAX_INT,
    )
    max_streams: int = option(
        "--max-streams",
        1_000,
        "STREAMS",
        "Calls and streams open on one connection; further ones wait in the client, or are "
        "refused.",
        least=1,
        most=_MAX_INT,
    )
    handshake_timeout_s: float = option(
        "--handshake-timeout",
        10.0,
        "SECONDS",
        "Time for a new connection to agree on TLS and HTTP/2.",
        least=0.1,
        most=_WEEK_S,
    )
    max_idle_s: float = option(
        "--max-idle",
        300.0,
        "SECONDS",
        "Time that a connection may stay open without a call.",
        least=1,
        most=_WEEK_S,
    )
    min_ping_interval_s: float = option(
        "--min-ping-interval",
        10.0,
        "SECONDS",
        "Shortest interval between a client's pings; one that pings more often is disconnected.",
        least=0.1,
        most=_WEEK_S,
    )
    drain_s: float = option(
        "--drain",
        10.0,
        "SECONDS",
        "Time for calls in flight to finish on SIGTERM or Ctrl-C.",
        least=0,
        most=_WEEK_S,
    )
    http: str | None = option(
        "--http",
        None,
        "HOST:PORT",
        "Address for HTTP/JSON, loopback only; without it there is no HTTP.",
    )
    workers: int = option(
        "--workers",
        1,
        "PROCESSES",
        "Processes that serve together, each with the limits above; PostgreSQL only.",
        least=1,
        most=256,
    )
    readers: int = option(
        "--readers",
        2,
        "THREADS",
        "Threads that read from the database, each on a connection of its own.",
        least=1,
        most=64,
    )
    sandbox: bool = option(
        "--sandbox",
        False,
        "",
        "Serve mock data from a throw-away database instead of --db, and a page to try it on.",
    )
    callers: str | None = option(
        "--callers",
        None,
        "FILE",
        "File that lists the callers; without it everyone acts for the account `demo`.",
    )
    reflection: bool | None = option(
        "--reflection",
        None,
        "",
        "Enable gRPC server reflection, or disable it with --no-reflection. By default it is "
        "enabled where there is no callers file.",
    )
    log_level: str = option(
        "--log-level",
        "info",
        "LEVEL",
        "Least severe level to log, on standard error.",
        choices=("debug", "info", "warning", "error"),
    )

    def __post_init__(self) -> None:
        for name, declared in OPTIONS.items():
            declared.check(getattr(self, name))
        self._check_tls()
        if self.http is not None:
            loopback("--http", self.http)
        elif self.sandbox:
            raise BadSetting("--sandbox is a page: say where with --http, such as 127.0.0.1:8080")
        if self.metrics is not None:
            self._check_metrics(self.metrics)
        if self.probe is not None:
            address(self.probe)
        if self.callers is not None and self.sandbox:
            raise BadSetting("--callers is not for a --sandbox: its mock data are for everyone")
        if self.workers > 1:
            self._check_workers()
        sqlite_path(self.db)

    def _check_metrics(self, metrics: str) -> None:
        host, _ = address(metrics)
        if self.sandbox:
            raise BadSetting("--metrics is not for a --sandbox: its figures would be of no use")
        if not is_loopback(host) and not self.metrics_remote:
            raise BadSetting(
                f"--metrics {metrics} is refused: other machines can reach it, and whoever asks is "
                "answered, unencrypted. Give --metrics-remote if that is meant, or use 127.0.0.1"
            )

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
        elif self.tls_client_ca is not None and self.http is not None and self.callers is None:
            raise BadSetting(
                "--tls-client-ca with --http and without --callers is refused: HTTP asks for no "
                "certificate, so whoever reaches it could do what callers need one for. Give "
                "--callers, or leave --http out"
            )
        elif self.sandbox:
            raise BadSetting("--tls-cert is not for a --sandbox, which is for this machine only")
        elif self.callers is None and not is_loopback(host):
            raise BadSetting(
                f"--listen {self.listen} is refused: it can be reached from other machines, and "
                "without a callers file everyone may cancel passes. Give --callers"
            )

    @property
    def creates(self) -> bool:
        """Whether a missing SQLite database is made: for a trial, or because it was said."""
        return self.create or self.callers is None

    @property
    def max_http_connections(self) -> int:
        """HTTP connections that may be open beside those of gRPC."""
        return max(1, self.max_connections // 2)

    @property
    def default_rate_per_s(self) -> float:
        """The rate of a caller that has none of its own; 0 means no limit."""
        if self.rate_per_s is not None:
            return self.rate_per_s
        return 0.0 if self.callers is None else DEFAULT_RATE_PER_S

    @property
    def reflects(self) -> bool:
        """Whether gRPC server reflection is enabled."""
        return self.callers is None if self.reflection is None else self.reflection


OPTIONS: Final[dict[str, Option]] = {
    each.name: each.metadata["option"] for each in fields(Settings)
}
"""By the name of their field, in the order in which they are shown."""


_VARIABLE_OF_A_CLIENT: Final = {
    f"IDPASS_{word}" for word in ("ADDRESS", "TLS", "CA", "CERT", "KEY", "TOKEN")
}
# Of a Service called idpass, or idpass-anything, into each pod of its namespace.
_VARIABLE_OF_KUBERNETES: Final = re.compile(
    r"IDPASS_(.*_)?(SERVICE_HOST|SERVICE_PORT(_.+)?|PORT(_\d+_[A-Z]+(_PROTO|_PORT|_ADDR)?)?)"
)


def unknown_variables(environment: Iterable[str]) -> dict[str, str | None]:
    """The names that look like an option's and are none, each with the nearest that is one.

    Args:
        environment: names of environment variables.
    """
    known = [each.variable for each in OPTIONS.values()]
    return {
        name: next(iter(difflib.get_close_matches(name, known, n=1, cutoff=0.7)), None)
        for name in sorted(environment)
        if name.startswith("IDPASS_")
        and name not in {*known, *_VARIABLE_OF_A_CLIENT}
        and not _VARIABLE_OF_KUBERNETES.fullmatch(name)
    }


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
    if url.startswith(POSTGRESQL):
        return None
    if not url.startswith(SQLITE) or url == SQLITE:
        raise BadSetting(
            f"{shown_url(url)!r} is not a database URL such as sqlite:///idpass.db (relative), "
            "sqlite:////var/lib/idpass.db (absolute) or postgresql://host/database"
        )
    return Path(url.removeprefix(SQLITE))
