"""Real servers as processes of their own: started, measured from outside, stopped."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from bench.cpu import cpu_s

START_TIMEOUT_S: Final = 60.0
_TESTS: Final = Path(__file__).parents[1]
_PYTHONPATH: Final = (_TESTS, _TESTS / "bench" / "named_threads")


class Process:
    """A program that says in a JSON line on standard error when it is ready.

    Args:
        log: file that takes its standard error, where servers log.
        environment: what to add to this process's own.
        ready: the "event" of that line; its address is there as "listen" or "http".

    Raises:
        RuntimeError: it does not come up; the message has the end of its log.
    """

    def __init__(
        self,
        command: list[str],
        log: Path,
        environment: Mapping[str, str] | None = None,
        ready: str = "serving",
    ) -> None:
        self._log = log
        self._ready = f'"{ready}"'.encode()
        # Settings of whoever runs the bench must not change what is measured.
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("IDPASS_")}
        inherited["PYTHONPATH"] = os.pathsep.join(map(str, _PYTHONPATH))
        self.spawned_s = time.perf_counter()
        with log.open("wb") as stderr:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                env=inherited | dict(environment or {}),
                cwd=log.parent,
            )
        self.address = self._wait()

    def _wait(self) -> str:
        while time.perf_counter() - self.spawned_s < START_TIMEOUT_S:
            for line in self._log.read_bytes().splitlines(keepends=True):
                if line.endswith(b"\n") and self._ready in line:
                    said = json.loads(line)
                    return str(said.get("listen", said.get("http")))
            if self._process.poll() is not None:
                break
            time.sleep(0.002)
        self.stop()
        raise RuntimeError(f"{self._process.args!r} is not ready: {self._tail()}")

    def _tail(self) -> str:
        return self._log.read_text(errors="replace")[-2_000:]

    @property
    def pid(self) -> int:
        return self._process.pid

    def cpu_s(self) -> float:
        """Processor time so far of it and of all that it started."""
        return cpu_s(self.pid)

    def peak_rss_mb(self) -> float:
        status = Path(f"/proc/{self.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e6

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


def idpass_server(db: Path | str, *options: str) -> list[str]:
    """The command that serves a database as a user would, to one caller who takes all there is."""
    return [*_serve(db), "--rate", "0", *options]


def idpass_server_http(db: Path) -> list[str]:
    """The same, with HTTP beside gRPC."""
    return [*idpass_server(db), "--http", "127.0.0.1:0"]


def known_callers(db: Path) -> list[str]:
    """The command that serves a database to two callers, `quiet` and `flood`; tokens are names."""
    callers = db.with_suffix(".toml")
    callers.write_text(
        "".join(
            f'[callers.{name}]\naccount = "demo"\n'
            'permissions = ["register", "read", "cancel"]\n'
            f'token_sha256 = "{hashlib.sha256(name.encode()).hexdigest()}"\n'
            for name in ("quiet", "flood")
        )
    )
    return [*_serve(db), "--callers", str(callers.absolute())]


def unlimited_callers(db: Path) -> list[str]:
    """The same, and each may take all there is."""
    return [*known_callers(db), "--rate", "0"]


def _serve(db: Path | str) -> list[str]:
    """Args: db: a file, or a URL."""
    program = str(Path(sys.executable).with_name("idpass-server"))
    url = db if isinstance(db, str) else f"sqlite:///{db.absolute()}"
    return [program, "serve", "--listen", "127.0.0.1:0", "--db", url]


def module(name: str, *arguments: str) -> list[str]:
    """The command that runs a module beside this one."""
    return [sys.executable, "-m", f"bench.{name}", *arguments]


def audited_s(url: str) -> float:
    """How long a database's audit takes, which is to find nothing, in seconds."""
    command = [sys.executable, "-m", "idpass_server", "audit", "--json", "--db", url]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    seconds: float = json.loads(done.stdout)["seconds"]
    return seconds
