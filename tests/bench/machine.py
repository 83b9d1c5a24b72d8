"""The machine that is measured on: its name, its disk, and a slower one."""

import os
import platform
import shutil
import statistics
import subprocess
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final

from sqlite_utils import Database

from bench.cpu import machine_s
from bench.load import Round

WRITES: Final = 200
WRITE_BYTES: Final = 8 * 1024
PACKAGES: Final = ("grpcio", "protobuf", "uvloop", "fastapi", "sqlalchemy", "uvicorn")

LOAD_WATCHED_S: Final = 1.0
QUIET_CORES: Final = 0.15
"""What others may take of the processors on a quiet machine, as a number of processors."""


def describe(folder: Path) -> str:
    """Processor, kernel, disk and versions, in a few lines."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    models = [line.partition(":")[2] for line in cpuinfo.splitlines() if "model name" in line]
    model = models[0].strip() if models else platform.machine()
    sqlite = Database(memory=True).execute("SELECT sqlite_version()").fetchone()[0]
    versions = [f"Python {platform.python_version()}", f"SQLite {sqlite}"]
    versions += [f"{package} {version(package)}" for package in PACKAGES]
    synced_us = fdatasync_s(folder) * 1e6
    return (
        f"{model}, {os.cpu_count()} cores, Linux {platform.release()}\n"
        f"disk of {folder.parent}: {_filesystem(folder)}, fdatasync of an appended "
        f"{WRITE_BYTES // 1024} KiB takes {synced_us:.0f} µs\n" + ", ".join(versions)
    )


def load() -> str:
    """What runs on this machine before anything is measured, in a line. Takes a second."""
    before_s, begun_s = machine_s(), time.perf_counter()
    time.sleep(LOAD_WATCHED_S)
    cores = (machine_s() - before_s) / (time.perf_counter() - begun_s)
    judged = "" if cores <= QUIET_CORES else "NOT QUIET: "
    return (
        f"{judged}before the start {cores:.2f} of {os.cpu_count()} cores were busy, "
        f"and the load of the last minute was {os.getloadavg()[0]:.2f}"
    )


def quietness(rounds: Sequence[Round]) -> str:
    """What others took of the processors while rounds were measured, in a line."""
    cores = [one.others_cores for one in rounds]
    told = f"others took {statistics.median(cores):.2f} cores (at most {max(cores):.2f})"
    noisy = sum(each > QUIET_CORES for each in cores)
    if not noisy:
        return f"quiet: {told}"
    where = f"more than {QUIET_CORES} in {noisy} of {len(cores)} rounds"
    return f"NOT QUIET, not to be quoted: {told}, {where}"


def fdatasync_s(folder: Path) -> float:
    """The median time that a small appended write takes to reach the disk."""
    path = folder / "fdatasync"
    content = os.urandom(WRITE_BYTES)
    taken_s = []
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    try:
        for _ in range(WRITES):
            os.write(descriptor, content)
            start_s = time.perf_counter()
            os.fdatasync(descriptor)
            taken_s.append(time.perf_counter() - start_s)
    finally:
        os.close(descriptor)
        path.unlink()
    return statistics.median(taken_s)


def slow_disk(folder: Path, extra_us: int) -> dict[str, str]:
    """The environment of a process whose every fdatasync is to take longer.

    Raises:
        RuntimeError: it cannot be had on this machine; the message says why.
    """
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise RuntimeError("there is no C compiler (cc, gcc, clang)")
    source = Path(__file__).with_name("slow_disk.c")
    library = folder / "slow_disk.so"
    command = [compiler, "-O2", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        raise RuntimeError(f"the compiler failed: {made.stderr.strip()}")
    return {"LD_PRELOAD": str(library), "SLOW_DISK_US": str(extra_us)}


def _filesystem(folder: Path) -> str:
    """The type of the file system that holds a folder; a tmpfs has no disk to wait for."""
    mounts = []
    for line in Path("/proc/mounts").read_text().splitlines():
        _device, where, kind, *_ = line.split()
        if folder.is_relative_to(where):
            mounts.append((len(where), kind))
    return max(mounts)[1] if mounts else "unknown"
