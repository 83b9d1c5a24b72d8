"""News of other processes' commits, by NOTIFY and LISTEN.

A notification is only a hint; watchers read the events themselves. A thread sends it after the
commit, once for everything that was committed meanwhile: within the transaction, NOTIFY would
serialise the commits of all processes. If one is lost because a process died or a connection broke,
polling the watched accounts finds the news within POLL_S.
"""

import json
import threading
import time
from collections.abc import Callable, Collection, Mapping
from typing import Final

import psycopg
import structlog

from idpass_server.rules.refusals import StoreUnavailable
from idpass_server.store import Tell
from idpass_server.store.postgres.errors import said
from idpass_server.store.postgres.link import Link

CHANNEL: Final = "idpass_events"
ACCOUNTS_PER_NOTIFY: Final = 80  # a payload has less than 8,000 bytes, a name up to 63
PAUSE_S: Final = 0.01
"""Pause between two notifications, seconds; at that rate they cost next to nothing."""
POLL_S: Final = 1.0
"""Interval between two looks at the watched accounts, seconds."""
END_S: Final = 2.0
"""Timeout for a thread to end, seconds."""

log = structlog.get_logger()


def _end(thread: threading.Thread, link: Link) -> None:
    """Waits for a thread to end; one that the database blocks is left to end with the process."""
    thread.join(END_S)
    if not thread.is_alive():
        link.close()


class Announcer:
    """Notifies the other processes of new events.

    Args:
        link: used by nobody else, and closed with it.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._news: dict[str, int] = {}
        self._wake = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="announcer", daemon=True)
        self._thread.start()

    def announce(self, last_sequences: Mapping[str, int]) -> None:
        """Schedules a notification and returns at once."""
        with self._wake:
            self._news.update(last_sequences)
            self._wake.notify()

    def close(self) -> None:
        """Sends what is left, if the database answers in time."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        _end(self._thread, self._link)

    def _run(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._news or self._closing)
                news, self._news = list(self._news.items()), {}
                if not news:
                    return
            for start in range(0, len(news), ACCOUNTS_PER_NOTIFY):
                self._notify(dict(news[start : start + ACCOUNTS_PER_NOTIFY]))
            if not self._closing:
                time.sleep(PAUSE_S)

    def _notify(self, news: Mapping[str, int]) -> None:
        try:
            self._link.run(
                lambda it: it.execute("SELECT pg_notify(%s, %s)", (CHANNEL, json.dumps(news)))
            )
        except Exception as error:  # noqa: BLE001 nothing depends on it
            log.warning("announcement_lost", cause=str(said(error, self._link.url)))


class Listener:
    """Receives other processes' notifications.

    Args:
        link: used by nobody else, and closed with it.
        watched: returns the accounts of interest.
        tell: called with their newest sequences, on the listener's thread.
    """

    def __init__(self, link: Link, watched: Callable[[], Collection[str]], tell: Tell) -> None:
        self._link = link
        self._watched = watched
        self._tell = tell
        self._closing = threading.Event()
        self._listening = False
        self._thread = threading.Thread(target=self._run, name="listener", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stops listening."""
        self._closing.set()
        _end(self._thread, self._link)

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                self._listen()
            except (psycopg.Error, StoreUnavailable) as error:
                self._link.close()
                log.warning("listening_again", cause=str(said(error, self._link.url)))
                if not self._listening:  # else a connection was cut, and another may be had at once
                    self._closing.wait(POLL_S)
            except Exception:
                log.exception("listener_failed")
                self._closing.wait(POLL_S)
            self._listening = False

    def _listen(self) -> None:
        connection = self._link.connection()
        connection.execute(f"LISTEN {CHANNEL}")
        next_look_s = 0.0
        while not self._closing.is_set() and self._link.connection() is connection:
            if time.monotonic() >= next_look_s:
                self._look(connection)
                next_look_s = time.monotonic() + POLL_S
                self._listening = True
            for notice in connection.notifies(timeout=POLL_S / 4, stop_after=1):
                self._tell(json.loads(notice.payload))

    def _look(self, connection: "psycopg.Connection[tuple[str, int]]") -> None:
        if watched := list(self._watched()):
            rows = connection.execute(
                "SELECT name, last_sequence FROM accounts WHERE name = ANY(%s)", (watched,)
            )
            if news := dict(rows.fetchall()):
                self._tell(news)
