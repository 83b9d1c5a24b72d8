"""A server and its Litestream killed at random lose nothing but the newest moment.

The promise: every change that was answered longer ago than Litestream's sync interval (and
PATIENCE_S for a busy machine) is in the database that its replica gives, the replica is sound, and
a restore of it begins a new history. The means: the real Litestream beside the real server under
load, both killed with SIGKILL. Litestream's own checkpoints keep the WAL below the size at which
the server would begin one, so no option of the server is needed beside it.

Blind spots: a replica on another machine, where the network is slow or gone; a power cut.
"""

import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from idpass_server.store.sqlite.checkpoints import CHECKPOINT_PAGES
from kit.proving import times
from kit.serving import url_of
from kit.support import cli, problems, process, refused, report, set_slots
from kit.witness import Witness, callers, check_at

KILLS = times(1, 0.5)
CALLERS = 4
SYNC_S = 0.2
PATIENCE_S = 5.0
LITESTREAM = shutil.which("litestream", path=str(Path(sys.executable).parent))


def litestream(*arguments: str | Path) -> None:
    assert LITESTREAM
    subprocess.run([LITESTREAM, *arguments], check=True, capture_output=True, timeout=120)


def replicate(db: Path, replica: Path, folder: Path) -> "subprocess.Popen[bytes]":
    assert LITESTREAM
    config = folder / "litestream.yml"
    config.write_text(
        f"dbs:\n- path: {db}\n  monitor-interval: {SYNC_S}s\n"
        f"  replica:\n    type: file\n    path: {replica}\n    sync-interval: {SYNC_S}s\n"
    )
    return subprocess.Popen(
        [LITESTREAM, "replicate", "-config", config],
        stdout=subprocess.DEVNULL,
        stderr=(folder / "litestream.log").open("wb"),
    )


@pytest.mark.parametrize("seed", range(KILLS))
def test_what_was_answered_before_the_last_sync_is_in_the_replica(
    tmp_path: Path, request: pytest.FixtureRequest, seed: int
) -> None:
    chance = random.Random(seed)
    db, replica = tmp_path / "idpass.db", tmp_path / "replica"
    witness = Witness(seed)
    largest = 0
    with process(db, "--max-pending", "100000") as server:
        set_slots(db, 100_000)
        history = server.account().history
        copying = replicate(db, replica, tmp_path)
        with callers(server.address, witness, CALLERS):
            witness.wait_for_answers(300 + chance.randrange(500))
            kept = [call for call in witness.take() if call.answer]
            until_s = time.monotonic() + PATIENCE_S + SYNC_S * chance.random()
            while time.monotonic() < until_s:
                largest = max(largest, db.with_name("idpass.db-wal").stat().st_size)
                time.sleep(0.05)
            for each in chance.sample([copying, server.process], 2):
                each.kill()
            copying.wait()
            witness.stop()
        newer = [call for call in witness.take() if call.answer]
        assert not [line for line in server.log if line["event"] == "checkpoint_failed"]
    assert largest < CHECKPOINT_PAGES * 4_096

    copy, restored = tmp_path / "copy.db", tmp_path / "restored.db"
    litestream("restore", "-o", copy, f"file://{replica}")
    done = cli("restore", str(copy), "--db", url_of(restored), "--as", "drill")
    assert done.returncode == 0, done.stderr
    assert problems(restored) == []
    with process(restored) as server:
        check_at(server.address, kept, CALLERS)
        account = server.account()
        assert account.history != history
        error = refused(lambda: next(server.watch(after_sequence=account.last_sequence - 1)))
        assert error.reason == "HISTORY_LOST"
    line = f"{len(kept)} answers kept, {len(newer)} newer; WAL up to {largest:,} bytes"
    report(request, "Litestream", line)
