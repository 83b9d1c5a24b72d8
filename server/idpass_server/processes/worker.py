"""A worker: one of the processes that `serve --workers N` keeps running (see `supervisor`).

Its standard input is a socket to the supervisor. The settings come in; "ready" goes out once
everything is open; "go" comes in once all workers are ready, and only then does it answer calls.
If the supervisor dies, in whatever way, the socket closes, and the worker drains and ends.
"""

import asyncio
import contextlib
import dataclasses
import json
import signal
import socket
import sys
from typing import Final, NamedTuple, Self

from idpass_server import logs
from idpass_server.api.metrics import Metrics
from idpass_server.config import OPTIONS, Settings
from idpass_server.engine.readiness import Readiness
from idpass_server.failures import BadSetting, OperatorError
from idpass_server.processes import ending, gathering, running
from idpass_server.store.schema import SchemaOutdated, SchemaTooNew

READY: Final = b"ready\n"
GO: Final = b"go\n"
CHECKS: Final = b"checks "
METRICS: Final = b"metrics "
REPORT_S: Final = 1.0
"""Longest time between reports to the supervisor, seconds."""
EXIT_MAY_NOT_SERVE: Final = 78
"""Exit code of a worker that another try will not help: EX_CONFIG of sysexits.h."""
MAY_NOT_SERVE: Final = (SchemaOutdated, SchemaTooNew)
"""Failures that another try will not help."""


class Start(NamedTuple):
    """What a worker is told first.

    Args:
        number: of this worker, from 0.
        settings: its own, checked by the supervisor.
    """

    number: int
    settings: Settings

    def line(self) -> bytes:
        """Its form for a worker, which may be of a newer version."""
        return json.dumps([self.number, dataclasses.asdict(self.settings)]).encode() + b"\n"

    @classmethod
    def of(cls, line: bytes) -> Self:
        """
        Raises:
            BadSetting: this version has no such setting, or refuses its value.
        """
        number, settings = json.loads(line)
        if unknown := settings.keys() - OPTIONS.keys():
            raise BadSetting(
                f"this version has no option for {', '.join(sorted(unknown))}: restart the service "
                "with options that it has"
            )
        return cls(number, Settings(**settings))


class _Unwanted(Exception):
    """The supervisor ended before this worker served anything."""


async def _work() -> int:
    reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=0))
    tasks: list[asyncio.Task[None]] = []

    async def end_with_the_supervisor() -> None:
        with contextlib.suppress(OSError):  # it may have died while we wrote to it
            await reader.read()
        signal.raise_signal(signal.SIGTERM)

    counted: list[Metrics] = []

    async def report(readiness: Readiness) -> None:
        while not writer.is_closing():
            changed = readiness.changed()
            writer.write(CHECKS + json.dumps(readiness.checks()).encode() + b"\n")
            _report_metrics(writer, counted)
            await asyncio.wait([changed], timeout=REPORT_S)

    async def ready(readiness: Readiness, metrics: Metrics) -> None:
        if start.settings.metrics is not None:
            counted.append(metrics)
        writer.write(READY)
        if await reader.readline() != GO:
            raise _Unwanted
        tasks.append(asyncio.create_task(end_with_the_supervisor()))
        tasks.append(asyncio.create_task(report(readiness)))

    try:
        start = Start.of(await reader.readline())
        logs.configure(start.settings.log_level, worker=start.number)
        healthy = await running.serve(start.settings, ready)
    except _Unwanted:
        return 0
    except OperatorError as error:
        writer.write(str(error).encode())
        writer.close()
        await writer.wait_closed()
        return EXIT_MAY_NOT_SERVE if isinstance(error, MAY_NOT_SERVE) else 1
    finally:
        _report_metrics(writer, counted)  # or what the last second counted would be lost
    return 0 if healthy else ending.EXIT_STORE_BROKEN


def _report_metrics(writer: asyncio.StreamWriter, counted: list[Metrics]) -> None:
    for metrics in counted:
        writer.write(METRICS + gathering.report(metrics) + b"\n")


def main() -> None:
    # The supervisor may pass these on at any time, and by default they would end the process.
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    sys.exit(ending.run(_work()))


if __name__ == "__main__":
    main()
