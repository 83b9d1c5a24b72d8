"""`serve --workers N`: a supervisor, and N processes that share its addresses.

The supervisor serves nothing itself. It reserves the addresses, starts the workers, lets them
serve once all are ready, replaces one that dies, and stops them all together.

* The workers' sockets share a port by SO_REUSEPORT, and the kernel spreads connections over them.
* Workers are new processes, never forks: gRPC does not survive a fork. They run the program that is
  on disk when they start; SIGUSR2 replaces them one by one, while the supervisor stays what it is.
* Each worker is a session of its own, so that Ctrl-C in a terminal reaches the supervisor alone.
"""

import asyncio
import contextlib
import dataclasses
import faulthandler
import json
import os
import signal
import socket
import sys
from asyncio.subprocess import Process
from typing import Final

import structlog

from idpass_server.config import Settings
from idpass_server.engine.readiness import DRAINING, Check
from idpass_server.failures import OperatorError
from idpass_server.hosting.listening import serve_pages
from idpass_server.hosting.pages import metrics, probe
from idpass_server.processes.ending import EXIT_S
from idpass_server.processes.gathering import MAX_REPORT_BYTES, SILENT_S, Gathering
from idpass_server.processes.reserving import reserve
from idpass_server.processes.running import STOP, WAY_OUT_S
from idpass_server.processes.systemd import Systemd
from idpass_server.processes.terminal import Terminal
from idpass_server.processes.worker import (
    CHECKS,
    EXIT_MAY_NOT_SERVE,
    GO,
    METRICS,
    READY,
    Start,
)

