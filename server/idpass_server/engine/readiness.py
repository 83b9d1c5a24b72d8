"""Whether changes can be stored now, and what an operator should look at while they can.

Each part that can tell reports here under a name of its own, such as "store" or "clock";
`hosting.health` and `hosting.pages` pass it on.
"""

import asyncio
from typing import Final, NamedTuple

import structlog

DRAINING: Final = "draining"
"""Name of the check that has a problem once the server has begun to stop."""

log = structlog.get_logger()


class Check(NamedTuple):
    """The latest report on one check, in words for operators.

    Args:
        problem: why changes cannot be stored; None when they can.
        warning: what is wrong although changes can be stored; None when nothing is.
    """

    problem: str | None = None
    warning: str | None = None


class Readiness:
    """Named checks; the server is ready while none of them has a problem.

    Create it on the event loop.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._checks: dict[str, Check] = {}
        self._change: asyncio.Future[None] = self._loop.create_future()

    def set(self, name: str, problem: str | None) -> None:
        """Reports on a check, from any thread. Repeating a report is a no-op.

        Args:
            name: of the check.
            problem: why changes cannot be stored; None when they can.
        """
        before = self._replace(name, Check(problem)).problem
        if name == DRAINING:  # no fault, and logged where it begins
            return
        if before is None and problem is not None:
            log.error("not_ready", check=name, problem=problem)
        elif before is not None and problem is None:
            log.info("ready_again", check=name)

    def warn(self, name: str, warning: str | None) -> None:
        """Reports, from any thread, what is wrong although changes can be stored.

        Args:
            name: of a check that is never `set`.
            warning: what is wrong; None when nothing is.
        """
        before = self._replace(name, Check(warning=warning)).warning
        if before is None and warning is not None:
            log.warning("check_warning", check=name, warning=warning)
        elif before is not None and warning is None:
            log.info("check_warning_over", check=name)

    @property
    def ready(self) -> bool:
        """Whether no check has a problem."""
        return all(check.problem is None for check in self.checks().values())

    @property
    def stores(self) -> bool:
        """Whether a change could be stored when that was last tried, drained or not."""
        store = self._checks.get("store")
        return store is not None and store.problem is None

    @property
    def draining(self) -> bool:
        """Whether the server is stopping."""
        return self._checks.get(DRAINING, Check()).problem is not None

    def checks(self) -> dict[str, Check]:
        """The latest report on each check, by name; empty before the first report."""
        return self._checks.copy()

    def changed(self) -> asyncio.Future[None]:
        """A future that is done once any check has changed after this call."""
        return asyncio.shield(self._change)

    def _replace(self, name: str, check: Check) -> Check:
        """Puts a report in place and wakes those who wait for a change. Returns the one before."""
        before = self._checks.get(name, Check())
        self._checks[name] = check
        if before != check:
            self._loop.call_soon_threadsafe(self._tell)
        return before

    def _tell(self) -> None:
        self._change.set_result(None)
        self._change = self._loop.create_future()
