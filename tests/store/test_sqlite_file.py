"""The SQLite file: the one that was opened, this service's alone, and on disk before an answer."""

import contextlib
import errno
import fcntl
import functools
import os
import shutil
import stat
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from idpass.v1.id_pass_service_pb2 import CancelRequest
from idpass_server.ids import new_uuid
from idpass_server.rules.commands import Register
from idpass_server.rules.refusals import StoreUnavailable
from idpass_server.store import CannotOpen, StoreBroken, opening
from idpass_server.store.observing import StoreObserver
from idpass_server.store.sqlite import checkpoints
from idpass_server.store.sqlite import opening as sqlite_opening
from idpass_server.store.sqlite.file import connect, sqlite3
from idpass_server.store.sqlite.hold import _FLOCK, _INODE_LOCK
from idpass_server.store.sqlite.paths import Names
from idpass_server.store.sqlite.store import SqliteStore
from idpass_server.store.sqlite.wal import settle
from kit.paths import KIT
from kit.serving import url_of
from kit.support import Told, cli, problems, process, refused, told

CALLERS = """
[callers.ann]
account = "demo"
permissions = ["read"]
token_sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
"""


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "idpass.db"


def beside(db: Path, suffix: str) -> Path:
    return db.with_name(db.name + suffix)


def other_database(db: Path) -> Path:
    """Another database of this service, in a folder of its own."""
    other = db.with_name("other") / db.name
    other.parent.mkdir()
    opening.make_store(url_of(other))
    return other


def start(db: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    """A start that does not come to serving."""
    return cli("serve", "--listen", "127.0.0.1:0", "--db", url_of(db), *options)


def killed(db: Path, *, passes: int = 30) -> None:
    """A database whose server was killed, with a WAL that is not in the file."""
    with process(db) as server:
        for number in range(passes):
            server.register(request_id=f"r-{number}")
        server.process.kill()
        server.wait()


# -- the file is the one that was opened


def delete(db: Path) -> None:
    db.unlink()


def rename(db: Path) -> None:
    db.rename(db.with_name("elsewhere.db"))


def replace(db: Path) -> None:
    other_database(db).replace(db)


def replace_with_its_wal(db: Path) -> None:
    beside(db, "-wal").unlink()
    beside(db, "-wal").write_bytes(b"somebody's")
    replace(db)


def delete_the_wal(db: Path) -> None:
    beside(db, "-wal").unlink()


def replace_the_wal(db: Path) -> None:
    delete_the_wal(db)
    beside(db, "-wal").write_bytes(b"somebody's")


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes()
        for path in folder.iterdir()
        if path.is_file() and not path.name.endswith((".lock", "-shm"))
    }


@pytest.mark.parametrize(
    "change",
    [delete, rename, replace, replace_with_its_wal, delete_the_wal, replace_the_wal],
)
def test_a_file_that_its_path_no_longer_leads_to_is_not_served(
    db: Path, change: Callable[[Path], None]
) -> None:
    with process(db) as server:
        pass_id = server.register().id_pass.id
        change(db)
        there = contents(db.parent)
        error = refused(lambda: server.cancel(pass_id))
        assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
        assert server.wait() == 74
        line = server.wait_for("store_broken")
        assert "gone" in line["error"] or "another file" in line["error"]
    assert contents(db.parent) == there


