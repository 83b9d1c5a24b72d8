"""The options of `serve`: each is declared once, as a field of `Settings`.

The command line, the environment, the checks and the table in the documents come from here. It is
one long list on purpose: what an option is stands in `options`, and only what one option means for
another is checked here.
"""

import re
from dataclasses import dataclass, fields
from typing import Final

from idpass_server import addresses
from idpass_server.addresses import is_loopback
from idpass_server.failures import BadSetting
from idpass_server.options import Option, option, parse_duration
from idpass_server.urls import sqlite_path

_MAX_INT: Final = 2**31 - 1
"""Largest value of a setting of gRPC's own, which are 32-bit numbers."""
_WEEK_S: Final = 7 * 86_400
"""Longest time that can be set, seconds; gRPC takes it in milliseconds, as a 32-bit number."""
DEFAULT_RATE_PER_S: Final = 500.0
"""Rate of a caller where there is a callers file and nothing else is said, calls a second."""
NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
"""Pattern of the name of an account or a caller."""


@dataclass(frozen=True)
class Settings:
    """The settings of a server, checked when they are made.

    Each field is documented by its option; None stands for an option that is not given.

    Raises:
        BadSetting: a value is out of range, or cannot be combined with the others.
    """

    listen: str = option(
        "--listen",
        "127.0.0.1:50051",
        "HOST:PORT",
        "Address to serve; port 0 takes a free one. Loopback only, unless TLS and --callers are "
        "set. unix:PATH is a Unix socket that only this user can connect to.",
    )
    tls_cert: str | None = option(
        "--tls-cert", None, "FILE", "PEM file of the server's certificate chain; enables TLS."
    )
    tls_key: str | None = option("--tls-key", None, "FILE", "PEM file of the server's private key.")
    tls_client_ca: str | None = option(
        "--tls-client-ca",
        None,
        "FILE",
        "PEM file of the authorities that issue client certificates; enables mutual TLS.",
    )
    max_connection_age_s: float = option(
        "--max-connection-age",
        3_600.0,
        "SECONDS",
        "Age at which a connection is closed gracefully (GOAWAY), so that clients reconnect.",
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
        "Create the SQLite database if it is missing; without a callers file this is the default.",
    )
    accept_clock: bool = option(
        "--accept-clock",
        False,
        "",
        "Start although the clock does not fit the stored events; check it first.",
    )
    metrics: str | None = option(
        "--metrics",
        None,
        "HOST:PORT",
        "Address for Prometheus to scrape; without it there are no metrics.",
    )
    metrics_remote: bool = option(
        "--metrics-remote",
        False,
        "",
        "Allow --metrics on an address that other machines can reach, unencrypted and without "
        "authentication.",
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
        "Changes waiting to be stored; further ones are answered OVERLOADED.",
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
        "Rate limit of each caller that has none in the callers file; each cancellation in a batch "
        "counts. Calls above it are answered OVERLOADED. 0 means no limit. Defaults to 500 with a "
        "callers file, and to no limit without one.",
        least=0,
    )
    burst: int = option(
        "--burst",
        1_000,
        "CALLS",
        "Burst: calls that a caller may make at once after a pause.",
        least=1,
    )
    # Fits a batch of 1,000 cancellations with the longest notes and ids.
    max_message_bytes: int = option(
        "--max-message-bytes", 2_500_000, "BYTES", "Largest request.", least=1_024, most=_MAX_INT
    )
    max_metadata_bytes: int = option(
        "--max-metadata-bytes",
        8 * 1024,
        "BYTES",
        "Largest metadata of a request, with 32 bytes of overhead for each entry, as in HTTP/2.",
        least=1_024,
        most=_MAX_INT,
    )
    max_connections: int = option(
        "--max-connections",
        500,
        "CONNECTIONS",
        "Open gRPC connections; further ones are closed at once. HTTP may have half as many more.",
        least=1,
        most=_MAX_INT,
    )
    max_streams: int = option(
        "--max-streams",
        1_000,
        "STREAMS",
        "Open calls and streams on one connection; further ones wait in the client, or are "
        "refused.",
        least=1,
        most=_MAX_INT,
    )
    handshake_timeout_s: float = option(
        "--handshake-timeout",
        10.0,
        "SECONDS",
        "Deadline for a new connection to complete the TLS and HTTP/2 handshakes.",
        least=0.1,
        most=_WEEK_S,
    )
    max_idle_s: float = option(
        "--max-idle",
        300.0,
        "SECONDS",
        "Time after which a connection without calls is closed.",
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
        "Drain time: how long calls in flight may take to finish on SIGTERM or Ctrl-C.",
        least=0,
        most=_WEEK_S,
    )
    http: str | None = option(
        "--http",
        None,
        "HOST:PORT",
        "Address for HTTP/JSON, loopback only; without it HTTP is off.",
    )
    workers: int = option(
        "--workers",
        1,
        "PROCESSES",
        "Worker processes that share the addresses, each with the limits above; PostgreSQL only.",
        least=1,
        most=256,
    )
    readers: int = option(
        "--readers",
        2,
        "THREADS",
        "Threads that read from the database, each with its own connection.",
        least=1,
        most=64,
    )
    sandbox: bool = option(
        "--sandbox",
        False,
        "",
        "Serve mock data from a throw-away database instead of --db, with a page to try it on.",
    )
    callers: str | None = option(
        "--callers",
        None,
        "FILE",
        "File that lists the callers; without it everyone acts for the account `demo`.",
    )
    webhook_key: str | None = option(
        "--webhook-key",
        None,
        "FILE",
        "File with the key that the secrets of webhooks are derived from, made by "
        "`idpass-server webhook-key`; enables webhooks. The same for every process.",
    )
    webhook_allow: str | None = option(
        "--webhook-allow",
        None,
        "NETWORKS",
        "Networks that webhooks may reach although they are not public, also over plain HTTP, such "
        "as 10.1.0.0/16,fd00::/8.",
    )
    reflection: bool | None = option(
        "--reflection",
        None,
        "",
        "Enable gRPC server reflection, or disable it with --no-reflection. Enabled by default "
        "without a callers file.",
    )
    erase_after: str | None = option(
        "--erase-after",
        None,
        "AGE",
        "Erase applicant references and notes of passes that ended longer ago, such as 400d or "
        "36h, a few a second. Without it only `idpass-server erase` does.",
    )
    log_level: str = option(
        "--log-level",
        "info",
        "LEVEL",
        "Least severe level to log, on standard error.",
        choices=("debug", "info", "warning", "error"),
    )
    log_calls: str = option(
        "--log-calls",
        "all",
        "WHICH",
        "Calls that have a line in the log; `sampled` means those that failed, and 1 in 100 of the "
        "others, or those whose trace is sampled.",
        choices=("all", "failed", "sampled"),
    )

    def __post_init__(self) -> None:
        for name, declared in OPTIONS.items():
            declared.check(getattr(self, name))
        self._check_tls()
        if self.http is not None:
            addresses.split_loopback("--http", self.http)
        elif self.sandbox:
            raise BadSetting(
                "--sandbox serves a page: give its address with --http, such as 127.0.0.1:8080"
            )
        if self.metrics is not None:
            self._check_metrics(self.metrics)
        if self.probe is not None:
            addresses.split(self.probe)
        if self.callers is not None and self.sandbox:
            raise BadSetting(
                "--callers cannot be used with --sandbox, whose mock data are for everyone"
            )
        if self.workers > 1:
            self._check_workers()
        if self.erase_after is not None:
            self._check_erase_after(self.erase_after)
        self._check_webhooks()
        sqlite_path(self.db)

    def _check_webhooks(self) -> None:
        if self.webhook_allow is None:
            return
        addresses.networks("--webhook-allow", self.webhook_allow)
        if self.webhook_key is None:
            raise BadSetting(
                "--webhook-allow needs --webhook-key: without it there are no webhooks"
            )

    def _check_erase_after(self, age: str) -> None:
        if self.sandbox:
            raise BadSetting("--erase-after cannot be used with --sandbox: its data are mock")
        try:
            parse_duration(age)
        except ValueError as error:
            raise BadSetting(f"--erase-after {error}") from error

    def _check_metrics(self, metrics: str) -> None:
        host, _ = addresses.split(metrics)
        if self.sandbox:
            raise BadSetting(
                "--metrics cannot be used with --sandbox: its figures would be of no use"
            )
        if not is_loopback(host) and not self.metrics_remote:
            raise BadSetting(
                f"--metrics {metrics} is refused: other machines can reach it, unencrypted and "
                "without authentication. Give --metrics-remote if that is meant, or use 127.0.0.1"
            )

    def _check_workers(self) -> None:
        if self.sandbox:
            raise BadSetting("--workers cannot be used with --sandbox, which one process serves")
        if addresses.unix_path(self.listen) is not None:
            raise BadSetting(
                f"--workers {self.workers} cannot share the Unix socket of --listen {self.listen}: "
                "the kernel spreads connections over processes for ports only. Give --listen "
                "HOST:PORT"
            )
        if sqlite_path(self.db) is not None:
            raise BadSetting(
                f"--workers {self.workers} needs PostgreSQL: one process serves a SQLite file, "
                "and two were no faster. Leave --workers out, or give --db postgresql://..."
            )

    def _check_tls(self) -> None:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise BadSetting("--tls-cert and --tls-key belong together: give both")
        local = addresses.unix_path(self.listen) is not None
        local = local or is_loopback(addresses.split(self.listen)[0])
        if self.tls_cert is None:
            if self.tls_client_ca is not None:
                raise BadSetting("--tls-client-ca needs --tls-cert and --tls-key")
            if not local:
                addresses.split_loopback(
                    "--listen", self.listen, "Give --tls-cert, --tls-key and --callers"
                )
        elif self.tls_client_ca is not None and self.http is not None and self.callers is None:
            raise BadSetting(
                "--tls-client-ca with --http and without --callers is refused: HTTP asks for no "
                "certificate, so anyone who reaches it could do what gRPC callers need one for. "
                "Give --callers, or leave out --http"
            )
        elif self.sandbox:
            raise BadSetting(
                "--tls-cert cannot be used with --sandbox, which is for this machine only"
            )
        elif self.callers is None and not local:
            raise BadSetting(
                f"--listen {self.listen} is refused: other machines can reach it, and without a "
                "callers file anyone may cancel passes. Give --callers"
            )

    @property
    def creates(self) -> bool:
        """Whether a missing SQLite database is created: for a trial, or on request."""
        return self.create or self.callers is None

    @property
    def erase_after_s(self) -> int | None:
        """Age at which a pass that has ended is erased, seconds; None for never."""
        return None if self.erase_after is None else parse_duration(self.erase_after)

    @property
    def max_http_connections(self) -> int:
        """Limit of open HTTP connections, in addition to those of gRPC."""
        return max(1, self.max_connections // 2)

    @property
    def default_rate_per_s(self) -> float:
        """Rate limit of a caller that has none of its own, calls a second; 0 means no limit."""
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
"""Each option by the name of its field, in the order of `--help` and the documents."""
