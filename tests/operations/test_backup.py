"""backup, restore, new-history: a copy to rely on, and a history that nobody mistakes."""

import hashlib
import json
import shutil
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from idpass_server.cli import main
from idpass_server.store import CannotOpen, opening
from idpass_server.store.sqlite.file import connect
from kit.cutting import RestoreCuts
from kit.serving import COMMAND, uncovered, url_of
from kit.support import Service, cli, problems, process, refused


@pytest.fixture
def filled(db: Path) -> Path:
    """A database with three passes, which nobody serves."""
    service = Service(db)
    for number in range(3):
        service.register(request_id=f"r{number}")
    service.stop()
    return db


@pytest.fixture
def backup(filled: Path, tmp_path: Path) -> Path:
    """A backup of it."""
    path = tmp_path / "kept" / "backup.db"
    path.parent.mkdir()
    made = opening.back_up(url_of(filled), path)
    assert made.path == path
    return path


def run(*arguments: str) -> Result:
    """Runs a command in this process."""
    return CliRunner().invoke(main, arguments)


def beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def state(folder: Path) -> dict[str, bytes]:
    """Every file in a folder with what it has; what readers leave behind has nothing in it."""
    return {
        str(each): each.read_bytes()
        for each in sorted(folder.rglob("*"))
        if each.is_file() and not each.name.endswith((".lock", "-shm")) and each.stat().st_size
    }


# -- backup

Told = tuple[int, str]
"""An exit code, and words on standard error."""


def test_a_backup_beside_a_server_is_sound_and_leaves_the_server_its_locks(
    db: Path, tmp_path: Path
) -> None:
    with process(db) as server:
        for _ in range(20):
            server.register()
        to = tmp_path / "backup.db"
        done = cli("backup", "--db", url_of(db), "--to", str(to), "--json")
        assert done.returncode == 0, done.stderr
        made = json.loads(done.stdout)
        account = server.account()
        assert made["newest"] == {"demo": 20}
        assert (made["history"], made["path"]) == (account.history, str(to))
        assert made["sha256"] == hashlib.sha256(to.read_bytes()).hexdigest()
        assert made["bytes"] == to.stat().st_size
        assert beside(to, ".sha256").read_text() == f"{made['sha256']}  backup.db\n"
        assert problems(to) == []
        assert {each.name for each in tmp_path.iterdir() if each.name.startswith(("b", ".b"))} == {
            "backup.db",
            "backup.db.sha256",
        }
        assert (to.stat().st_mode & 0o777) == 0o600
        second = cli("serve", "--db", url_of(db), "--listen", "127.0.0.1:0")
        assert "is being served by another process" in second.stderr
        server.register()
    assert problems(db) == []


