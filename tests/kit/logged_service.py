"""idpass-server with its disk logged, and what was answered meanwhile."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from kit import cut_disks, power
from kit.cut_disks import DB, Answered, Looked, Promise
from kit.disk_log import DiskLog, Record
from kit.serving import COMMAND, url_of
from kit.support import Process
from kit.witness import Call

SMALL_WAL: Final = """\
from idpass_server.store.sqlite import checkpoints
checkpoints.CHECKPOINT_PAGES = 40
"""
"""Has the WAL folded and begun anew after 40 pages, so that it happens while one looks."""
NOT_FULL: Final = f"""{SMALL_WAL}
from idpass_server.store.sqlite import file, opening, store
connect = file.connect
def normal(path, **options):
    connection = connect(path, **options)
    connection.execute("PRAGMA synchronous = NORMAL")
    return connection
store.connect = opening.connect = normal
"""
"""Has commits not synced."""
NOT_SETTLED: Final = """\
from idpass_server.store.sqlite import opening
opening.settle = lambda connection, names: None
"""
"""Has a start serve what it finds in the WAL as it is."""
_BUSY: Final = ("load", "backup", "purge", "again")
"""Phases in which SQLite folds the WAL."""
RUN: Final = """
from idpass_server.cli import main
main(prog_name="idpass-server")
"""
"""Runs idpass-server."""


class Recording(NamedTuple):
    """What was logged.

    Attributes:
        folder: that was.
        before: files that were there before, safe, by name.
        records: of the log.
        promise: what must be true of each disk.
    """

    folder: Path
    before: dict[str, bytes]
    records: list[Record]
    promise: Promise

    def look(
        self, wanted: int, seed: int, *, lies_from: str | None = None, enough: int | None = None
    ) -> Looked:
        """Looks at disks as power cuts leave them.

        Args:
            wanted: number of disks that differ.
            seed: for what is random.
            lies_from: mark from which the disk says that it has synced, and has not.
            enough: number of bad disks after which it ends.
        """

        position = None if lies_from is None else self.promise.marks[lies_from]

        def disk() -> power.Disk:
            return power.Disk(self.folder, before=self.before, lies_from=position)

        phases = self._phases()
        answered = [each.position for each in self.promise.answers]
        played = power.Played(disk, self.records, phases, answered)
        cuts = power.cuts(played, wanted, seed)
        return cut_disks.look(cuts, self.promise, phases, enough=enough)

    def _phases(self) -> list[str]:
        """What was going on at each record: what the marks say, or SQLite's own work."""
        phases: list[str] = []
        now, own = "creation", ""
        for record, name in zip(self.records, _names(self.records), strict=True):
            if record.kind == "m":
                now, own = record.data.decode().rstrip("0123456789"), ""
            elif record.kind == "w" and now in _BUSY:
                if name == DB:
                    own = "checkpoint"
                elif name == f"{DB}-wal" and not record.offset:
                    own = "WAL reset"
            elif record.kind in "ef":
                own = ""
            phases.append(own or now)
        return phases


def _names(records: Sequence[Record]) -> Iterator[str]:
    """The name under which the file of each record was opened."""
    names: dict[int, str] = {}
    for record in records:
        if record.kind == "o":
            names[record.file] = Path(record.data.decode()).name
        yield names.get(record.file, "")


class NotServing(AssertionError):
    """A server has ended before it served; its log says why."""


class LoggedService:
    """Servers and commands, one after the other or side by side, with one logged folder.

    Args:
        scratch: for everything.
        patch: Python that each server runs first.

    Attributes:
        log: of the folder.
        db: path of the database in it.
    """

    def __init__(self, scratch: Path, patch: str = SMALL_WAL) -> None:
        self.log = DiskLog(scratch)
        self.db = self.log.folder / DB
        self._patch = patch
        self._calls: list[tuple[str, list[Call]]] = []
        self._before: dict[str, bytes] = {}

    def begin_with_what_is_there(self) -> None:
        """Takes the files in the folder for safe."""
        self._before = {each.name: each.read_bytes() for each in self.log.folder.iterdir()}

    @contextlib.contextmanager
    def server(self, *options: str) -> Iterator[Process]:
        """A server that is killed in the end, if it still runs.

        Raises:
            NotServing: it has ended before it served.
        """

        class Patched(Process):
            command = (sys.executable, "-c", self._patch + RUN)

        try:
            server = Patched(self.db, *options, env=self.log.environment)
        except AssertionError as error:
            raise NotServing(str(error)) from error
        try:
            yield server
        finally:
            server.kill()

    def run(self, *arguments: str) -> None:
        """Runs a command of idpass-server to its end."""
        done = subprocess.run(
            [*COMMAND, *arguments, "--db", url_of(self.db)],
            env=os.environ | self.log.environment,
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr

    def keep(self, calls: Iterable[Call], after: str) -> None:
        """Keeps calls that were made after a mark."""
        self._calls.append((after, list(calls)))

    def recording(
        self, promise: Callable[[list[Answered], dict[str, int]], Promise] = Promise
    ) -> Recording:
        """What was logged so far."""
        records = self.log.read()
        marks = {each.data.decode(): at for at, each in enumerate(records) if each.kind == "m"}
        answers = [
            answer
            for after, calls in self._calls
            for answer in cut_disks.answered(calls, records, marks[after])
        ]
        answers.sort(key=lambda each: each.position)
        return Recording(self.log.folder, self._before, records, promise(answers, marks))