def test_a_link_that_is_made_to_lead_elsewhere_ends_the_service(db: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.db"
    link.symlink_to(db)
    opening.make_store(url_of(db))
    with process(link) as server:
        server.register()
        (tmp_path / "new").symlink_to(other_database(db))
        (tmp_path / "new").replace(link)
        assert refused(server.register).reason == "STORE_UNAVAILABLE"
        assert server.wait() == 74


def test_a_reader_never_opens_another_file_than_the_writer(db: Path) -> None:
    store = SqliteStore(db)
    replace(db)
    with pytest.raises(StoreBroken, match="another file"):
        store.get_account("demo")
    with pytest.raises(StoreBroken, match="another file"):
        store.check()
    store.close()


def test_a_file_that_is_replaced_during_a_commit_is_noticed_before_and_after_it(
    db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SqliteStore(db)
    looks: tuple[list[str | None], ...] = (["is gone"], [None, "is gone"])
    for stored, found in enumerate(looks):  # before the commit, and after it
        answers = iter(found)
        monkeypatch.setattr(store._identity, "changed", lambda: next(answers))  # noqa: B023 called now
        with pytest.raises(StoreBroken, match="is gone") as caught:
            store.commit([Register("demo", "tests", new_uuid(), None, new_uuid())], 1)
        assert caught.value.outcome_unknown is bool(stored)
        assert list(answers) == []
        monkeypatch.undo()
        account = store.get_account("demo")
        assert account is not None
        assert account.slots_in_use == stored
    store.close()


def test_a_reader_changes_nothing(db: Path) -> None:
    store = SqliteStore(db)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        store._reader.execute("UPDATE accounts SET slot_limit = 1")
    store.close()


# -- one process, by whatever name


def test_a_file_with_a_second_name_is_refused(db: Path) -> None:
    opening.make_store(url_of(db))
    db.with_name("second.db").hardlink_to(db)
    done = start(db)
    assert done.returncode == 1
    assert "2 names (hard links)" in done.stderr


def test_one_file_is_served_once_by_two_names(db: Path, tmp_path: Path) -> None:
    opening.make_store(url_of(db))
    second = tmp_path / "second" / "b.db"
    second.parent.mkdir()
    second.touch()
    if subprocess.run(["mount", "--bind", db, second], check=False).returncode:
        pytest.skip("a file can be mounted under a second name by root only")
    try:
        with process(db) as server:
            done = start(second)
            assert done.returncode == 1
            assert "under another name" in done.stderr
            server.register()
    finally:
        subprocess.run(["umount", second], check=True)


def test_a_reader_of_the_file_cannot_keep_the_service_from_starting(db: Path) -> None:
    opening.make_store(url_of(db))
    with db.open("rb") as reader:
        wanted = _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, *_INODE_LOCK, 0)
        fcntl.fcntl(reader, fcntl.F_OFD_SETLK, wanted)
        fcntl.flock(reader, fcntl.LOCK_EX)
        with process(db) as server:
            server.register()
            assert stat.S_IMODE(beside(db, ".lock").stat().st_mode) == 0o600


def test_a_lock_that_is_a_link_is_refused_and_what_it_leads_to_is_left(
    db: Path, tmp_path: Path
) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    beside(db, ".lock").symlink_to(precious)
    done = start(db)
    assert done.returncode == 1
    assert "symbolic link" in done.stderr
    assert precious.read_text() == "mine"


# -- who else may read and write


@contextlib.contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def modes(folder: Path) -> set[str]:
    return {f"{stat.S_IMODE(path.stat().st_mode):04o}" for path in folder.iterdir()}


def test_whatever_is_made_is_this_users_alone(db: Path) -> None:
    with umask(0), process(db) as server:
        server.register()
        assert modes(db.parent) == {"0600"}


@pytest.mark.parametrize("suffix", ["", "-wal", ".lock"])
def test_files_that_others_can_write_are_refused(db: Path, suffix: str) -> None:
    killed(db)
    beside(db, suffix).chmod(0o606)
    done = start(db)
    assert done.returncode == 1
    assert f"others can write to {beside(db, suffix)} (mode 0606)" in done.stderr
    assert "chmod go-w" in done.stderr


def test_a_file_that_others_can_read_is_warned_of(db: Path) -> None:
    opening.make_store(url_of(db))
    db.chmod(0o644)
    with process(db) as server:
        assert server.wait_for("open_to_others")["path"] == str(db)
        server.register()
    done = cli("account", "show", "demo", "--db", url_of(db))
    assert done.stdout.startswith("account        demo")
    assert "open_to_others" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can lose the right to write like that")
def test_a_read_only_file_is_refused_at_the_start(db: Path) -> None:
    opening.make_store(url_of(db))
    if subprocess.run(["chattr", "+i", db], check=False).returncode:
        pytest.skip("this file system knows no immutable files")
    try:
        done = start(db)
    finally:
        subprocess.run(["chattr", "-i", db], check=True)
    assert done.returncode == 1
    assert f"{db} cannot be written" in done.stderr


# -- a file that is not there


def test_in_production_a_missing_database_is_refused_and_said_where_it_was_looked_for(
    db: Path, tmp_path: Path
) -> None:
    callers = tmp_path / "callers.toml"
    callers.write_text(CALLERS)
    done = cli(
        *("serve", "--listen", "127.0.0.1:0", "--db", "sqlite:///idpass.db"),
        *("--callers", str(callers)),
        cwd=tmp_path,
    )
    assert done.returncode == 1
    assert f"there is no database {db}" in done.stderr
    assert f"idpass-server init --db sqlite:///{db}" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["callers.toml"]

    db.touch(mode=0o600)
    done = start(db, "--callers", str(callers))
    assert done.returncode == 1
    assert "is an empty file" in done.stderr
    db.unlink()

    with process(db, "--callers", str(callers), "--create") as server:
        assert server.wait_for("database_made")["path"] == str(db)
    with process(db, "--callers", str(callers)) as server:
        assert not any(line["event"] == "database_made" for line in server.log)


def test_a_database_is_made_by_init_once(db: Path) -> None:
    done = cli("init", "--db", url_of(db))
    assert done.returncode == 0, done.stderr
    done = cli("init", "--db", url_of(db))
    assert done.returncode == 1
    assert f"{db} exists" in done.stderr
    assert problems(db) == []


@pytest.mark.parametrize(
    "command",
    [
        ("account", "create", "acme", "--slots", "9", "--fee", "AUD 1"),
        ("account", "show", "demo"),
        ("account", "set", "demo", "--slots", "9"),
        ("migrate",),
        ("migrate", "--plan"),
        ("audit",),
    ],
)
def test_no_other_command_makes_a_database(db: Path, command: tuple[str, ...]) -> None:
    done = cli(*command, "--db", url_of(db))
    assert done.returncode == 1
    assert f"there is no database {db}" in done.stderr
    assert not list(db.parent.iterdir())


# -- on disk before it is answered


@pytest.fixture
def recorded_disk(tmp_path: Path) -> tuple[dict[str, str], Path, Path]:
    """The environment of a process whose writes and syncs are recorded, the record, and a file
    that has the process killed instead of a sync while it exists."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("a C compiler is needed to record what is written")
    folder = tmp_path / "disk"
    folder.mkdir()
    library, record, trigger = (folder / name for name in ("disk.so", "record", "kill"))
    source = KIT / "recorded_disk.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    environment = {
        "LD_PRELOAD": str(library),
        "RECORDED_DISK": str(record),
        "KILLING_DISK": str(trigger),
    }
    return environment, record, trigger


def cut_off_in_its_sync(db: Path, environment: dict[str, str], trigger: Path) -> None:
    """A commit that is written and not synced: its server is killed in between."""
    with process(db, env=environment) as server:
        pass_id = server.register(request_id="r").id_pass.id
        trigger.touch()
        with pytest.raises(grpc.RpcError):
            server.cancel(pass_id, request_id="c")
        server.wait()
    trigger.unlink()


def assert_settled(record: Path, db: Path) -> None:
    """The WAL was written again and synced before the database was written, and that was synced."""
    steps = record.read_text().splitlines()
    wal, file = str(beside(db, "-wal")), str(db)
    written = steps.index(f"write {wal}")
    synced = steps.index(f"sync {wal}", written)
    copied = steps.index(f"write {file}")
    assert written < synced < copied
    assert f"sync {file}" in steps[copied:]


@pytest.mark.parametrize(
    "way_in",
    [
        ("serve",),
        ("migrate",),
        ("account", "set", "demo", "--slots", "1000"),
        ("account", "show", "demo"),
    ],
)
def test_what_a_killed_server_did_not_sync_is_on_disk_before_it_is_answered(
    db: Path, recorded_disk: tuple[dict[str, str], Path, Path], way_in: tuple[str, ...]
) -> None:
    environment, record, trigger = recorded_disk
    cut_off_in_its_sync(db, environment, trigger)
    record.unlink()
    if way_in == ("serve",):
        with process(db, env=environment) as server:
            assert_settled(record, db)
            again = server.cancel(server.list_all()[0].id, request_id="c")
            assert again.replayed
            assert again.fee_refunded
    else:
        done = cli(*way_in, "--db", url_of(db), env=environment)
        assert done.returncode == 0, done.stderr
        assert_settled(record, db)


def test_a_wal_that_cannot_be_folded_is_written_again_and_synced_all_the_same(
    db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SqliteStore(db)
    reader = sqlite3.connect(db, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM accounts").fetchall()
    store.set_account("demo", slot_limit=9)
    steps: list[tuple[str, str]] = []

    def recorded(name: str, do: Callable[..., Any], descriptor: int, *rest: Any) -> Any:
        steps.append((name, str(Path(f"/proc/self/fd/{descriptor}").readlink())))
        return do(descriptor, *rest)

    for name in ("pwrite", "fsync"):
        monkeypatch.setattr(os, name, functools.partial(recorded, name, getattr(os, name)))
    store._writer.execute("PRAGMA busy_timeout = 0")
    settle(store._writer, Names(db))
    wal = str(beside(db, "-wal"))
    assert steps[:2] == [("pwrite", wal), ("fsync", wal)]
    monkeypatch.undo()
    assert beside(db, "-wal").stat().st_size
    reader.close()
    store.close()


# -- a WAL of another file


def vacuum_into(db: Path, backup: Path) -> None:
    connection = sqlite3.connect(db)
    connection.execute("VACUUM INTO ?", (str(backup),))
    connection.close()


def backup_api(db: Path, backup: Path) -> None:
    source, target = sqlite3.connect(db), sqlite3.connect(backup)
    source.backup(target)
    target.execute("PRAGMA journal_mode = DELETE")
    source.close()
    target.close()


@pytest.mark.parametrize("make", [vacuum_into, backup_api])
def test_a_backup_copied_over_a_database_whose_wal_was_left_behind_is_recognised(
    db: Path, make: Callable[[Path, Path], None]
) -> None:
    backup = db.with_name("backup")
    killed(db)
    with process(db) as server:
        server.signal()
        server.wait()
    make(db, backup)
    for _ in range(2):
        killed(db, passes=60)
        shutil.copyfile(backup, db)
        before = db.read_bytes()
        for done in (start(db), cli("audit", "--db", url_of(db))):
            assert done.returncode == 1
            assert "left behind" in done.stderr
        assert db.read_bytes() == before
        beside(db, "-wal").unlink()
        beside(db, "-shm").unlink()
        with process(db) as server:
            assert len(server.list_all()) == 30
            server.register(request_id="new")
            server.process.kill()
            server.wait()
        assert problems(db) == []


def test_another_database_copied_over_one_whose_wal_was_left_behind_is_recognised(db: Path) -> None:
    other = db.with_name("other.db")
    with process(other) as server:
        server.signal()
        server.wait()
    killed(db)
    shutil.copyfile(other, db)
    done = start(db)
    assert done.returncode == 1
    assert "left behind" in done.stderr


@pytest.mark.parametrize("torn_at", [0, 40])
def test_a_first_page_that_a_power_cut_tore_in_the_wal_is_no_other_files(
    db: Path, torn_at: int
) -> None:
    store = SqliteStore(db)
    store.set_account("demo", slot_limit=8)
    store._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    store.set_account("demo", slot_limit=9)
    # A frame of the first page, of which one sector got to the disk: its header, or what follows.
    store._writer.execute("PRAGMA user_version = 1")
    wal = bytearray(beside(db, "-wal").read_bytes())
    frame = len(wal) - 4_096
    wal[frame + torn_at : frame + 512] = b"x" * (512 - torn_at)
    cut = db.with_name("cut.db")
    cut.write_bytes(db.read_bytes())
    beside(cut, "-wal").write_bytes(wal)
    store.close()
    store = SqliteStore(cut, create=False)
    account = store.get_account("demo")
    assert account is not None
    assert account.slot_limit == 9
    store.close()


def test_a_start_that_cannot_read_the_file_says_so(
    db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opening.make_store(url_of(db))

    def broken(*_: object) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "pread", broken)
    with pytest.raises(CannotOpen, match="cannot be read: Input/output error"):
        opening.open_store(url_of(db))


def test_a_file_that_sqlite_could_open_for_reading_alone_is_not_served(
    db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it does without a word where the process may open no more files."""
    opening.make_store(url_of(db))
    read_only = functools.partial(connect, read_only=True)
    monkeypatch.setattr(sqlite_opening, "connect", read_only)
    with pytest.raises(CannotOpen, match="this process may open no more files"):
        opening.open_store(url_of(db))


def test_a_schema_that_another_program_adds_to_hinders_no_start_after_a_kill(db: Path) -> None:
    with process(db) as server:
        other = sqlite3.connect(db, isolation_level=None)
        other.execute("CREATE TABLE _litestream_seq (id INTEGER)")
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        other.execute("CREATE TABLE _litestream_lock (id INTEGER)")
        other.close()
        server.register()
        server.process.kill()
        server.wait()
    with process(db) as server:
        assert len(server.list_all()) == 1


# -- waiting, and whether a change could be stored


def test_a_lock_of_another_program_is_told_in_time_to_be_heard(db: Path) -> None:
    with process(db) as server:
        pass_id = server.register().id_pass.id
        other = sqlite3.connect(db, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")

        def cancel() -> Told:
            # The time that a client gives a call where its caller names none.
            with pytest.raises(grpc.RpcError) as caught:
                server.stub.CancelIdPass(CancelRequest(id=pass_id), timeout=5)
            return told(caught.value)

        error = cancel()
        assert error.reason == "STORE_UNAVAILABLE"
        assert error.metadata == {"outcome": "not_committed"}
        assert "busy; nothing was changed" in error.message
        other.execute("ROLLBACK")
        other.close()
        assert server.cancel(pass_id).fee_refunded


def test_a_check_finds_a_lock_of_another_program(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = SqliteStore(db)
    store.check()
    other = sqlite3.connect(db, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    waits, wait = list[float](), store._wait_for_locks

    def recorded(timeout_s: float) -> None:
        waits.append(timeout_s)
        wait(timeout_s)

    monkeypatch.setattr(store, "_wait_for_locks", recorded)
    with pytest.raises(StoreUnavailable, match="busy"):
        store.check()
    assert waits == [0.2, 2.0]
    other.close()
    store.check()
    assert store._writer.execute("PRAGMA busy_timeout").fetchone() == (2_000,)
    store.close()


def test_a_check_finds_a_database_that_cannot_be_written(db: Path) -> None:
    store = SqliteStore(db)
    store._writer.execute("PRAGMA query_only = true")
    store._writer.execute("PRAGMA user_version")
    with pytest.raises(StoreUnavailable, match="cannot be written"):
        store.set_account("demo", slot_limit=1, fee=None)
    store.close()


def test_a_check_writes_to_the_disk(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = SqliteStore(db)
    size = beside(db, ".lock").stat().st_size

    def full(_descriptor: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fdatasync", full)
    with pytest.raises(StoreUnavailable, match="No space left"):
        store.check()
    monkeypatch.undo()
    store.check()
    assert beside(db, ".lock").stat().st_size == size
    store.close()


def test_checkpoints_that_fail_are_counted_and_told_once_the_wal_passes_its_bound(
    db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "CHECKPOINT_PAGES", 1)
    monkeypatch.setattr(checkpoints, "CHECK_INTERVAL_S", 0.0)
    store = SqliteStore(db)
    store.check()
    reader = sqlite3.connect(db, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM accounts").fetchall()
    for slots in range(5):
        store.set_account("demo", slot_limit=slots, fee=None)
    check_until(store, lambda: store.failed_checkpoints > 0)
    monkeypatch.setattr(checkpoints, "MAX_WAL_PAGES", 2)
    failed = store.failed_checkpoints
    with pytest.raises(StoreUnavailable, match="a reader needs"):
        check_until(store, lambda: False)
    assert store.failed_checkpoints == failed + 1
    with pytest.raises(StoreUnavailable, match="nothing was changed"):
        store.commit([], 0)
    reader.close()
    refused = True
    while refused:
        with contextlib.suppress(StoreUnavailable):
            store.check()
            refused = False
    store.close()


def check_until(store: SqliteStore, done: Callable[[], bool]) -> None:
    while not done():
        store.check()


class Folding(StoreObserver):
    """Counts checkpoints by the thread that makes them."""

    def __init__(self) -> None:
        self.by_thread: Counter[str] = Counter()

    def checkpointed(self, seconds: float) -> None:  # noqa: ARG002 however long it takes
        self.by_thread[threading.current_thread().name] += 1


def test_a_checkpoint_beside_commits_lets_the_wal_begin_anew(
    db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "CHECKPOINT_PAGES", 20)
    monkeypatch.setattr(checkpoints, "BACKSTOP_PAGES", 1_000_000)
    monkeypatch.setattr(checkpoints, "CHECK_INTERVAL_S", 0.0)
    folding = Folding()
    store = SqliteStore(db, observer=folding)
    largest = 0
    for slots in range(400):
        store.check()
        store.set_account("demo", slot_limit=slots, fee=None)
        largest = max(largest, store.disk().wal)
    # Without them it would be a page or more for each change.
    assert largest < 200 * 4_096
    assert store.failed_checkpoints == 0
    store.close()
    thread = folding.by_thread.pop("checkpoint")
    assert folding.by_thread.total() <= thread
