"""Whether changes can be stored now.

Each part that can tell reports here under a name of its own, such as "store" or "clock";
`health` and `probe` tell the outside.
"""

import asyncio
from typing import Final

import structlog

DRAINING: Final = "draining"
"""The check that has a problem from the moment on at which the server stops."""

log = structlog.get_logger()


class Readiness:
    """Named checks, each in order or with a problem; ready means that none has a problem.

    Create it on the event loop.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._problems: dict[str, str | None] = {}
        self._change: asyncio.Future[None] = self._loop.create_future()

    def set(self, name: str, problem: str | None) -> None:
        """Reports on a check, from any thread. The same report may come again and again.

        Args:
            name: of the check.
            problem: why changes cannot be stored, for operators; None when all is well.
        """
        before = self._problems.get(name)
        self._problems[name] = problem
        if before == problem:
            return
        if name != DRAINING:  # which is no fault, and is logged where it begins
            if before is None:
                log.error("not_ready", check=name, problem=problem)
            elif problem is None:
                log.info("ready_again", check=name)
        self._loop.call_soon_threadsafe(self._tell)

    @property
    def ready(self) -> bool:
        """Whether no check has a problem."""
        return all(problem is None for problem in self.checks().values())

    @property
    def draining(self) -> bool:
        """Whether the server is stopping."""
        return self._problems.get(DRAINING) is not None

    def checks(self) -> dict[str, str | None]:
        """The problem of each check that has been reported on, or None."""
        return self._problems.copy()

    def changed(self) -> asyncio.Future[None]:
        """What ends when a check has changed since this was called."""
        return asyncio.shield(self._change)

    def _tell(self) -> None:
        self._change.set_result(None)
        self._change = self._loop.create_future()
