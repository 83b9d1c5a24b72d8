"""A server with faults, for the sandbox's shows: python -m idpass_server.trying.faults PLAN

It is the real server on a throw-away database. Only its store is another one, which takes longer
to commit, or has its own process killed between a commit and its answer. What happens is told on
standard output, a line of JSON each. It ends with its standard input, so that it never outlives
the sandbox, however that ends, and takes its files with it.
"""

import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import uvloop

from idpass_server import logs
from idpass_server.api.identity import DEMO
from idpass_server.config import Settings
from idpass_server.hosting.server import Server
from idpass_server.rules.commands import Command
from idpass_server.rules.records import Money, Status
from idpass_server.store import Committed
from idpass_server.store.observing import StoreObserver
from idpass_server.store.sqlite.store import SqliteStore
from idpass_server.urls import sqlite_path

FEE: Final = Money("AUD", 4_500_000)
DATABASE: Final = "stage.db"
REMOVALS: Final = 3
"""How often the files of a server that is still running are removed."""


class Plan(NamedTuple):
    """What is served, and what is wrong with it.

    Attributes:
        folder: of the database, removed in the end.
        listen: HOST:PORT, with port 0 for any free one.
        kills: whether the process is killed once the first cancel is on disk.
        slow_ms: what each commit takes longer, milliseconds.
        slots: slot limit of the account of a new database.
    """

    folder: str
    listen: str
    kills: bool
    slow_ms: int
    slots: int


def tell(event: str, **values: Any) -> None:
    """Tells what happens, at once: the next thing may be the end of the process."""
    line = json.dumps({"event": event, "time_ms": time.time_ns() / 1e6, **values})
    os.write(sys.stdout.fileno(), f"{line}\n".encode())


class FaultyStore(SqliteStore):
    """
    Args:
        path, observer: as of SqliteStore.
        plan: what is wrong with it.
    """

    def __init__(self, path: Path, observer: StoreObserver, plan: Plan) -> None:
        super().__init__(path, observer=observer)
        self._plan = plan

    def commit(
        self, commands: Sequence[Command], now_us: int, due_us: int | None = None
    ) -> Committed:
        kinds = [type(command).__name__.lower() for command in commands]
        tell("taken", commands=kinds)
        committed = super().commit(commands, now_us, due_us)
        tell("committed", commands=kinds, events=len(committed.events))
        if self._plan.kills and any(e.to_status is Status.CANCELLED for e in committed.events):
            os.kill(os.getpid(), signal.SIGKILL)
        return committed

    def _commit(self) -> None:
        time.sleep(self._plan.slow_ms / 1_000)
        super()._commit()


def prepare(plan: Plan) -> None:
    """Makes the database, if there is none yet."""
    path = Path(plan.folder, DATABASE)
    if not path.exists():
        store = SqliteStore(path)
        store.set_account(DEMO.account, slot_limit=plan.slots, fee=FEE)
        store.close()


async def serve(plan: Plan) -> None:
    """Serves until the process is ended."""
    path = Path(plan.folder, DATABASE)

    def opens(url: str, *, create: bool, observer: StoreObserver) -> FaultyStore:  # noqa: ARG001
        return FaultyStore(sqlite_path(url) or path, observer, plan)

    settings = Settings(listen=plan.listen, db=f"sqlite:///{path}", rate_per_s=0)
    server = Server(settings, opens=opens)
    tell("serving", listen=await server.start(), pid=os.getpid())
    await server.wait()


def _end_with_input(folder: str, ending: threading.Event) -> None:
    sys.stdin.buffer.read()
    ending.set()
    for _ in range(REMOVALS):  # the server may still write
        shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)


def main() -> None:
    """Serves as the first argument says, a Plan in JSON."""
    plan = Plan(*json.loads(sys.argv[1]))
    ending = threading.Event()
    remover = threading.Thread(target=_end_with_input, args=(plan.folder, ending), daemon=True)
    remover.start()
    logs.configure("error")
    prepare(plan)
    uvloop.run(serve(plan))
    if ending.is_set():  # the server has missed its files first
        remover.join()


if __name__ == "__main__":
    main()
