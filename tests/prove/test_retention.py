"""Erasing, purging and exporting beside load, killed at random: the books stay right.

Promise: neither money nor slots change, the audit is clean after a kill -9 at any instant, and what
is run again finishes. Means: a server under a steady load of cancels, whose own ledger is kept, and
the commands one after the other, killed at random points, then run to their end. Prints by how much
they slow a cancel down. Blind spots: the power does not fail, and the load is one connection's.
"""

import json
import random
import subprocess
import threading
import time
from pathlib import Path
from typing import Self

import pytest

from idpass_server.ids import new_uuid
from idpass_server.rules.commands import Cancel, Register
from idpass_server.store.opening import make_store, open_store
from kit.proving import times
from kit.serving import COMMAND, url_of
from kit.support import DAY_US, Process, problems, process, refused, report, set_account

pytestmark = pytest.mark.both_stores
OLD = times(1_500, 500)
KILLS = times(6, 6)
FEE_MICROS = 4_500_000
QUIET_CANCELS = 200


def fill(url: str) -> None:
    """Stores passes that were cancelled 500 days ago, all in one account, each with a note."""
    set_account(url, slot_limit=1_000_000)
    store = open_store(url, exclusive=False)
    then_us = time.time_ns() // 1_000 - 500 * DAY_US
    for start in range(0, OLD, 100):
        ids = [new_uuid() for _ in range(min(100, OLD - start))]
        named = [Register("demo", "t", new_uuid(), new_uuid(), each, 7, "zoe") for each in ids]
        store.commit(named, then_us)
        noted = [Cancel("demo", "t", new_uuid(), new_uuid(), each, note="called") for each in ids]
        store.commit(noted, then_us)
    # The clock is compared with the newest event.
    store.commit([Register("demo", "t", new_uuid(), None, new_uuid())], time.time_ns() // 1_000)
    store.close()


class Load:
    """Registers and cancels passes, one after the other, until it is over.

    Attributes:
        cancelled: number of passes it has cancelled.
    """

    def __init__(self, server: Process) -> None:
        self._server = server
        self._took_s: list[float] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.cancelled = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.is_set():
            pass_id = self._server.register(applicant_reference="new").id_pass.id
            began_s = time.monotonic()
            assert self._server.cancel(pass_id, note="new").fee_refunded
            self._took_s.append(time.monotonic() - began_s)
            self.cancelled += 1

    def quantiles(self, fewest: int = 1) -> tuple[float, float]:
        """The median and p99 of the cancels since the last look, ms."""
        while len(self._took_s) < fewest and self._thread.is_alive():
            time.sleep(0.05)
        took, self._took_s = sorted(self._took_s), []
        return tuple(1_000 * took[int(len(took) * part)] for part in (0.5, 0.99))  # type: ignore[return-value]


def test_the_books_stay_right_beside_load_and_after_kills(
    request: pytest.FixtureRequest, db: Path | str, tmp_path: Path
) -> None:
    url = url_of(db)
    if isinstance(db, Path):
        make_store(url)
    fill(url)
    file = tmp_path / "demo.jsonl"
    commands = {
        "erase": ("erase", "--account", "demo", "--ended-before", "400d", "--yes"),
        "purge": ("purge", "--ended-before", "400d", "--yes"),
        "export": ("export", "--account", "demo", "--to", str(file)),
    }
    began_s = time.monotonic()
    subprocess.run([*COMMAND, *commands["purge"], "--dry-run", "--db", url], check=True, timeout=60)
    startup_s = time.monotonic() - began_s
    with process(db) as server, Load(server) as load:
        quiet = load.quantiles(QUIET_CANCELS)
        for number in range(KILLS):
            name = ("erase", "export", "purge")[number % 3]
            child = subprocess.Popen([*COMMAND, *commands[name], "--db", url])
            began_s = time.monotonic()
            # Some are killed before they begin, some at work.
            time.sleep(startup_s * (0.5 + 2 * random.random()))
            child.kill()
            child.wait()
            report(request, "retention", f"{name} killed after {time.monotonic() - began_s:.2f} s")
            assert problems(db) == []
            file.unlink(missing_ok=True)
        for name, command in commands.items():
            load.quantiles()
            began_s = time.monotonic()
            subprocess.run([*COMMAND, *command, "--db", url], check=True, timeout=600)
            beside = load.quantiles(1)
            report(
                request,
                "retention",
                f"{name}: {time.monotonic() - began_s:.1f} s; a cancel's median and p99, ms: "
                f"quiet {quiet[0]:.1f} {quiet[1]:.1f}, beside it {beside[0]:.1f} {beside[1]:.1f}",
            )
        assert refused(lambda: next(server.watch(after_sequence=1))).reason == "HISTORY_LOST"
        lines = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
        assert sum(line["type"] == "id_pass" for line in lines) == lines[-1]["id_passes"]
    with process(db) as server:
        account = server.account()
        passes = OLD + 1 + load.cancelled
        charged, refunded = account.fees_charged, account.fees_refunded
        assert charged.units * 1_000_000 + charged.nanos // 1_000 == passes * FEE_MICROS
        assert refunded.units * 1_000_000 + refunded.nanos // 1_000 == (passes - 1) * FEE_MICROS
        assert account.slots_in_use == 1
        assert len(server.list_all()) == 1 + load.cancelled
    assert problems(db) == []
