"""A machine whose power can be cut: a Linux kernel of its own, a disk with a cache, a network.

    callers (the tests) ── tap ── eth0 [ user-mode Linux: server, file system ] ── disk

* The kernel is a process (Debian's user-mode-linux), and so are its programs. SIGKILL for all of
  them is the cut: what was in its memory is gone, its page cache too.
* The disk is a network block device with a cache that is lost with the power (network_disk.py):
  those of user-mode Linux do not pass flushes on.
* Programs and Python come from the tests' own root, read only. Only the disk can be written to.
* The server speaks TLS and knows its callers, as it must where others reach it.
"""

import contextlib
import os
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Final, NamedTuple, Self

from kit.certificates import Authority, channel_credentials
from kit.guarded import caller
from kit.network_disk import Cut, NetworkDisk
from kit.paths import KIT
from kit.sectors import POLICIES
from kit.serving import Serving
from kit.witness import Access

MEBIBYTE: Final = 1 << 20
KERNEL: Final = "linux.uml"
MEMORY: Final = "384M"
PORT: Final = 50051
PATIENCE_S: Final = 120.0
DB: Final = "sqlite:////mnt/idpass.db"
PACKAGES: Final = {
    KERNEL: "user-mode-linux",
    "cc": "gcc libc6-dev",
    "ip": "iproute2",
    "setpriv": "util-linux",
    "mkfs.ext4": "e2fsprogs",
    "mkfs.xfs": "xfsprogs",
    "mkfs.btrfs": "btrfs-progs",
}
"""Debian's packages that have the programs that are needed, with each file system's."""
PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
END: Final = """
read -r _
ip link delete "$1"
ip route delete unreachable "$2"
"""


class FileSystem(NamedTuple):
    """What a disk is made and mounted with.

    Args:
        name: of its kind.
        mebibytes: size of the disk; each kind has a least one.
        options: of the mount.
    """

    name: str
    mebibytes: int = 64
    options: str = "defaults"


def missing(file_system: FileSystem) -> str | None:
    """Why no machine can be had here; None if one can.

    Args:
        file_system: of its disk.
    """
    if os.geteuid() or not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return "a machine's network needs root and /dev/net/tun"
    for program, package in PACKAGES.items():
        wanted = not program.startswith("mkfs.") or program == f"mkfs.{file_system.name}"
        if wanted and shutil.which(program) is None:
            return f"no {program} here: apt-get install {package}"
    return None


