"""What other processes commit: announced by NOTIFY, heard by LISTEN.

An announcement is a hint and no more; what a watcher gets it reads from the events. It is made
after the commit, by a thread of its own and for all that was committed meanwhile: within the
transaction NOTIFY would have the commits of all processes wait for each other. Where one is lost,
since a process died before it could make it or a connection broke, the look at the watched
accounts finds the news within POLL_S.
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
"""Between two announcements: so many a second cost next to nothing."""
POLL_S: Final = 1.0
END_S: Final = 2.0
"""Time that a thread gets to end, seconds."""

log = structlog.get_logger()


def _end(thread: threading.Thread, link: Link) -> None:
    """A thread that the database keeps waiting ends with the process."""
    thread.join(END_S)
    if not thread.is_alive():
        link.close()


class Announcer:
    """Tells the other processes of new events. Args: link: its own, closed with it."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._news: dict[str, int] = {}
        self._wake = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="announcer", daemon=True)
        self._thread.start()

    def announce(self, last_sequences: Mapping[str, int]) -> None:
        """Soon, and without waiting for it."""
        with self._wake:
            self._news.update(last_sequences)
            self._wake.notify()

    def close(self) -> None:
        """Announces what is left, if the database lets it."""
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
    """Hears of new events.

    Args:
        link: its own, closed with it.
        watched: the accounts of interest.
        tell: is told, on the listener's thread.
    """

    def __init__(self, link: Link, watched: Callable[[], Collection[str]], tell: Tell) -> None:
        self._link = link
        self._watched = watched
        self._tell = tell
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="listener", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        _end(self._thread, self._link)

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                self._listen()
            except (psycopg.Error, StoreUnavailable) as error:
                self._link.close()
                log.warning("listening_again", cause=str(said(error, self._link.url)))
                self._closing.wait(POLL_S)
            except Exception:
                log.exception("listener_failed")
                self._closing.wait(POLL_S)

    def _listen(self) -> None:
        connection = self._link.connection()
        connection.execute(f"LISTEN {CHANNEL}")
        next_look_s = 0.0
        while not self._closing.is_set() and self._link.connection() is connection:
            if time.monotonic() >= next_look_s:
                self._look(connection)
                next_look_s = time.monotonic() + POLL_S
            for notice in connection.notifies(timeout=POLL_S / 4, stop_after=1):
                self._tell(json.loads(notice.payload))

    def _look(self, connection: "psycopg.Connection[tuple[str, int]]") -> None:
        if watched := list(self._watched()):
            rows = connection.execute(
                "SELECT name, last_sequence FROM accounts WHERE name = ANY(%s)", (watched,)
            )
            if news := dict(rows.fetchall()):
                self._tell(news)
