"""One of several processes that commit the same changes to one database, in orders of their own.

    python hammer.py URL SEED < passes

Reads the passes as a JSON list of account and id, cancels each of them, and registers one in the
same account under a request_id that all processes use; prints what was its own doing.
"""

import json
import random
import sys
import time

from idpass_server.ids import new_uuid
from idpass_server.rules.commands import Cancel, Cancelled, Command, Register, Registered
from idpass_server.store.postgres.store import PostgresStore

BATCH = 25


def main(url: str, seed: str) -> None:
    passes = json.load(sys.stdin)
    random.Random(seed).shuffle(passes)
    store = PostgresStore(url)
    cancelled, registered = [], {}
    for start in range(0, len(passes), BATCH):
        commands: list[Command] = []
        for account, pass_id in passes[start : start + BATCH]:
            commands.append(Cancel(account, "hammer", new_uuid(), None, pass_id))
            request_id = f"instead-of-{pass_id}"
            commands.append(Register(account, "hammer", new_uuid(), request_id, new_uuid()))
        while commands:
            outcomes, _, busy, _ = store.commit(commands, time.time_ns() // 1_000)
            for command, outcome in zip(commands, outcomes, strict=True):
                if isinstance(outcome, Cancelled):
                    cancelled.append(outcome.event.id_pass_id)
                elif isinstance(outcome, Registered):
                    registered[command.request_id] = outcome.id_pass.id
            # Those whose account another process holds were not run.
            commands = [command for command in commands if command.account in busy]
    store.close()
    json.dump({"cancelled": cancelled, "registered": registered}, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
