"""Database URLs: which file one names, and what of one may be shown.

Shown are who connects, where to, and to which database. Everything else may hold a secret:
passwords stand before the host, among the parameters, and in keyword strings, and one that is not
percent-encoded reaches into what looks like a host, a port or a database. So a URL is taken apart,
and only parts that look like what they should be are shown; of a URL with any other part, nothing.
"""

import re
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, unquote

from idpass_server.failures import BadSetting

POSTGRESQL: Final = ("postgresql://", "postgres://")
SQLITE: Final = "sqlite:///"
HIDDEN: Final = "***"

_SAFE: Final = re.compile(r"[\w.+-]*")
_HOST: Final = re.compile(r"[\w.-]*|/[\w./-]*|\[[0-9A-Fa-f:.%]+\]|[0-9A-Fa-f:.]+")
_PORT: Final = re.compile(r"\d{0,5}")


def sqlite_path(url: str) -> Path | None:
    """The file of a database URL: sqlite:///FILE (relative) or sqlite:////FILE (absolute).

    Returns:
        the path as given; None for a URL of PostgreSQL.

    Raises:
        BadSetting: the URL has another form.
    """
    if url.startswith(POSTGRESQL):
        return None
    if not url.startswith(SQLITE) or url == SQLITE:
        raise BadSetting(
            f"{shown_url(url)!r} is not a database URL such as sqlite:///idpass.db (relative), "
            "sqlite:////var/lib/idpass.db (absolute) or postgresql://host/database"
        )
    return Path(url.removeprefix(SQLITE))


def shown_url(url: str) -> str:
    """A database URL without secrets, fit for a log or a terminal.

    Args:
        url: what was given, whether it is a URL or not.

    Returns:
        of a PostgreSQL URL the user, hosts, ports and database; of a SQLite URL all of it; of
        anything else at most the scheme.
    """
    if url.startswith(SQLITE):
        return url
    scheme = next((prefix for prefix in POSTGRESQL if url.startswith(prefix)), None)
    if scheme is None:
        word = re.match(r"[A-Za-z][A-Za-z0-9+]*(?=:)", url)
        return f"{word[0]}:{HIDDEN}" if word else HIDDEN
    return scheme + (_parts(url.removeprefix(scheme)) or HIDDEN)


def is_ambiguous(url: str) -> bool:
    """Whether some part of a PostgreSQL URL is not what its place says.

    Most often that is a password with an `@` or `/` that is not percent-encoded.
    """
    return shown_url(url).endswith(f"://{HIDDEN}")


def _parts(text: str) -> str | None:
    """The parts that may be shown; None where one of them is not what it should be."""
    # As libpq: the first @ ends the credentials, if no / comes before it.
    credentials = re.match(r"[^@/]*@", text)
    user = credentials[0][:-1].partition(":")[0] if credentials else ""
    rest = text[credentials.end() :] if credentials else text
    place, _, query = rest.partition("?")
    authority, _, database = place.partition("/")
    hosts, ports = _authority(authority)
    given = dict(parse_qsl(query, keep_blank_values=True))
    user = given.get("user", unquote(user))
    database = given.get("dbname", unquote(database))
    hosts = _listed(given, "host", _listed(given, "hostaddr", hosts))
    ports = _listed(given, "port", ports)
    if not (_SAFE.fullmatch(user.replace("@", "")) and _SAFE.fullmatch(database)):
        return None
    if not (all(map(_HOST.fullmatch, hosts)) and all(map(_PORT.fullmatch, ports))):
        return None
    if len(ports) == 1:
        ports *= len(hosts)
    ports += [""] * (len(hosts) - len(ports))
    where = ",".join(
        f"{host}:{port}" if port else host for host, port in zip(hosts, ports, strict=False)
    )
    return f"{user}@{where}/{database}" if user else f"{where}/{database}"


def _authority(text: str) -> tuple[list[str], list[str]]:
    hosts, ports = [], []
    for each in text.split(","):
        match = re.fullmatch(r"(\[[^\]]*\]|[^:]*)(?::(.*))?", each, re.DOTALL)
        host, port = match.groups() if match else (each, None)
        hosts.append(unquote(host))
        ports.append(port or "")
    return hosts, ports


def _listed(given: dict[str, str], name: str, otherwise: list[str]) -> list[str]:
    return given[name].split(",") if name in given else otherwise
