"""Machines of the tests' own: network namespaces that reach one another through one in the middle.

    tests ── hub ──┬── each node

* The tests, and the servers that they start, are where they always are; routes lead to the nodes.
* A cut drops packets without a word, as a pulled cable does: both ends find out by their timeouts.
* A shell waits for the end of a pipe that this process holds, then kills whatever runs in the
  namespaces and removes them: one way out, taken as well when the tests are killed with SIGKILL.
* Programs run as `postgres`: none of them wants to be root.
"""

import os
import random
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Self

USER: Final = "postgres"
HUB: Final = "hub"
TESTS: Final = 1
"""Last number of the tests' own address."""
END: Final = """
read -r _
folder=$1; shift
for space; do
    while pids=$(ip netns pids "$space") && [ "$pids" ]; do kill -9 $pids; sleep 0.05; done
    ip netns delete "$space"
done
cd / && exec rm -rf "$folder"
"""


class Network:
    """Namespaces with addresses in one network, and a folder that belongs to USER.

    Args:
        hub: last numbers of the addresses of the namespace in the middle.
        nodes: the same, one for each other namespace, by its name.

    Attributes:
        folder: gone again with the network.
        prefix: of every address, such as "198.18.7.".
    """

    def __init__(self, hub: Sequence[int], nodes: Mapping[str, int]) -> None:
        # 198.18.0.0/15 is for benchmarks: no machine has an address there.
        number = random.randrange(256)
        self.prefix = f"198.18.{number}."
        self.folder = Path(tempfile.mkdtemp(prefix="idpass-network-"))
        own = f"idpass{os.getpid()}-{number}-"
        self._spaces = {name: f"{own}{name}" for name in (HUB, *nodes)}
        self._end = subprocess.Popen(
            ["/bin/sh", "-c", END, "sh", str(self.folder), *self._spaces.values()],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,  # Ctrl-C is for the tests, which then close
        )
        try:
            self._make(f"idpass{number}", hub, nodes)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends every program, and removes the namespaces and the folder."""
        self._end.communicate()

    def _make(self, link: str, hub: Sequence[int], nodes: Mapping[str, int]) -> None:
        run("chown", USER, str(self.folder))
        middle = self._spaces[HUB]
        for space in self._spaces.values():
            run("ip", "netns", "add", space)
            run("ip", "-n", space, "link", "set", "lo", "up")
        run("ip", "link", "add", link, "type", "veth", "peer", "name", "tests", "netns", middle)
        run("ip", "address", "add", self.address(TESTS), "dev", link)
        run("ip", "link", "set", link, "up")
        run("ip", "-n", middle, "link", "set", "tests", "up")
        for number in hub:
            run("ip", "-n", middle, "address", "add", self.address(number), "dev", "tests")
        run("ip", "-n", middle, "route", "add", self.address(TESTS), "dev", "tests")
        run("ip", "netns", "exec", middle, "sysctl", "-qw", "net.ipv4.ip_forward=1")
        gateway = self.address(hub[0])
        run("ip", "route", "add", gateway, "dev", link)
        run("ip", "route", "add", f"{self.prefix}0/24", "via", gateway)
        for name, number in nodes.items():
            inside = ("ip", "-n", self._spaces[name])
            run(
                *inside,
                "link",
                "add",
                "eth0",
                "type",
                "veth",
                "peer",
                "name",
                name,
                "netns",
                middle,
            )
            run(*inside, "address", "add", self.address(number), "dev", "eth0")
            run(*inside, "link", "set", "eth0", "up")
            run("ip", "-n", middle, "link", "set", name, "up")
            run("ip", "-n", middle, "route", "add", self.address(number), "dev", name)
            run(*inside, "route", "add", gateway, "dev", "eth0")
            run(*inside, "route", "add", "default", "via", gateway)

    def address(self, number: int) -> str:
        """An address by its last number."""
        return f"{self.prefix}{number}"

    def start(
        self, space: str, *command: str | Path, env: Mapping[str, str] | None = None
    ) -> "subprocess.Popen[bytes]":
        """Starts a program in a namespace, its output at the end of a log in the folder."""
        with (self.folder / f"{space}-{Path(command[0]).name}.log").open("ab") as log:
            return subprocess.Popen(
                [*self._in(space), *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=os.environ | (env or {}),
                start_new_session=True,
            )

    def run(self, space: str, *command: str | Path, env: Mapping[str, str] | None = None) -> str:
        """Runs a program in a namespace to its end. Returns what it printed."""
        return run(*self._in(space), *map(str, command), env=env)

    def _in(self, space: str) -> list[str]:
        into = ["ip", "netns", "exec", self._spaces[space]]
        return [*into, "setpriv", f"--reuid={USER}", f"--regid={USER}", "--init-groups"]

    def signal(self, space: str, program: str, number: signal.Signals) -> int:
        """Sends a signal to every process of a program, the oldest first. Returns how many."""
        count = 0
        for pid in run("ip", "netns", "pids", self._spaces[space]).split():
            try:
                if Path(f"/proc/{pid}/comm").read_text().strip() == program:
                    os.kill(int(pid), number)
                    count += 1
            except (FileNotFoundError, ProcessLookupError):
                continue
        return count

    def cut(self, number: int, *others: int) -> None:
        """Drops what goes from or to an address, or between it and others."""
        hub = ("ip", "-n", self._spaces[HUB], "rule", "add")
        one = self.address(number)
        if not others:
            run(*hub, "from", one, "blackhole")
            run(*hub, "to", one, "blackhole")
        for other in map(self.address, others):
            run(*hub, "from", one, "to", other, "blackhole")
            run(*hub, "from", other, "to", one, "blackhole")

    def heal(self) -> None:
        """Undoes every cut."""
        hub = ("ip", "-n", self._spaces[HUB], "rule")
        for line in run(*hub, "list").splitlines():
            if line.endswith("blackhole"):
                run(*hub, "delete", "priority", line.partition(":")[0])


def run(*command: str, env: Mapping[str, str] | None = None) -> str:
    """Runs a program to its end. Returns what it printed.

    Raises:
        RuntimeError: it failed; with what it said.
    """
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=os.environ | (env or {}),
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.returncode} {done.stdout}{done.stderr}")
    return done.stdout
