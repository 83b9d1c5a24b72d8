"""A service with faults, in a process of its own that is started again once it is killed."""

import asyncio
import contextlib
import json
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from idpass_server.gateway.stages import Faults

ANY_PORT: Final = "127.0.0.1:0"


class Stage:
    """A context, whose process and files are gone when it ends; `next` is as in gateway.stages.

    Args:
        folder: where its own folder is made.
        faults: of the service.
    """

    def __init__(self, folder: Path, faults: Faults) -> None:
        self._within = folder
        self._faults = faults
        self._listen = ANY_PORT
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        self._folder = await asyncio.to_thread(tempfile.mkdtemp, "", "stage-", self._within)
        await self._start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        process = self._process
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)

    async def _start(self) -> None:
        faults = self._faults
        plan = (self._folder, self._listen, faults.kills, faults.slow_ms, faults.slots)
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "idpass_server.trying.faults", json.dumps(plan)),
            # It ends with this pipe, which ends with this process.
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )

    async def next(self) -> dict[str, Any] | None:
        """What happens next; None after the last."""
        if self._process is None:
            return None
        assert self._process.stdout is not None  # noqa: S101 a pipe
        line = await self._process.stdout.readline()
        if line:
            news: dict[str, Any] = json.loads(line)
            if news["event"] == "serving":
                self._listen = news["listen"]
            return news
        return await self._ended(self._process)

    async def _ended(self, process: asyncio.subprocess.Process) -> dict[str, Any]:
        code = await process.wait()
        self._process = None
        if self._faults.kills and code == -signal.SIGKILL:
            self._faults = self._faults._replace(kills=False)
            await self._start()
            return {"event": "killed", "signal": signal.SIGKILL.name, "pid": process.pid}
        return {"event": "failed", "why": f"its process ended with code {code}; see the log"}
