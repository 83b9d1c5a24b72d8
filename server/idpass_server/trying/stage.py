"""A service with faults, in a process of its own that is started again once it is killed."""

import asyncio
import json
import shutil
import signal
import subprocess
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
        self._process: subprocess.Popen[bytes] | None = None

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
        if self._process is not None:
            self._process.kill()
            await self._end(self._process)
        await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)

    async def _start(self) -> None:
        faults = self._faults
        plan = (self._folder, self._listen, faults.kills, faults.slow_ms, faults.slots)
        # Not asyncio's, whose fork has gRPC complain of its threads.
        process = subprocess.Popen(  # noqa: S603, ASYNC220 our own words; returns at once
            [sys.executable, "-m", "idpass_server.trying.faults", json.dumps(plan)],
            # It ends with this pipe, which ends with this process.
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._news = asyncio.StreamReader()
        self._process = process
        self._pipe, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(self._news), process.stdout
        )

    async def _end(self, process: "subprocess.Popen[bytes]") -> int:
        """Waits for its end. Returns its exit code."""
        code = await asyncio.to_thread(process.wait)
        self._pipe.close()
        assert process.stdin is not None  # noqa: S101 a pipe
        process.stdin.close()
        self._process = None
        return code

    async def next(self) -> dict[str, Any] | None:
        """What happens next; None after the last."""
        if self._process is None:
            return None
        line = await self._news.readline()
        if line:
            news: dict[str, Any] = json.loads(line)
            if news["event"] == "serving":
                self._listen = news["listen"]
            return news
        return await self._ended(self._process)

    async def _ended(self, process: "subprocess.Popen[bytes]") -> dict[str, Any]:
        code = await self._end(process)
        if self._faults.kills and code == -signal.SIGKILL:
            self._faults = self._faults._replace(kills=False)
            await self._start()
            return {"event": "killed", "signal": signal.SIGKILL.name, "pid": process.pid}
        return {"event": "failed", "why": f"its process ended with code {code}; see the log"}
