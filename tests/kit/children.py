"""The processes that a process has started."""

import contextlib
from collections.abc import Iterable
from pathlib import Path


def children(pid: int) -> dict[int, str]:
    """The command lines of its child processes by their ids, oldest first."""
    try:
        listed = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    except OSError:
        return {}
    found = {}
    for child in map(int, listed):
        with contextlib.suppress(OSError):  # it has ended
            line = Path(f"/proc/{child}/cmdline").read_bytes()
            found[child] = line.replace(b"\0", b" ").decode().strip()
    return found


def all_ended(pids: Iterable[int]) -> bool:
    """Whether none of them runs."""
    return not any(map(runs, pids))


def runs(pid: int) -> bool:
    """Whether there is such a process, and it has not ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in {"Z", "X"}
