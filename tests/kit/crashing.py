"""A PostgreSQL whose processes are killed, under one server."""

import contextlib
import os
import signal
import tempfile
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Final

from idpass_server.store.opening import migrate_store
from kit.faults import Faults
from kit.forked import Forks
from kit.killing import Drill, Target
from kit.postgres import Postgres
from kit.serving import Program, Serving
from kit.support import eventually

_KILLED: Final = "was terminated by signal 9"
_READY: Final = "database system is ready to accept connections"
"""In PostgreSQL's log, after each kill, as is `_KILLED`."""
DIED_S: Final = 2
"""Longest time from a kill to its line in the log, seconds."""
RECOVERED_S: Final = 120
"""Longest time for PostgreSQL to recover its WAL, seconds: it syncs the whole file system."""


@contextlib.contextmanager
def crashing() -> Iterator["Crashing"]:
    """A PostgreSQL to be killed."""
    with tempfile.TemporaryDirectory(prefix="idpass-kills-") as scratch:
        Path(scratch).chmod(0o777)  # it may run as another user
        faults = Faults(Path(scratch), "pg_wal")
        with Postgres(faults.environment) as running:
            # Its recovery syncs every file that it has, which takes seconds one by one.
            running.execute("ALTER SYSTEM SET recovery_init_sync_method = syncfs")
            running.execute("SELECT pg_reload_conf()")
            yield Crashing(running, faults)


class Crashing:
    """
    Args:
        postgres: whose processes are killed.
        faults: that they meet.
    """

    def __init__(self, postgres: Postgres, faults: Faults) -> None:
        self._postgres, self._faults = postgres, faults

    def kill(
        self,
        forks: Forks,
        drill: Drill,
        calls: Mapping[str, int],
        wanted: int,
        *,
        patch: str = "",
    ) -> None:
        """Kills processes; with a patch only until something is bad.

        Args:
            forks: that serve.
            drill: on a database of `new_database`.
            calls: the most of each call before which a process is killed.
            wanted: number of kills.
            patch: Python that the server runs first.
        """
        killed = self._count(_KILLED)
        server = Program(forks.start("serve", "--db", drill.url, *Serving.defaults, patch=patch))
        try:
            address = server.wait_for("serving")["listen"]
            drill.check(address)
            while drill.kills.total() < wanted and not (patch and drill.bad):
                kill = drill.plan({"load": calls}, {"load": 1})
                target = Target(partial(self._kill_one, drill), self._faults.fired)
                strike = partial(drill.strike, kill=kill, target=target, faults=self._faults)
                ready = self._count(_READY)
                drill.load(address, strike)
                eventually(partial(self._has_recovered, ready), RECOVERED_S)
                drill.check(address)
            drill.check(address, everything=True)
            server.signal()
            assert server.wait() == 0
        finally:
            server.end()
        # A process may still meet a fault that was just given up, and be killed beside another.
        assert self._count(_KILLED) - killed >= drill.kills.total()

    def new_database(self, name: str) -> str:
        """Makes a database to be served. Returns its URL."""
        url = self._postgres.create_database(name)
        migrate_store(url)
        return url

    def _kill_one(self, drill: Drill) -> None:
        """Kills any process, but for what recovers the WAL; another one, if it was just ending."""
        killed = self._count(_KILLED)
        while self._count(_KILLED) == killed:
            titles = self._postgres.processes().items()
            pid = drill.draw.choice([pid for pid, title in titles if "startup" not in title])
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(AssertionError):
                eventually(lambda: self._count(_KILLED) > killed, DIED_S)

    def _has_recovered(self, before: int) -> bool:
        return self._count(_READY) > before

    def _count(self, line: str) -> int:
        return self._postgres.log().count(line)
