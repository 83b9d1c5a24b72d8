"""Ten thousand passes."""

import time
from pathlib import Path
from typing import Final

from idpass_server.ids import new_uuid
from idpass_server.rules.commands import Register
from idpass_server.store.sqlite.store import SqliteStore
from kit.http import Http

PASSES: Final = 10_000


def register_many(sandbox: Http) -> None:
    """Ten thousand passes straight into the database of a running sandbox."""
    db = Path(sandbox.wait_for("serving")["db"].removeprefix("sqlite:///"))
    store = SqliteStore(db, exclusive=False)
    store.set_account("demo", slot_limit=2 * PASSES, fee=None)
    for start in range(0, PASSES, 1_000):
        commands = [
            Register(
                *("demo", "demo", new_uuid(), None, new_uuid()),
                applicant_reference=f"Applicant {n}",
            )
            for n in range(start, start + 1_000)
        ]
        store.commit(commands, time.time_ns() // 1_000)
    store.close()