SETTLED_S: Final = 1.0
"""Time that a worker must serve for its replacement to start without backoff, seconds."""
BACKOFF_S: Final = (0.0, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Backoff before the first, second and further replacements in a row, seconds."""
TRIES: Final = 5
"""Workers in a row that may not serve the database's schema before the service stops."""
READY_S: Final = 60.0
"""Time for a worker that is to replace another to serve, seconds."""
KILL_S: Final = WAY_OUT_S + EXIT_S
"""Time beyond the drain time after which a worker that has not ended is killed, seconds."""

log = structlog.get_logger()


class CannotStart(OperatorError):
    """A worker cannot serve; the message is the worker's own."""


async def serve(settings: Settings) -> bool:
    """Serves until SIGTERM or SIGINT.

    Args:
        settings: checked already, with two workers or more.

    Returns:
        false if a worker did not end in time and was killed.

    Raises:
        CannotListen: an address is in use, or is not one of this machine.
        CannotStart: a worker could not start, so none serves.
    """
    with contextlib.ExitStack() as reserved:
        settings = dataclasses.replace(
            settings,
            listen=reserve("--listen", settings.listen, reserved),
            http=reserve("--http", settings.http, reserved) if settings.http else None,
        )
        supervisor = _Supervisor(settings)
        if settings.metrics is not None:
            shown = reserved.enter_context(metrics(supervisor.gathering.registry))
            await serve_pages("metrics", settings.metrics, shown)
        if settings.probe is not None:
            pages = reserved.enter_context(probe(supervisor.checks))
            await serve_pages("probe", settings.probe, pages)
        return await supervisor.run()


class _Worker:
    """One worker process.

    Args:
        link: to its standard input.
        on_trial: whether another serves in its place if it does not get that far.
    """

    task: "asyncio.Task[float]"
    """Ends with the process; its result is how long that served, in seconds."""

    def __init__(
        self, number: int, process: Process, link: asyncio.StreamWriter, *, on_trial: bool
    ) -> None:
        self.number = number
        self.process = process
        self.link = link
        self.on_trial = on_trial
        self.serving = asyncio.Event()
        self.said = ""
        self.ready_s: float | None = None
        self.checks: dict[str, Check] = {}
        self.heard_s = 0.0

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    def let_serve(self) -> None:
        self.link.write(GO)
        log.info("worker_started", worker=self.number, pid=self.process.pid)


class _Supervisor:
    """Keeps the workers. Args: settings: with addresses that are reserved."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.gathering = Gathering(settings.workers)
        self._workers: dict[int, _Worker] = {}  # by process id
        self._current: dict[int, _Worker] = {}  # by number
        self._rolling_over: asyncio.Task[None] | None = None
        self._serving = False
        self._draining = asyncio.Event()
        self._failure: str | None = None
        self._may_not_serve = 0
        self._killed = False
        self._systemd = Systemd.of(os.environ)
        self._status = f"serving at {settings.listen} with {settings.workers} workers"

    async def run(self) -> bool:
        loop = asyncio.get_running_loop()
        for number in STOP:
            loop.add_signal_handler(number, self._drain)
        loop.add_signal_handler(signal.SIGHUP, self._hang_up, Terminal())
        loop.add_signal_handler(signal.SIGUSR2, self._begin_roll_over)
        # Prints our own stacks, then passes it on: with chain=True the earlier handler runs last.
        faulthandler.unregister(signal.SIGUSR1)
        loop.add_signal_handler(signal.SIGUSR1, self._signal, signal.SIGUSR1)
        faulthandler.register(signal.SIGUSR1, file=2, chain=True)
        await asyncio.gather(*map(self._keep, range(self._settings.workers)))
        await asyncio.gather(*(each.task for each in self._workers.values()))
        if self._failure is not None:
            raise CannotStart(self._failure)
        log.info("stopped")
        return not self._killed

    async def _keep(self, number: int) -> None:
        """Runs one worker after another until the service drains."""
        deaths = 0
        while not self._draining.is_set():
            try:
                worker = self._current[number] = await self._start(number)
                lived_s = await worker.task
                while (replaced := self._current[number]) is not worker:
                    worker = replaced
                    lived_s = await worker.task
            except OSError as error:
                lived_s = 0.0
                self._tell_of_no_start(number, error)
            deaths = 0 if lived_s >= SETTLED_S else min(deaths + 1, len(BACKOFF_S))
            if deaths:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._draining.wait(), BACKOFF_S[deaths - 1])

    async def _start(self, number: int, *, on_trial: bool = False) -> _Worker:
        """Starts one worker. Raises: OSError: it cannot be started."""
        ours, theirs = socket.socketpair()
        with theirs:
            reader, link = await asyncio.open_connection(sock=ours, limit=MAX_REPORT_BYTES)
            try:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-P", "-m", "idpass_server.processes.worker"),
                    stdin=theirs.fileno(),
                    start_new_session=True,
                )
            except OSError:
                link.close()
                raise
        worker = _Worker(number, process, link, on_trial=on_trial)
        self._workers[process.pid] = worker
        link.write(Start(number, dataclasses.replace(self._settings, probe=None)).line())
        if self._draining.is_set():  # while the process was being made
            self._end(worker)
        worker.task = asyncio.create_task(self._attend(worker, reader))
        return worker

    async def _attend(self, worker: _Worker, reader: asyncio.StreamReader) -> float:
        """Attends to one worker to its end. Returns how long it served, in seconds."""
        loop = asyncio.get_running_loop()
        said = b""
        with contextlib.suppress(ConnectionError):
            said = await reader.readline()
            if said == READY:
                worker.ready_s = loop.time()
                self._may_not_serve = 0
                self._admit(worker)
                said = await self._listen(worker, reader)
        await worker.process.wait()
        worker.link.close()
        del self._workers[worker.process.pid]
        self.gathering.end(worker.process.pid)
        lived_s = 0.0 if worker.ready_s is None else loop.time() - worker.ready_s
        self._tell_of_end(worker, said.decode().strip())
        return lived_s

    async def _listen(self, worker: _Worker, reader: asyncio.StreamReader) -> bytes:
        """Takes in a worker's reports until it ends. Returns whatever else it wrote."""
        said = b""
        while line := await reader.readline():
            if line.startswith(CHECKS):
                reports = json.loads(line.removeprefix(CHECKS))
                worker.checks = {name: Check(*report) for name, report in reports.items()}
                worker.heard_s = asyncio.get_running_loop().time()
                if reports and not any(each.problem for each in worker.checks.values()):
                    worker.serving.set()
            elif line.startswith(METRICS):
                report = line.removeprefix(METRICS)
                self.gathering.take(worker.process.pid, worker.number, report)
            else:
                said += line
        return said

    def checks(self) -> dict[str, Check]:
        """As Readiness.checks, for all workers together: the service is ready while each is."""
        now_s = asyncio.get_running_loop().time()
        current = [each for each in self._current.values() if each in self._workers.values()]
        serving = [each for each in current if each.checks]
        problems: dict[str, list[str]] = {"workers": [], DRAINING: []}
        warnings: dict[str, list[str]] = {}
        if not serving:
            problems["workers"].append("none serves")
        if self._draining.is_set():
            problems[DRAINING].append("the server is stopping")
        for worker in serving:
            if now_s - worker.heard_s > SILENT_S:
                problems["workers"].append(f"worker {worker.number} has not reported")
            for name, check in worker.checks.items():
                for found, text in ((problems, check.problem), (warnings, check.warning)):
                    texts = found.setdefault(name, [])
                    if text is not None:
                        texts.append(f"worker {worker.number}: {text}")
        return {
            name: Check("; ".join(found) or None, "; ".join(warnings.get(name, [])) or None)
            for name, found in problems.items()
        }

    def _admit(self, worker: _Worker) -> None:
        if self._serving:
            worker.let_serve()
            return
        ready = [each for each in self._workers.values() if each.ready_s is not None]
        if len(ready) == self._settings.workers and not self._draining.is_set():
            self._serving = True
            for each in ready:
                each.let_serve()
            log.info("serving", listen=self._settings.listen, workers=len(ready))
            self._systemd.ready(self._status)
            self._informing = asyncio.create_task(
                self._systemd.keep_informed(self._status, self.checks)
            )

    def _tell_of_no_start(self, number: int, error: OSError) -> None:
        """Handles a process that could not be made: no memory, or a program being replaced."""
        if self._draining.is_set():
            return
        if self._serving:
            log.error("worker_not_started", worker=number, error=str(error))
            return
        self._failure = f"worker {number} cannot be started: {error}"
        self._drain()

    def _tell_of_end(self, worker: _Worker, said: str) -> None:
        worker.said = said
        if self._draining.is_set() or worker.on_trial:
            return
        code = worker.process.returncode or 0
        how = {"signal": signal.Signals(-code).name} if code < 0 else {"exit_code": code}
        if code == EXIT_MAY_NOT_SERVE:
            self._may_not_serve += 1
        if self._serving and code == 0:
            log.info("worker_stopped", worker=worker.number, pid=worker.process.pid)
            return
        if self._serving:
            told = {"error": said} if said else {}
            self.gathering.restarts.inc()
            log.error("worker_died", worker=worker.number, pid=worker.process.pid, **how, **told)
        if self._serving and self._may_not_serve < TRIES:
            return
        ended = " ".join(map(str, *how.items()))
        self._failure = said or f"worker {worker.number} ended before it could serve ({ended})"
        self._drain()

    def _begin_roll_over(self) -> None:
        if self._serving and (self._rolling_over is None or self._rolling_over.done()):
            self._rolling_over = asyncio.create_task(self._roll_over())

    async def _roll_over(self) -> None:
        """Replaces the workers one by one, by new processes with the program on disk."""
        self._systemd.reloading()
        log.info("rolling_over", workers=self._settings.workers)
        for number in range(self._settings.workers):
            try:
                await self._replace(number)
            except (CannotStart, OSError) as error:
                if self._draining.is_set():
                    return
                log.error("roll_over_failed", worker=number, error=str(error), replaced=number)
                self._systemd.ready(self._status)
                return
        log.info("rolled_over", workers=self._settings.workers)
        self._systemd.ready(self._status)

    async def _replace(self, number: int) -> None:
        """Replaces one worker, which serves until the next one does.

        Raises:
            CannotStart: the next one does not serve; the former goes on.
            OSError: it cannot be started.
        """
        worker = await self._start(number, on_trial=True)
        serving = asyncio.create_task(worker.serving.wait())
        await asyncio.wait(
            [serving, worker.task], timeout=READY_S, return_when=asyncio.FIRST_COMPLETED
        )
        serving.cancel()
        if not worker.serving.is_set() or worker.task.done():
            await self._end_in_time(worker)
            code = worker.process.returncode
            raise CannotStart(worker.said or f"the new process did not serve (exit code {code})")
        former = self._current[number]
        if former.task.done():  # it died meanwhile, and another is being started already
            await self._end_in_time(worker)
            return
        worker.on_trial = False
        self._current[number] = worker
        former.signal(signal.SIGUSR2)
        await asyncio.wait([former.task], timeout=self._settings.drain_s + KILL_S)
        await self._end_in_time(former)

    async def _end_in_time(self, worker: _Worker) -> None:
        """Ends a worker, by force if it takes too long."""
        if not worker.task.done():
            self._end(worker)
            await asyncio.wait([worker.task], timeout=self._settings.drain_s + KILL_S)
        if not worker.task.done():
            log.error("worker_killed", worker=worker.number, pid=worker.process.pid)
            worker.signal(signal.SIGKILL)
        await worker.task

    def _drain(self) -> None:
        if self._draining.is_set():
            return
        self._draining.set()
        self._systemd.stopping()
        if self._failure is None:
            log.info("draining", seconds=self._settings.drain_s)
        for worker in self._workers.values():
            self._end(worker)
        asyncio.get_running_loop().call_later(self._settings.drain_s + KILL_S, self._kill)

    def _end(self, worker: _Worker) -> None:
        worker.signal(signal.SIGTERM)
        worker.link.write_eof()

    def _kill(self) -> None:
        for worker in self._workers.values():
            log.error("worker_killed", worker=worker.number, pid=worker.process.pid)
            self._killed = True
            worker.signal(signal.SIGKILL)

    def _hang_up(self, terminal: Terminal) -> None:
        if terminal.is_gone():
            self._drain()
        else:
            self._systemd.reloading()
            self._signal(signal.SIGHUP)
            self._systemd.ready(self._status)

    def _signal(self, number: int) -> None:
        for worker in self._workers.values():
            worker.signal(number)
