"""idpass-server as forks of a process that has loaded it already, to start hundreds of them."""

import json
import os
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, Any, Self

from kit.faults import Faults
from kit.paths import KIT
from kit.serving import uncovered


class Forked:
    """A process, with what is needed of subprocess.Popen."""

    def __init__(self, forks: "Forks", pid: int, stderr: IO[str]) -> None:
        self.pid = pid
        self.stderr: IO[str] | None = stderr
        self.returncode: int | None = None
        self._forks = forks
        self._end = os.pidfd_open(pid)
        self._lock = threading.Lock()

    def poll(self) -> int | None:
        return self._ended(0)

    def wait(self, timeout: float | None = None) -> int:
        code = self._ended(timeout)
        if code is None:
            raise subprocess.TimeoutExpired("idpass-server", timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        with self._lock:
            if self.returncode is None:
                signal.pidfd_send_signal(self._end, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _ended(self, timeout_s: float | None) -> int | None:
        if self.returncode is None:
            ending = select.poll()
            ending.register(self._end, select.POLLIN)
            if not ending.poll(None if timeout_s is None else 1_000 * timeout_s):
                return None
            with self._lock:
                if self.returncode is None:
                    self.returncode = self._forks.wait(self.pid)
                    os.close(self._end)
        return self.returncode


class Forks:
    """What they are forks of.

    Args:
        scratch: for what is needed.

    Attributes:
        disk: a folder for their files.
        faults: that they meet.
    """

    def __init__(self, scratch: Path) -> None:
        self.disk = scratch.resolve() / "disk"
        self.disk.mkdir()
        self.faults = Faults(scratch.resolve(), self.disk)
        self._source = subprocess.Popen(
            [sys.executable, "-m", "kit.forking"],
            cwd=KIT.parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=uncovered() | self.faults.environment,
        )
        self._asking = threading.Lock()
        assert self._source.stdout
        assert self._source.stdout.readline() == "ready\n"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._source.communicate()

    def start(self, *arguments: str, patch: str = "") -> Forked:
        """Starts idpass-server. Args: patch: Python that it runs first."""
        ours, theirs = os.pipe()
        try:
            stderr = f"/proc/{os.getpid()}/fd/{theirs}"
            pid = self._ask(arguments=arguments, patch=patch, stderr=stderr)
            return Forked(self, pid, os.fdopen(ours))
        finally:
            os.close(theirs)

    def wait(self, pid: int) -> int:
        """The exit code of a process that has ended."""
        return self._ask(wait=pid)

    def _ask(self, **request: Any) -> int:
        with self._asking:
            assert self._source.stdin
            assert self._source.stdout
            self._source.stdin.write(json.dumps(request) + "\n")
            self._source.stdin.flush()
            return int(self._source.stdout.readline())
