"""`idpass-server serve` in a process of its own.

Nothing of the server is imported: the client's tests run where none could be installed, and start
one of another Python (see client/matrix.py).
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Final, Protocol

COMMAND: Final = (os.environ.get("IDPASS_SERVER_PYTHON", sys.executable), "-m", "idpass_server")


def interruptible(*command: str) -> list[str]:
    """A command that SIGINT reaches, also where it is ignored: in the background of a script."""
    default = "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); "
    return [sys.executable, "-c", f"{default}os.execvp(sys.argv[1], sys.argv[1:])", *command]


def uncovered() -> dict[str, str]:
    """The environment, less what measures coverage: for processes whose every write counts."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}


def url_of(db: Path | str) -> str:
    """The URL of a database that is named by its file, or by its URL."""
    return db if isinstance(db, str) else f"sqlite:///{db}"


class Running(Protocol):
    """What is needed of a process; subprocess.Popen has it."""

    pid: int
    stderr: IO[str] | None

    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, sig: int, /) -> None: ...
    def kill(self) -> None: ...


class Program:
    """A process of idpass-server, and its log.

    Args:
        process: whose stderr is a pipe.

    Attributes:
        log: its lines so far; what is no JSON has the event "" and its text.
    """

    def __init__(self, process: Running) -> None:
        self.process = process
        self.log: list[dict[str, Any]] = []
        self._by_event: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self._logged = threading.Condition()
        # Always read, or its log fills the pipe.
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()

    def _read_log(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            self._keep(_parsed(line))
        self._keep({"event": "end"})

    def _keep(self, line: dict[str, Any]) -> None:
        with self._logged:
            self.log.append(line)
            self._by_event[line["event"]].append(line)
            self._logged.notify_all()

    def wait_for(self, event: str, timeout_s: float = 30, *, count: int = 1) -> dict[str, Any]:
        """The first log line with an event, or the one that makes the count full."""

        def found() -> dict[str, Any] | None:
            lines = self._by_event[event]
            return (
                lines[count - 1] if len(lines) >= count else next(iter(self._by_event["end"]), None)
            )

        with self._logged:
            line = self._logged.wait_for(found, timeout_s)
        if line is None or line["event"] != event:
            raise AssertionError(f"no {event!r} in the log: {self.log}")
        return line

    def wait_for_line(self, wanted: Callable[[dict[str, Any]], bool]) -> None:
        """Waits for a line of the log."""
        with self._logged:
            assert self._logged.wait_for(lambda: any(map(wanted, self.log)), 30)

    def workers(self) -> dict[int, int]:
        """The process ids of the workers that serve, by number."""
        serving: dict[int, int] = {}
        for line in self._by_event["worker_started"]:
            serving[line["worker"]] = line["pid"]
        ends = self._by_event["worker_died"] + self._by_event["worker_stopped"]
        dead = {line["pid"] for line in ends}
        return {number: pid for number, pid in serving.items() if pid not in dead}

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def wait(self, timeout_s: float = 30) -> int:
        """Its exit code, once it ends."""
        return self.process.wait(timeout_s)

    def end(self) -> None:
        """Kills it, if it still runs, and reads its log to the end."""
        self.process.kill()
        self.process.wait()
        self._reader.join()
        assert self.process.stderr
        self.process.stderr.close()


def _parsed(line: str) -> dict[str, Any]:
    """A line of the log. Stacks that several processes print at once may have one in quotes."""
    with contextlib.suppress(ValueError):
        if isinstance(found := json.loads(line), dict):
            return found
    return {"event": "", "text": line}


class Serving(Program):
    """A server that has said where it serves.

    Args:
        options: of `serve`; of one that is given twice the last counts.

    Attributes:
        address: HOST:PORT.
        defaults: options that those given come after.
        command: that runs idpass-server.
        patience_s: time within which it serves, seconds.
    """

    defaults: tuple[str, ...] = ("--listen", "127.0.0.1:0", "--rate", "0")
    command: tuple[str, ...] = COMMAND
    patience_s: float = 30

    def __init__(self, db: Path | str, *options: str, env: dict[str, str] | None = None) -> None:
        process = subprocess.Popen(
            [*self.command, "serve", "--db", url_of(db), *self.defaults, *options],
            stderr=subprocess.PIPE,
            env=os.environ | (env or {}),
            text=True,
        )
        super().__init__(process)
        try:
            self.address: str = self.wait_for("serving", self.patience_s)["listen"]
        except BaseException:
            self.end()
            raise
