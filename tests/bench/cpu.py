"""Processor time: of processes, of their threads, and of everything else on the machine."""

import os
import re
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
MAIN: Final = "main"


class Usage(NamedTuple):
    """Processor time so far, in user and kernel mode, seconds."""

    server_s: float
    """Of the server and of all that it started."""
    threads_s: Mapping[str, float]
    """Of the server's threads that live, by name. Those with the same name count together."""
    beside_s: float
    """Of what the server calls in turn, such as a database."""
    callers_s: float
    """Of this process."""
    machine_s: float
    """Of everything that runs on this machine."""

    @property
    def others_s(self) -> float:
        """Of whatever has no part in what is measured."""
        return self.machine_s - self.server_s - self.beside_s - self.callers_s


def usage(pid: int, beside_s: Callable[[], float]) -> Usage:
    """
    Args:
        pid: of the server.
        beside_s: gives the processor time of what the server calls in turn.
    """
    threads: defaultdict[str, float] = defaultdict(float)
    _count_threads(pid, threads)
    return Usage(cpu_s(pid), threads, beside_s(), time.process_time(), machine_s())


def cpu_s(pid: int) -> float:
    """Processor time so far of a process and of all that it started, in user and kernel mode."""
    try:
        # The number that clock_getcpuclockid(3) gives: nanoseconds, where stat has ticks.
        own_s = time.clock_gettime(~pid << 3 | 2)
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0.0  # it has ended, and counts with its parent's children
    # The fields after the name, which may hold anything, count from the third. These are the time
    # in user and kernel mode of its children that have ended.
    ended_s = sum(map(int, stat.rpartition(")")[2].split()[13:15])) / _TICKS_PER_S
    return own_s + ended_s + sum(map(cpu_s, _children(pid)))


def _count_threads(pid: int, threads: defaultdict[str, float]) -> None:
    for task in Path(f"/proc/{pid}/task").glob("*"):
        try:
            name = (task / "comm").read_text().strip()
            ran_ns = int((task / "schedstat").read_text().split()[0])
        except OSError:
            continue  # it has ended
        numbered = re.sub(r"[-_ ]?\d+$", "", name)
        threads[MAIN if task.name == str(pid) else numbered] += ran_ns / 1e9
    for child in _children(pid):
        _count_threads(child, threads)


def _children(pid: int) -> list[int]:
    children: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children += map(int, path.read_text().split())
        except OSError:
            continue  # the thread has ended
    return children


def machine_s() -> float:
    """Processor time so far that this machine's processes, its kernel and its hypervisor took."""
    total = Path("/proc/stat").read_text().partition("\n")[0].split()[1:]
    user, nice, system, _idle, _waiting, *interrupts_and_stolen = map(int, total[:8])
    return (user + nice + system + sum(interrupts_and_stolen)) / _TICKS_PER_S
