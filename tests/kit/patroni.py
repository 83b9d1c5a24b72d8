"""PostgreSQL as it is run for high availability: three nodes kept by Patroni and etcd, HAProxy and
PgBouncer in front, each with the file of server/deploy/postgresql.

The files are used as they stand, but for the network, and for places of a test's own. There is no
watchdog here: killing Patroni would restart the machine.

PostgreSQL, etcd, the poolers, and what Patroni imports are the system's packages; Patroni itself is
the one that the tests require, copied to where USER may read it.
"""

import base64
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Self

import httpx
import psycopg

from kit.network import HUB, USER, Network, run
from kit.paths import ROOT

FILES: Final = ROOT / "server/deploy/postgresql"
PREFIX: Final = "192.0.2."
"""Of every address in the files."""
NODES: Final = {"pg1": 11, "pg2": 12, "pg3": 13}
POOLERS: Final = 20
ETCD: Final = {"etcd1": 21, "etcd2": 22, "etcd3": 23}
PASSWORD: Final = "secret"
WAIT_S: Final = 90.0
PROGRAMS: Final = ("ip", "setpriv", "patroni", "etcd", "haproxy", "pgbouncer")
PYTHON: Final = "/usr/bin/python3"
PATRONICTL: Final = "from patroni.ctl import ctl; ctl()"
RESTARTED: Final = 'while :; do /usr/sbin/pgbouncer "$0"; sleep 1; done'
"""As pgbouncer-restart.conf has it."""
WAYS: Final = ("several hosts", "HAProxy", "PgBouncer")
"""The ways in."""


def missing() -> str | None:
    """Why no stack can be made on this machine; None if it can."""
    if os.geteuid() != 0:
        return "network namespaces are made by root only"
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    absent = [each for each in PROGRAMS if shutil.which(each, path=path) is None]
    if _postgres() is None:
        absent.append("PostgreSQL in /usr/lib/postgresql")
    if absent:
        return f"not installed: {', '.join(absent)}"
    try:
        run("ip", "netns", "add", f"idpass{os.getpid()}")
        run("ip", "netns", "delete", f"idpass{os.getpid()}")
    except RuntimeError as error:
        return f"no network namespaces here: {error}"
    return None


def _postgres() -> Path | None:
    return next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)


