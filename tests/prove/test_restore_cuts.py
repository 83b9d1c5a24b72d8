"""A restore that is killed before any change to the disk leaves one database whole.

The promise: whenever `idpass-server restore` dies, the name leads to the former database with all
that it had, its WAL included, or to the restored one with its new history; either is sound and
served, and the restore can be run again. The means: the command is killed with SIGKILL before each
of its writes, syncs, truncations, renamings and deletions, or a sample of them; the former
database's server was killed too, so that its newest passes are in the WAL only.

Blind spots: what a power cut loses of changes that were made and not synced; file systems that do
not rename atomically.
"""

import random
from collections import Counter
from pathlib import Path

import pytest

from idpass_server.store import opening
from kit.cutting import RestoreCuts
from kit.proving import times
from kit.serving import url_of
from kit.support import process, report

CUTS = times(6, 12)
LAST = 6
"""Number of the last changes that are always tried: the renaming is among them."""


def test_a_restore_cut_off_anywhere_leaves_one_database_whole(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    db, backup = tmp_path / "idpass.db", tmp_path / "backup.db"
    with process(db) as server:
        for _ in range(30):
            server.register()
        opening.back_up(url_of(db), backup)
        for _ in range(30):
            server.register()
        server.process.kill()
        server.process.wait()
    cuts = RestoreCuts(db, backup, tmp_path)
    every = range(1, cuts.changes + 1)
    last = every[-LAST:]
    chosen = {*last, *random.Random(1).sample(every, min(CUTS, len(every)))}
    found = Counter(cuts.cut(at) for at in sorted(chosen))
    assert found.keys() == {"former", "restored"}
    report(request, "Restores cut off", f"{len(chosen)} of {cuts.changes} places: {dict(found)}")