@pytest.mark.long
def test_backups_go_on_until_stopped_and_the_oldest_of_them_go(
    filled: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "kept"
    folder.mkdir()
    others = {"idpass-20200101T000000Z.db.txt", "other-20200101T000000Z.db"}
    for name in others:
        (folder / name).touch()
    options = ("--every", "1s", "--keep", "2", "--json")
    running = subprocess.Popen(
        [*COMMAND, "backup", "--db", url_of(filled), "--to", str(folder), *options],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert running.stdout
    lines = [json.loads(running.stdout.readline()) for _ in range(3)]
    running.send_signal(signal.SIGTERM)
    rest, _ = running.communicate(timeout=60)
    lines += map(json.loads, rest.splitlines())
    assert running.returncode == 0
    kept = [Path(line["path"]).name for line in lines][-2:]
    expected = {*others, *kept, *(f"{name}.sha256" for name in kept)}
    assert {each.name for each in folder.iterdir()} == expected
    assert [Path(p).name for line in lines for p in line["removed"]] == [
        Path(line["path"]).name for line in lines[:-2]
    ]


@pytest.mark.parametrize(
    ("to", "options", "told"),
    [
        ("taken", (), (2, "taken exists, and nothing was changed")),
        ("no/folder", (), (2, "there is no folder")),
        ("idpass.db", ("--yes",), (2, "belongs to the database itself")),
        ("idpass.db-wal", ("--yes",), (2, "belongs to the database itself")),
        ("new", ("--every", "1h"), (2, "need a folder")),
        ("new", ("--keep", "3"), (2, "need a folder")),
        (".", ("--every", "x"), (2, "such as 400d")),
        (".", ("--every", "0s"), (2, "such as 400d")),
        (".", ("--keep", "0"), (2, "0 is not in the range")),
        ("new", ("--db", "postgresql://127.0.0.1/x"), (2, "keeping.md")),
        ("new", ("--db", "sqlite:///none.db"), (1, "there is no database")),
        ("new", ("--db", "sqlite:///taken"), (1, "damaged or no SQLite database")),
        ("new", ("--db", "sqlite:///foreign.db"), (1, "not one of idpass-server")),
    ],
)
def test_what_cannot_be_backed_up_is_told_and_nothing_is_changed(
    filled: Path, monkeypatch: pytest.MonkeyPatch, to: str, options: tuple[str, ...], told: Told
) -> None:
    code, said = told
    folder = filled.parent
    (folder / "taken").write_bytes(b"x" * 5_000)
    _foreign(folder / "foreign.db")
    before = state(folder)
    monkeypatch.chdir(folder)
    done = run("backup", "--db", f"sqlite:///{filled.name}", "--to", to, *options)
    assert (done.exit_code, done.stdout) == (code, ""), done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert state(folder) == before


def _foreign(path: Path) -> None:
    script = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('CREATE TABLE t (x)')"
    subprocess.run([sys.executable, "-c", script, str(path)], check=True)


def test_a_backup_that_is_not_sound_is_not_kept(filled: Path, tmp_path: Path) -> None:
    with closing(connect(filled)) as connection:
        connection.execute("UPDATE accounts SET slots_in_use = 0")
    to = tmp_path / "kept.db"
    with pytest.raises(CannotOpen, match=r"not sound and was not kept: slots in use"):
        opening.back_up(url_of(filled), to)
    assert not list(tmp_path.glob("*kept*"))


def test_a_full_disk_leaves_nothing_behind(filled: Path, tmp_path: Path) -> None:
    folder = tmp_path / "full"
    folder.mkdir()
    command = [*COMMAND, "backup", "--db", url_of(filled), "--to", str(folder)]
    done = subprocess.run(
        ["sh", "-c", 'ulimit -f 72; exec "$@"', "sh", *command],
        env=uncovered(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert str(folder) in done.stderr
    assert list(folder.iterdir()) == []


# -- restore


def restore(file: Path, db: Path | str, *options: str) -> Result:
    return run("restore", str(file), "--db", url_of(db), *options)


def test_a_restored_database_begins_a_new_history(filled: Path, backup: Path) -> None:
    service = Service(filled)
    passes = service.list_all()
    former = service.account()
    service.cancel(passes[0].id, request_id="late")
    service.stop()

    done = restore(backup, filled, "--yes", "--as", "ops")
    assert done.exit_code == 0, done.stderr
    assert "its SHA-256 is right" in done.stdout
    assert "a retry with such a request_id is executed again" in done.stdout
    assert problems(filled) == []
    assert {each.name for each in filled.parent.iterdir()} >= {"idpass.db", "idpass.db.lock"}
    assert not list(filled.parent.glob("*.restoring*"))
    service = Service(filled)
    try:
        account = service.account()
        assert account.history != former.history
        assert account.history in done.stdout
        assert refused(lambda: next(service.watch(after_sequence=4))).reason == "HISTORY_LOST"
        assert service.register(request_id="r1").replayed
        again = service.cancel(passes[0].id, request_id="late")
        assert not again.replayed
        events = service.events(after_sequence=3)
        assert [event.sequence for event in events] == [account.last_sequence + 1]
    finally:
        service.stop()
    assert problems(filled) == []
    log = run("admin-log", "--db", url_of(filled))
    assert "new history" in log.stdout
    assert "ops@" in log.stdout


def test_a_restore_goes_on_beyond_what_the_former_database_had_reached(
    filled: Path, backup: Path
) -> None:
    """Even if that one's clock was far ahead."""
    far = 9_000_000_000_000_000
    with closing(connect(filled)) as connection:
        connection.execute(f"UPDATE accounts SET last_sequence = {far}")
    assert restore(backup, filled, "--yes").exit_code == 0
    with closing(connect(filled)) as connection:
        newest = connection.execute("SELECT last_sequence FROM accounts").fetchall()
    assert newest == [(far + 1,)]


def test_a_restore_makes_a_database_where_there_is_none(backup: Path, tmp_path: Path) -> None:
    db = tmp_path / "elsewhere" / "new.db"
    db.parent.mkdir()
    done = restore(backup, db)
    assert done.exit_code == 0, done.stderr
    assert problems(db) == []
    with process(db) as server:
        assert len(server.list_all()) == 3


def test_what_a_killed_server_left_in_its_wal_never_gets_into_the_restored_file(
    filled: Path, backup: Path
) -> None:
    with process(filled) as server:
        server.register()
        server.process.kill()
        server.process.wait()
    assert beside(filled, "-wal").stat().st_size
    assert restore(backup, filled, "--yes").exit_code == 0
    assert not beside(filled, "-wal").exists()
    with process(filled) as server:
        assert len(server.list_all()) == 3


def test_a_database_beside_the_wal_of_another_can_be_replaced(filled: Path, backup: Path) -> None:
    with process(filled) as server:
        server.register()
        server.process.kill()
        server.process.wait()
    shutil.copyfile(backup, filled)
    assert "left behind" in cli("audit", "--db", url_of(filled)).stderr
    assert restore(backup, filled, "--yes").exit_code == 0
    assert not beside(filled, "-wal").exists()
    with process(filled) as server:
        assert len(server.list_all()) == 3


def test_a_damaged_database_can_be_replaced(filled: Path, backup: Path) -> None:
    filled.write_bytes(b"x" * 8_192)
    beside(filled, "-wal").write_bytes(b"y" * 8_192)
    done = restore(backup, filled, "--yes")
    assert done.exit_code == 0, done.stderr
    assert not beside(filled, "-wal").exists()
    assert problems(filled) == []


def _break(backup: Path, kind: str) -> None:
    if kind == "another digest":
        beside(backup, ".sha256").write_text(f"{'0' * 64}  backup.db\n")
    elif kind == "no digest in it":
        beside(backup, ".sha256").write_text("")
    else:
        beside(backup, ".sha256").unlink()
    if kind == "cut off":
        backup.write_bytes(backup.read_bytes()[:-8_192])
    elif kind == "not sound":
        with closing(connect(backup)) as connection:
            connection.execute("UPDATE accounts SET refunded_micros = refunded_micros - 1")
    elif kind == "no database":
        backup.write_bytes(b"x" * 8_192)
    elif kind == "another's database":
        backup.unlink()
        _foreign(backup)
    elif kind == "empty":
        backup.write_bytes(b"")
    elif kind == "missing":
        backup.unlink()


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("another digest", "not as it was when it was backed up"),
        ("no digest in it", "not as it was when it was backed up"),
        ("cut off", "damaged"),
        ("not sound", "fees refunded"),
        ("no database", "damaged or no SQLite database"),
        ("another's database", "not one of idpass-server"),
        ("empty", "empty file"),
        ("missing", "there is no database"),
    ],
)
def test_a_backup_that_cannot_be_used_changes_nothing(
    filled: Path, backup: Path, kind: str, said: str
) -> None:
    _break(backup, kind)
    before = state(filled.parent)
    done = restore(backup, filled, "--yes")
    assert (done.exit_code, done.stdout) == (1, ""), done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert state(filled.parent) == before


def test_a_restore_asks_first_and_never_replaces_what_is_in_use_or_not_ours(
    filled: Path, backup: Path, tmp_path: Path
) -> None:
    done = restore(backup, filled)
    assert done.exit_code == 2
    assert "All that it has stored since the backup will be gone" in done.stderr
    assert "give --yes" in done.stderr
    with process(filled) as server:
        done = restore(backup, filled, "--yes")
        assert done.exit_code == 1
        assert "is being served by another process" in done.stderr
        assert len(server.list_all()) == 3
    assert restore(filled, filled, "--yes").exit_code == 2
    foreign = tmp_path / "foreign.db"
    _foreign(foreign)
    before = foreign.read_bytes()
    done = restore(backup, foreign, "--yes")
    assert (done.exit_code, foreign.read_bytes()) == (1, before)
    assert "not one of idpass-server" in done.stderr
    done = restore(backup, "postgresql://127.0.0.1/x", "--yes")
    assert done.exit_code == 2
    assert "keeping.md" in done.stderr


@pytest.mark.long
def test_a_restore_cut_off_while_it_replaces_leaves_one_database_whole(
    filled: Path, backup: Path, tmp_path: Path
) -> None:
    """Before the last changes to the disk; tests/prove has all of them."""
    with process(filled) as server:
        server.register()
        server.process.kill()
        server.process.wait()
    cuts = RestoreCuts(filled, backup, tmp_path)
    found = [cuts.cut(cuts.changes - before_end) for before_end in (1, 2, 4)]
    assert found == ["restored", "former", "former"]


# -- new-history


@pytest.mark.both_stores
def test_a_new_history_can_be_begun_by_hand(db: Path | str) -> None:
    service = Service(db)
    service.register()
    former = service.account().history
    service.stop()
    asked = run("new-history", "--db", url_of(db))
    assert (asked.exit_code, "give --yes" in asked.stderr) == (2, True)
    done = run("new-history", "--db", url_of(db), "--yes")
    assert done.exit_code == 0, done.stderr
    assert f"after {former}" in done.stdout
    service = Service(db)
    try:
        assert refused(lambda: next(service.watch(after_sequence=2))).reason == "HISTORY_LOST"
    finally:
        service.stop()
    assert problems(db) == []