class Stack:
    """A running cluster with an empty database `idpass`, whose owner `idpass` is.

    Args:
        synchronous: false for a cluster that may lose what it has acknowledged.
    """

    def __init__(self, *, synchronous: bool = True) -> None:
        self.network = Network([POOLERS, *ETCD.values()], NODES)
        self._synchronous = synchronous
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        try:
            self._write_files()
            for name in ETCD:
                self.start(name)
            self.start("pg1")
            self.wait(lambda: self.is_primary("pg1"))
            for name in ("pg2", "pg3", "haproxy", "pgbouncer"):
                self.start(name)
            with psycopg.connect(self._url("pg1"), autocommit=True) as connection:
                self.wait_until_settled()
                connection.execute(f"CREATE ROLE idpass LOGIN PASSWORD '{PASSWORD}'")
                connection.execute("CREATE DATABASE idpass OWNER idpass")
        except BaseException as error:
            error.add_note(self.logs())
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends everything."""
        self.network.close()
        for process in self._running.values():
            process.wait()

    def logs(self) -> str:
        """The ends of all logs."""
        logs = sorted(self.network.folder.glob("*.log"))
        return "\n".join(f"{log.name}:\n{log.read_text()[-3_000:]}" for log in logs)

    def _write_files(self) -> None:
        folder = self.network.folder
        changes = {
            PREFIX: self.network.prefix,
            "mode: automatic": 'mode: "off"',
            "/etc/pgbouncer": str(folder),
        }
        if not self._synchronous:
            # A standby takes over however far behind it is: the more is lost, the better.
            changes |= {
                "synchronous_mode: true": "synchronous_mode: false\n"
                f"    maximum_lag_on_failover: {2**40}"
            }
        for file in FILES.iterdir():
            text = file.read_text()
            for written, meant in changes.items():
                text = text.replace(written, meant)
            (folder / file.name).write_text(text)
        patroni = (folder / "patroni.yml").read_text()
        for name in NODES:
            sockets = folder / f"{name}-sockets"
            sockets.mkdir()
            shutil.chown(sockets, USER)
            text = patroni.replace("/var/run/postgresql", str(sockets))
            (folder / f"{name}.yml").write_text(text)
        found = importlib.util.find_spec("patroni")
        assert found is not None
        assert found.origin is not None
        shutil.copytree(Path(found.origin).parent, folder / "python/patroni")
        (folder / "userlist.txt").write_text(f'"idpass" "{PASSWORD}"\n')

    def start(self, name: str) -> None:
        """Starts a node's Patroni, a member of etcd, or a pooler."""
        folder = self.network.folder
        if name in NODES:
            command: list[str | Path] = [PYTHON, "-m", "patroni", folder / f"{name}.yml"]
        elif name in ETCD:
            command = self._etcd(name)
        elif name == "haproxy":
            command = ["/usr/sbin/haproxy", "-db", "-f", folder / "haproxy.cfg"]
        else:
            command = ["/bin/sh", "-c", RESTARTED, folder / "pgbouncer.ini"]
        space = name if name in NODES else HUB
        self._running[name] = self.network.start(space, *command, env=self._env(name))

    def _env(self, name: str) -> dict[str, str]:
        if name not in NODES:
            return {}
        address = self.network.address(NODES[name])
        return {
            "PYTHONPATH": str(self.network.folder / "python"),
            "PATRONI_NAME": name,
            "PATRONI_RESTAPI_LISTEN": f"{address}:8008",
            "PATRONI_RESTAPI_CONNECT_ADDRESS": f"{address}:8008",
            "PATRONI_POSTGRESQL_LISTEN": f"{address}:5432",
            "PATRONI_POSTGRESQL_CONNECT_ADDRESS": f"{address}:5432",
            "PATRONI_POSTGRESQL_DATA_DIR": str(self.network.folder / name),
            "PATRONI_POSTGRESQL_BIN_DIR": str(_postgres()),
            "PATRONI_POSTGRESQL_PGPASS": str(self.network.folder / f"{name}.pgpass"),
            "PATRONI_SUPERUSER_PASSWORD": PASSWORD,
            "PATRONI_REPLICATION_PASSWORD": PASSWORD,
        }

    def _etcd(self, name: str) -> list[str | Path]:
        at = {each: f"http://{self.network.address(number)}" for each, number in ETCD.items()}
        options = {
            "name": name,
            "data-dir": str(self.network.folder / name),
            "listen-client-urls": f"{at[name]}:2379",
            "advertise-client-urls": f"{at[name]}:2379",
            "listen-peer-urls": f"{at[name]}:2380",
            "initial-advertise-peer-urls": f"{at[name]}:2380",
            "initial-cluster": ",".join(f"{each}={url}:2380" for each, url in at.items()),
            # A machine with other work is no reason for an election, which renews every lease.
            "heartbeat-interval": "500",
            "election-timeout": "5000",
        }
        return ["etcd", *(f"--{option}={value}" for option, value in options.items())]

    def kill(self, name: str) -> None:
        """Kills what `start` started, and nothing else; PgBouncer is then started again."""
        if name == "pgbouncer":
            self.network.signal(HUB, name, signal.SIGKILL)
            return
        process = self._running.pop(name)
        process.kill()
        process.wait()

    def signal_postgres(self, name: str, number: signal.Signals) -> None:
        """Sends a signal to every process of a node's PostgreSQL."""
        assert self.network.signal(name, "postgres", number)

    def signal_etcd(self, number: signal.Signals) -> None:
        """Sends a signal to all of etcd."""
        assert self.network.signal(HUB, "etcd", number) == len(ETCD)

    def end_lease(self) -> None:
        """Takes the primary's lease away, as etcd does when it has not been renewed."""
        key = base64.b64encode(b"/service/idpass/leader").decode()
        etcd = f"http://{self.network.address(next(iter(ETCD.values())))}:2379"
        answer = httpx.post(f"{etcd}/v3/kv/deleterange", json={"key": key}, trust_env=False)
        assert answer.json()["deleted"] == "1"

    def patronictl(self, *command: str) -> None:
        """Runs patronictl, as an operator would."""
        words = (PYTHON, "-c", PATRONICTL, "-c", f"{self.network.folder}/patroni.yml", *command)
        env = {"LC_ALL": "C.UTF-8", "PYTHONPATH": str(self.network.folder / "python")}
        self.network.run(HUB, *words, env=env)

    def url(self, way: str) -> str:
        """The service's URL of the database, by a way in."""
        hosts = ",".join(f"{self.network.address(number)}:5432" for number in NODES.values())
        pooler = self.network.address(POOLERS)
        at = {"several hosts": hosts, "HAProxy": f"{pooler}:5000", "PgBouncer": f"{pooler}:6432"}
        return f"postgresql://idpass:{PASSWORD}@{at[way]}/idpass?target_session_attrs=read-write"

    def _url(self, name: str) -> str:
        address = self.network.address(NODES[name])
        return f"postgresql://{USER}:{PASSWORD}@{address}:5432/postgres"

    def _ask(self, name: str, page: str) -> httpx.Response | None:
        url = f"http://{self.network.address(NODES[name])}:8008/{page}"
        try:
            return httpx.get(url, timeout=1, trust_env=False)
        except httpx.HTTPError:
            return None

    def is_primary(self, name: str) -> bool:
        """Whether a node's Patroni says that it is the primary."""
        answer = self._ask(name, "primary")
        return answer is not None and answer.status_code == 200

    def primary(self, other_than: str | None = None) -> str:
        """The primary, once there is one; other than a former one."""
        found: list[str] = []

        def look() -> bool:
            found[:] = [name for name in NODES if name != other_than and self.is_primary(name)]
            return bool(found)

        self.wait(look)
        return found[0]

    def members(self) -> dict[str, Any]:
        """What the nodes are, by name; {} while no node tells."""
        for name in NODES:
            answer = self._ask(name, "cluster")
            if answer is not None and answer.status_code == 200:
                return {each["name"]: each for each in answer.json()["members"]}
        return {}

    def standby(self) -> str:
        """A standby, the synchronous one if there is one."""
        members = sorted(self.members().values(), key=lambda each: each["role"] != "sync_standby")
        return next(str(each["name"]) for each in members if each["role"] != "leader")

    def wait_until_settled(self) -> None:
        """Waits for one primary that every other node follows."""
        self.wait(self._is_settled)

    def _is_settled(self) -> bool:
        members = self.members().values()
        roles = sorted(each["role"] for each in members)
        standbys = ["replica", "sync_standby"] if self._synchronous else ["replica", "replica"]
        return (
            roles == ["leader", *standbys]
            and {each["state"] for each in members} <= {"running", "streaming"}
            and len({each.get("timeline") for each in members}) == 1
        )

    def wait(self, condition: Callable[[], bool]) -> None:
        """Waits for a condition."""
        deadline_s = time.monotonic() + WAIT_S
        while not condition():
            if time.monotonic() > deadline_s:
                raise AssertionError(f"{json.dumps(self.members())}\n{self.logs()}")
            time.sleep(0.1)
