"""Promise: OK means on disk, and a full disk is told as such, until there is room again.

Means: a PostgreSQL whose tablespace is on a small file system that something else fills: changes
and checks are refused with its reason, and taken with room again. The audit is clean. The same for
SQLite is in store/test_durability.

Blind spots: a full disk under PostgreSQL's own WAL, which stops PostgreSQL itself; where the tests
may not mount a file system it is skipped.
"""

import contextlib
import os
import pwd
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from idpass_server.ids import new_uuid
from idpass_server.rules.commands import Register, Registered
from idpass_server.rules.refusals import StoreUnavailable
from idpass_server.store.opening import migrate_store
from idpass_server.store.postgres.store import PostgresStore
from kit.postgres import UNPRIVILEGED, Postgres
from kit.support import problems


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of 20 MB, for a tablespace, where PostgreSQL's user may get to."""
    folder = Path(tempfile.mkdtemp(prefix="idpass-small-disk-"))
    folder.chmod(0o711)
    mount = ["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        folder.rmdir()
        pytest.skip("needs the right to mount")
    user = pwd.getpwnam(UNPRIVILEGED)
    try:
        (folder / "data").mkdir(mode=0o700)
        os.chown(folder / "data", user.pw_uid, user.pw_gid)
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)
        folder.rmdir()


def register() -> Register:
    return Register("demo", "tests", new_uuid(), None, new_uuid())


def fill(path: Path) -> None:
    """Writes a file until the disk is full."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass


def commit_until_refused(store: PostgresStore) -> StoreUnavailable:
    while True:
        try:
            store.commit([register() for _ in range(100)], 1)
        except StoreUnavailable as refusal:
            assert "disk is full; nothing was changed" in str(refusal)
            return refusal


def test_a_full_disk_is_told_until_there_is_room(small_disk: Path) -> None:
    with Postgres() as own:
        own.execute(f"CREATE TABLESPACE small LOCATION '{small_disk}/data'")
        own.execute("CREATE DATABASE idpass TABLESPACE small")
        url = own.url("idpass")
        migrate_store(url)
        with closing(PostgresStore(url)) as store:
            store.check()
            ballast = small_disk / "ballast"
            fill(ballast)
            cause = commit_until_refused(store).__cause__
            assert "SQLSTATE 53100" in str(cause)
            for _ in range(2):
                with pytest.raises(StoreUnavailable, match="disk is full"):
                    store.check()
            ballast.unlink()
            store.check()
            assert isinstance(store.commit([register()], 1).outcomes[0], Registered)
        assert problems(url) == []
