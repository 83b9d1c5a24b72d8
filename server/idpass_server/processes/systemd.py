"""What systemd is told of a service of Type=notify or notify-reload: sd_notify(3).

Own code: it is one datagram, and the packages for it are unmaintained or need libsystemd.
"""

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable, Mapping, MutableMapping
from typing import Final, Self

from idpass_server.engine.readiness import Check

TELL_S: Final = 1.0
"""Longest interval between looks at what there is to tell, seconds."""
SEND_S: Final = 0.5
"""Longest wait for systemd to take a message, seconds."""

Checks = Callable[[], Mapping[str, Check]]


class Systemd:
    """The service manager, or nobody: then all methods are no-ops.

    Args:
        address: of its socket, a path or `@` and the name of an abstract socket; None for nobody.
        watchdog_s: time without a sign of life after which it ends the service, seconds; None for
            no such limit.
    """

    def __init__(self, address: str | None = None, watchdog_s: float | None = None) -> None:
        self._address = address
        self._watchdog_s = watchdog_s
        self._status: str | None = None
        self._owed: tuple[str, ...] = ()

    @classmethod
    def of(cls, environment: MutableMapping[str, str]) -> Self:
        """The manager that the environment names, whose variables are removed from it.

        A process that is started with this environment therefore tells nobody anything: only one
        process speaks for the service.
        """
        address = environment.pop("NOTIFY_SOCKET", None)
        timeout_us = environment.pop("WATCHDOG_USEC", "")
        ours = environment.pop("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        watched = ours and timeout_us.isdecimal() and int(timeout_us) > 0
        return cls(address or None, int(timeout_us) / 1e6 if watched else None)

    def environment(self) -> dict[str, str]:
        """The variables by which another process of the service finds the manager."""
        found = {} if self._address is None else {"NOTIFY_SOCKET": self._address}
        if self._watchdog_s is not None:
            found["WATCHDOG_USEC"] = str(round(self._watchdog_s * 1e6))
        return found

    def ready(self, status: str) -> None:
        """The service serves, or has reread its files. Args: status: for people, in one line."""
        self._status = status
        said = ("READY=1", f"STATUS={status}")
        self._owed = () if self._tell(*said) else said

    def reloading(self) -> None:
        """The service rereads its files, and will say when it has."""
        now_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000
        self._tell("RELOADING=1", f"MONOTONIC_USEC={now_us}")

    def stopping(self) -> None:
        """The service has begun to stop."""
        self._tell("STOPPING=1", "STATUS=stopping")
        self._status = "stopping"

    def succeeded_by(self, pid: int, status: str) -> None:
        """Another process is the service from now on. Args: as `ready`; pid: of that process."""
        self._tell(f"MAINPID={pid}", "READY=1", f"STATUS={status}")

    def say(self, status: str) -> None:
        """Says how the service is. Args: as `ready`."""
        if status != self._status and self._tell(f"STATUS={status}"):
            self._status = status

    async def keep_informed(self, serving: str, checks: Checks) -> None:
        """Says what state a service is in that is ready, and that it is alive, until cancelled.

        It runs on the event loop that answers calls: a loop that hangs gives no sign of life. A
        database that cannot be reached is no reason to restart, and is only said.

        Args:
            serving: the status while changes can be stored.
            checks: gives the latest report on each check.
        """
        if self._address is None:
            return
        interval_s = min(TELL_S, (self._watchdog_s or TELL_S) / 3)
        while True:
            if self._owed and self._tell(*self._owed):
                self._owed = ()
            if self._watchdog_s is not None:
                self._tell("WATCHDOG=1")
            if self._status != "stopping":
                problems = [
                    f"{name}: {each.problem}" for name, each in checks().items() if each.problem
                ]
                self.say(f"not ready: {'; '.join(problems)}" if problems else serving)
            await asyncio.sleep(interval_s)

    def _tell(self, *assignments: str) -> bool:
        """Sends a message. Returns false if it was not taken: systemd is gone, stuck or busy."""
        if self._address is None:
            return True
        place = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        message = "\n".join(" ".join(each.splitlines()) for each in assignments)
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
            to.settimeout(SEND_S)
            to.sendto(message.encode(errors="replace"), place)
            return True
        return False