class Link:
    """A network cable to a machine. Nothing leaves for elsewhere while there is none.

    Attributes:
        device: its end here.
        address: of the machine.
        tests: address of the tests.
    """

    def __init__(self) -> None:
        # 198.18.0.0/15 is for benchmarks; the lower half is network.py's.
        number = random.randrange(256)
        self.device, self.address = f"idpass{number}", f"198.19.{number}.2"
        self.tests = f"198.19.{number}.1"
        prefix = f"198.19.{number}.0/24"
        self._end = subprocess.Popen(
            ["/bin/sh", "-c", END, "sh", self.device, prefix],
            stdin=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the tests, which then close
        )
        try:
            for command in (
                f"route add unreachable {prefix} metric 9999",
                f"tuntap add {self.device} mode tap",
                f"address add {self.tests}/24 dev {self.device}",
                f"link set {self.device} up",
            ):
                subprocess.run(["ip", *command.split()], check=True)
            # Callers are refused at once while the machine is off.
            config = Path(f"/proc/sys/net/ipv4/conf/{self.device}")
            (config / "ignore_routes_with_linkdown").write_text("1")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Removes it."""
        self._end.communicate()


def formatted(scratch: Path, file_system: FileSystem) -> bytes:
    """The content of a disk with an empty file system."""
    image = scratch / "image"
    with image.open("wb") as file:
        file.truncate(file_system.mebibytes * MEBIBYTE)
    subprocess.run([f"mkfs.{file_system.name}", "-q", image], check=True)
    content = image.read_bytes()
    image.unlink()
    return content


class Running(Serving):
    """A machine that runs, and the log of the server on it."""

    patience_s = PATIENCE_S

    def __init__(self, command: tuple[str, ...], options: tuple[str, ...], audit: Path) -> None:
        self.command = command
        self._audit = audit
        super().__init__(DB, *options)

    def audit(self) -> None:
        """Audits the database, beside the server.

        Raises:
            AssertionError: something is wrong; with the log, which says what.
        """
        self._audit.touch()
        done = self.wait_for("audited", PATIENCE_S)
        assert done["code"] == 0, self.log


class Machine:
    """A machine with a disk, off at first.

    Args:
        scratch: folder to be made, for everything.
        file_system: of its disk.
        program: Python that runs idpass-server.
        draw: for what is random.
        policies: of sectors.POLICIES, one of which each cut takes for the disk's cache.

    Attributes:
        disk: that it has.
        address: HOST:PORT of its server.
        access: what callers need.
        cuts: of its power.
    """

    def __init__(
        self,
        scratch: Path,
        file_system: FileSystem,
        program: str,
        draw: random.Random,
        policies: Sequence[str] = POLICIES,
    ) -> None:
        scratch.mkdir()
        self._scratch, self._file_system = scratch.resolve(), file_system
        self._draw, self._policies = draw, policies
        self.cuts: list[Cut] = []
        self.disk = NetworkDisk(formatted(scratch, file_system))
        library, source = scratch / "machine_registers.so", KIT / "machine_registers.c"
        subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
        (scratch / "program.py").write_text(program)
        callers = scratch / "callers.toml"
        callers.write_text(caller("outside", account="demo"))
        self._audit = scratch / "audit"
        self._link = Link()
        self.address = f"{self._link.address}:{PORT}"
        authority = Authority(scratch / "servers")
        pair = authority.issue(self._link.address)
        files = {"--tls-cert": pair.cert, "--tls-key": pair.key, "--callers": callers}
        self._options = (
            "--listen",
            self.address,
            *(str(part) for each in files.items() for part in each),
        )
        self.access = Access(channel_credentials(authority.pem), "outside-token")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._link.close()

    @contextlib.contextmanager
    def on(self) -> Iterator[Running]:
        """Starts the machine and its server. In the end its power is cut."""
        self._audit.unlink(missing_ok=True)
        command = self._command(self.disk.on(self._link.tests))
        try:
            running = Running(command, self._options, self._audit)
            try:
                yield running
            finally:
                running.end()
        finally:
            self._cut()

    def start(self, changes: int) -> None:
        """Cuts the power while the machine starts; when it serves, if the disk is changed no more.

        Args:
            changes: number of writes and flushes, as for NetworkDisk.stop_after.
        """
        self._audit.unlink(missing_ok=True)
        command = self._command(self.disk.on(self._link.tests, changes))
        command = (*command, "serve", "--db", DB, *self._options)
        try:
            with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
                reader = threading.Thread(target=self._until_serving, args=(process.stderr,))
                reader.start()
                stopped = self.disk.stopped.wait(PATIENCE_S)
                process.kill()
                reader.join()
            assert stopped
        finally:
            self._cut()

    def _until_serving(self, log: IO[bytes]) -> None:
        for line in log:
            if b'"serving"' in line:
                self.disk.stopped.set()

    def _cut(self) -> None:
        self.cuts.append(self.disk.off(self._draw.choice(self._policies), self._draw))

    def _command(self, port: int) -> tuple[str, ...]:
        settings = {
            "mem": MEMORY,
            "uml_dir": self._scratch,
            "root": "/dev/root",
            "rootfstype": "hostfs",
            "rootflags": "/",
            "init": "/bin/sh",
            "con": "null",
            "con0": "null,fd:2",
            "eth0": f"tuntap,{self._link.device}",
            "ADDRESS": f"{self._link.address}/24",
            "DISK": f'"{self._link.tests} {port} {self.disk.size}"',
            "FILESYSTEM": self._file_system.name,
            "MOUNTED": self._file_system.options,
            "PYTHON": sys.executable,
            "PROGRAM": self._scratch / "program.py",
            "DB": DB,
            "AUDIT": self._audit,
            "PATH": PATH,
        }
        return (
            # Whoever kills the first process of a pid namespace kills all that are in it; so does
            # the end of the tests.
            *("setpriv", "--pdeathsig", "KILL"),
            *("unshare", "--pid", "--fork", "--kill-child"),
            *("env", f"LD_PRELOAD={self._scratch}/machine_registers.so", KERNEL),
            *(f"{name}={value}" for name, value in settings.items()),
            *("ro", "quiet", "--", str(KIT / "machine.sh")),
        )
