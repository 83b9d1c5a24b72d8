"""Runs a command as a systemd unit would confine it, where no systemd runs.

    python confined.py UNIT COMMAND...

The unit's SystemCallFilter= and MemoryDenyWriteExecute= are applied by the kernel, and then the
command takes this process's place. What a unit restricts by mounts and users is not.
"""

import ctypes
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

PR_SET_NO_NEW_PRIVS: Final = 38
PR_SET_MDWE: Final = 65
ALLOW: Final = 0x7FFF0000
REFUSE: Final = 0x00050000 | 1
"""EPERM."""


def allowed(unit: str) -> set[str]:
    """The system calls that a unit allows: what its lines add and, after a ~, take away."""
    calls = _members("@default")
    for line in unit.splitlines():
        name, _, value = line.partition("=")
        if name == "SystemCallFilter":
            listed = set().union(*map(_members, value.removeprefix("~").split()))
            calls = calls - listed if value.startswith("~") else calls | listed
    return calls


def _members(name: str) -> set[str]:
    if not name.startswith("@"):
        return {name}
    command = ["systemd-analyze", "syscall-filter", name]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    lines = [line.strip() for line in told.splitlines()[1:]]
    return set().union(*(_members(line) for line in lines if line and not line.startswith("#")))


def confine(unit: str) -> None:
    """Confines this process and all that it becomes."""
    libc, seccomp = ctypes.CDLL(None), ctypes.CDLL("libseccomp.so.2")
    seccomp.seccomp_init.restype = ctypes.c_void_p
    calls = allowed(unit)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if "MemoryDenyWriteExecute=yes" in unit:
        libc.prctl(PR_SET_MDWE, 1, 0, 0, 0)  # an older kernel knows it not
    filtering = ctypes.c_void_p(seccomp.seccomp_init(ctypes.c_uint32(REFUSE)))
    for call in calls:
        number = seccomp.seccomp_syscall_resolve_name(call.encode())
        if number >= 0:
            seccomp.seccomp_rule_add(filtering, ctypes.c_uint32(ALLOW), number, 0)
    if seccomp.seccomp_load(filtering):
        raise OSError("the filter was not taken")


if __name__ == "__main__":
    confine(Path(sys.argv[1]).read_text())
    os.execvp(sys.argv[2], sys.argv[2:])
