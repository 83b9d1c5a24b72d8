"""Handing a service over from one process to the next, which runs the code that is on disk now.

The process that serves starts its successor with its own command line, and a socket between them:

    addresses  →    what it serves, so that port 0 means the same port
               ←  ready     its files are good, and its sockets listen
    take       →    it is about to stop
               ←  taken     new connections wait with the successor from here on
    yours      →    calls in flight are answered, and the database is closed
               ←  serving

Up to `take` the first process serves as if nothing happened, whatever becomes of the other. If the
successor fails after that, it serves again. A successor whose link ends before `yours` ends too:
whoever stops or kills the service does not want another one.
"""

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, Final, Self

from idpass_server.failures import OperatorError
from idpass_server.processes.systemd import Systemd

VARIABLE: Final = "_IDPASS_HAND_OVER"
"""Environment variable with the descriptor of the link."""
READY_S: Final = 60.0
"""Time for a successor to get ready, seconds."""
END_S: Final = 5.0
"""Time for a failed successor to end by itself, seconds."""
READY: Final = "ready"
TAKE: Final = "take"
TAKEN: Final = "taken"
YOURS: Final = "yours"
SERVING: Final = "serving"


class HandOverFailed(OperatorError):
    """The other process cannot go on with a hand-over; the message says why."""


class _Link:
    """Lines to and from the other process."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, ours: socket.socket) -> Self:
        return cls(*await asyncio.open_connection(sock=ours))

    def say(self, line: str) -> None:
        self._writer.write(f"{line}\n".encode())

    async def hear(self) -> str:
        """The next line; empty once the other process has ended."""
        with contextlib.suppress(ConnectionError):
            return (await self._reader.readline()).decode(errors="replace").strip()
        return ""

    async def hear_rest(self) -> str:
        with contextlib.suppress(ConnectionError):
            return (await self._reader.read()).decode(errors="replace").strip()
        return ""

    def close(self) -> None:
        self._writer.close()


class Successor:
    """The next process, as the one that serves sees it. Args: process: running already."""

    def __init__(self, process: "subprocess.Popen[bytes]", link: _Link) -> None:
        self._process = process
        self._link = link
        self.pid = process.pid

    @classmethod
    async def start(cls, addresses: Mapping[str, str], systemd: Systemd) -> Self:
        """Starts the next process.

        Args:
            addresses: what this one serves, by the names of the settings.
            systemd: whom the next process speaks to.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            environment = os.environ | systemd.environment() | {VARIABLE: str(theirs.fileno())}
            # Not asyncio's: its transport kills the process when this one's loop closes.
            process = subprocess.Popen(  # noqa: S603, ASYNC220 our own words; returns at once
                [sys.executable, *sys.orig_argv[1:]],
                env=environment,
                pass_fds=(theirs.fileno(),),
            )
        link = await _Link.over(ours)
        link.say(json.dumps(dict(addresses)))
        return cls(process, link)

    async def get_ready(self) -> None:
        """Waits until it could serve.

        Raises:
            HandOverFailed: it could not, and has ended.
        """
        try:
            async with asyncio.timeout(READY_S):
                await self._expect(READY)
        except TimeoutError:
            await self.end()
            raise HandOverFailed(f"it was not ready within {READY_S:g} s") from None

    async def take(self) -> None:
        """Has new connections wait with it. Raises: HandOverFailed: it has ended."""
        self._link.say(TAKE)
        await self._expect(TAKEN)

    async def serve(self) -> None:
        """Lets it serve, and waits until it does. Raises: HandOverFailed: it has ended."""
        self._link.say(YOURS)
        await self._expect(SERVING)
        self._process.returncode = 0  # nobody waits for its end: init, or systemd, does that
        self._link.close()

    async def end(self, patience_s: float = 0.0) -> None:
        """Ends it. Args: patience_s: time to end by itself, seconds."""
        self._link.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(self._process.wait, patience_s)
        for stop in (self._process.terminate, self._process.kill):
            stop()  # a no-op for a process that has ended
            with contextlib.suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(self._process.wait, END_S)
                return

    async def _expect(self, word: str) -> None:
        said = await self._link.hear()
        if said == word:
            return
        said = f"{said}\n{await self._link.hear_rest()}".strip()
        await self.end(END_S)
        raise HandOverFailed(
            said
            or f"it ended ({self._process.returncode}) before it was {word}; what it said is on "
            "standard error"
        )


class Predecessor:
    """The process that serves, as its successor sees it.

    Attributes:
        addresses: what it serves, by the names of the settings.
    """

    def __init__(self, link: _Link, addresses: Mapping[str, Any]) -> None:
        self._link = link
        self.addresses = addresses

    @classmethod
    async def of(cls, environment: MutableMapping[str, str]) -> Self | None:
        """The process that started this one as its successor; None if none did.

        Raises:
            HandOverFailed: it has ended.
        """
        descriptor = environment.pop(VARIABLE, None)
        if descriptor is None:
            return None
        ours = socket.socket(fileno=int(descriptor))
        ours.set_inheritable(False)
        link = await _Link.over(ours)
        if not (line := await link.hear()):
            raise HandOverFailed("the server that started this one to take over has ended")
        return cls(link, json.loads(line))

    async def ready(self) -> None:
        """Says that this process could serve, and waits for the other to be about to stop.

        Raises:
            HandOverFailed: it has ended, or goes on.
        """
        self._link.say(READY)
        await self._expect(TAKE)

    async def let_go(self) -> None:
        """Says that new connections come here, and waits for the other to close the database.

        Raises:
            HandOverFailed: it has ended.
        """
        self._link.say(TAKEN)
        await self._expect(YOURS)

    async def _expect(self, word: str) -> None:
        if await self._link.hear() != word:
            raise HandOverFailed(
                "the server that started this one to take over was stopped, so this one stops too"
            )

    def serving(self) -> None:
        """Says that this process serves; the other then ends."""
        self._link.say(SERVING)
        self._link.close()

    def fail(self, why: str) -> None:
        """Says why this process cannot serve."""
        self._link.say(why)
        self._link.close()
