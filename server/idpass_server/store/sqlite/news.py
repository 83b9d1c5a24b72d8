"""News of events that an operator's command commits beside the server.

The server knows of its own commits. What `idpass-server erase` writes to the file is found by
looking, for the accounts that are watched.
"""

import json
import threading
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Final

import structlog

from idpass_server.store import CannotOpen, Tell
from idpass_server.store.sqlite.file import connect, sqlite3

LOOK_S: Final = 1.0
"""Interval between two looks, seconds."""
_NEWEST: Final = """
    SELECT name, last_sequence FROM json_each(?) AS key
    CROSS JOIN accounts ON accounts.name = key.value"""

log = structlog.get_logger()


class Listener:
    """Looks for news on a thread of its own.

    Args:
        path: of the file.
        watched: returns the accounts of interest.
        tell: called with their newest sequences, on the listener's thread.
    """

    def __init__(self, path: Path, watched: Callable[[], Collection[str]], tell: Tell) -> None:
        self._path = path
        self._watched = watched
        self._tell = tell
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="listener", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stops looking, and closes the connection."""
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        connection: Any = None
        changes = None
        while not self._closing.wait(LOOK_S):
            try:
                if connection is None:
                    connection = connect(self._path, read_only=True)
                # Of other connections, the server's own among them.
                before, changes = changes, connection.execute("PRAGMA data_version").fetchone()
                if changes != before and (watched := list(self._watched())):
                    rows = connection.execute(_NEWEST, (json.dumps(watched),))
                    self._tell(dict(rows.fetchall()))
            except (sqlite3.Error, CannotOpen):
                # The store, which reads and writes the same file, tells of it.
                changes = None
            except Exception:
                log.exception("listener_failed")
        if connection is not None:
            connection.close()
