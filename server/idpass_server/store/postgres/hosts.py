"""URLs with several hosts: which of them to avoid.

A primary that was replaced but still runs, cut off from whatever promotes and demotes, would accept
changes that are lost. Each promotion starts a new timeline with a higher number, so a host that
accepts changes on a lower timeline than another is superseded, and avoided until it reaches the
highest one.

A host that hangs or has vanished answers nothing, and hosts are tried one after the other: who
looks for the new primary would wait for the lost one again and again. A host that was silent in two
looks is therefore left out until it says something, be it that it is no primary.
"""

import threading
from contextlib import closing
from typing import Any, Final

import psycopg
import structlog
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from idpass_server.store.postgres.errors import NoAnswer
from idpass_server.store.postgres.link import Connection, Database

LOOK_S: Final = 5.0
"""Interval between two looks at the hosts, seconds."""
CONNECT_S: Final = "2"
"""Timeout for connecting to a host, seconds."""
_TIMELINE: Final = "SELECT left(pg_walfile_name(pg_current_wal_lsn()), 8)"

log = structlog.get_logger()


class Lookout:
    """Checks all hosts every LOOK_S, if there are several.

    Args:
        database: whose connections are moved away from superseded hosts.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._conninfo = database.conninfo
        self._places = _places(conninfo_to_dict(database.conninfo))
        self._highest = ""
        self._superseded: set[int] = set()
        self._silent: set[int] = set()
        self._closing = threading.Event()
        if len(self._places) > 1:
            threading.Thread(target=self._run, name="lookout", daemon=True).start()

    def close(self) -> None:
        """Stops checking."""
        self._closing.set()

    def _run(self) -> None:
        while not self._closing.wait(LOOK_S):
            try:
                self._look()
            except Exception:
                log.exception("lookout_failed")

    def _look(self) -> None:
        seen = [self._timeline(place) for place in self._places]
        self._highest = max(self._highest, *(timeline or "" for timeline in seen))
        superseded = {
            number
            for number, timeline in enumerate(seen)
            if (timeline < self._highest if timeline else number in self._superseded)
        }
        silent = {number for number, timeline in enumerate(seen) if timeline is None}
        left_out = superseded | (silent & self._silent)
        self._silent = silent
        if len(left_out) == len(seen):
            left_out = superseded
        rest = [place for number, place in enumerate(self._places) if number not in left_out]
        joined = {name: ",".join(place[name] for place in rest) for name in rest[0]}
        conninfo = make_conninfo(self._conninfo, **joined)
        if superseded == self._superseded:
            self._database.conninfo = conninfo  # for new connections
            return
        self._superseded = superseded
        left = [_shown(self._places[number]) for number in superseded]
        log.error("several_primaries", left_alone=left, served_from=[*map(_shown, rest)])
        self._database.choose(conninfo)

    def _timeline(self, place: dict[str, str]) -> str | None:
        """A host's timeline in hexadecimal; "" if it accepts no changes now, None if silent."""
        only = make_conninfo(self._conninfo, **place, connect_timeout=CONNECT_S)
        try:
            with closing(Connection.connect(only, autocommit=True)) as connection:
                (timeline,) = connection.execute(_TIMELINE, prepare=False).fetchone() or ("",)
        except (psycopg.errors.ConnectionTimeout, NoAnswer):
            return None
        except psycopg.Error:
            return ""
        return str(timeline)


def _places(given: dict[str, Any]) -> list[dict[str, str]]:
    """The parameters of a conninfo that name its hosts, for each host."""
    lists = {
        name: str(given[name]).split(",") for name in ("host", "hostaddr", "port") if name in given
    }
    count = max((len(values) for values in lists.values()), default=1)
    return [
        {name: values[number if len(values) > 1 else 0] for name, values in lists.items()}
        for number in range(count)
    ]


def _shown(place: dict[str, str]) -> str:
    return f"{place.get('host') or place.get('hostaddr')}:{place.get('port', '')}"
