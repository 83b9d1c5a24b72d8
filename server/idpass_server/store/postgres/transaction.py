"""What a batch does inside its transaction: lock, load, save, and prove that COMMIT is durable."""

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final

from idpass_server.rules.batch import Batch, Needs, Replays, short_of_slots
from idpass_server.rules.commands import Command
from idpass_server.rules.records import Account, Event, Pass
from idpass_server.rules.refusals import StoreUnavailable
from idpass_server.store import rows
from idpass_server.store.postgres import sql
from idpass_server.store.postgres.link import Connection
from idpass_server.store.postgres.session import DURABLE, POOLED

TABLE_WAIT_S: Final = 2
"""Timeout for a locked table once accounts are no longer waited for, seconds."""


def lock_free(connection: Connection, names: set[str]) -> frozenset[str]:
    """Locks those of the accounts that nobody else has locked.

    Returns:
        names of the others.
    """
    # Only a table can still block: a migration locks it for a moment.
    connection.execute(f"SET LOCAL lock_timeout = '{TABLE_WAIT_S}s'")
    free = connection.execute(sql.LOCK_FREE, (sorted(names),))
    known = connection.execute(sql.KNOWN, (sorted(names),))  # a deleted account is locked by nobody
    return frozenset({name for (name,) in known} - {account for _, _, account, *_ in free})


def load(connection: Connection, commands: Sequence[Command], due_us: int) -> Batch:
    """Locks the commands' accounts and loads what they need.

    Args:
        connection: in a transaction.
        commands: what is to be decided.
        due_us: passes with an expire_time up to this are overdue, microseconds since the epoch.

    Raises:
        StoreUnavailable: a COMMIT would not prove that the batch is on disk.
        psycopg.Error: the database refused.
    """
    needs = Needs.of(commands)
    locked = connection.execute(sql.LOCK, (needs.accounts,))
    found = _query(connection, sql.LOAD_PASSES, rows.PASS_KEY, needs.passes)
    used = _query(connection, sql.LOAD_RECEIPTS, rows.RECEIPT_KEY, needs.receipts)
    accounts = []
    for session, synchronous_commit, *account in locked:
        prove(connection, (session, synchronous_commit))
        accounts.append(Account._make(account))
    passes = list(map(Pass._make, found))
    receipts = list(map(Event._make, used))
    replays = Replays.of(receipts)
    found = _query(connection, sql.LOAD_PASSES, rows.PASS_KEY, replays.passes)
    used = _query(connection, sql.LOAD_EVENTS, rows.EVENT_KEY, replays.preceding)
    passes += map(Pass._make, found)
    preceding = list(map(Event._make, used))
    overdue = [
        Pass._make(row)
        for account, wanted in short_of_slots(accounts, commands).items()
        for row in connection.execute(
            sql.OVERDUE, {"account": account, "due_us": due_us, "limit": wanted}
        )
    ]
    return Batch(accounts, passes, receipts, preceding, overdue)


def save(connection: Connection, batch: Batch) -> None:
    """Writes what a batch has changed."""
    for name, values in rows.written(batch):
        named = [dict(zip(rows.COLUMNS[name], row, strict=True)) for row in values]
        connection.execute(sql.SAVE[name], (json.dumps(named),))


def is_stored(connection: Connection, event: Event) -> bool:
    """Whether the database has this event."""
    key = (event.account, event.sequence, event.reference)
    return connection.execute(sql.WRITTEN, key).fetchone() is not None


def prove(connection: Connection, told: tuple[int, str] | None) -> None:
    """Checks that the transaction runs in the session that was set up, with durable commits.

    Args:
        connection: in a transaction.
        told: the session's number and its synchronous_commit, as read in the transaction; None if
            the row that carries them is missing.

    Raises:
        StoreUnavailable: COMMIT would not mean that the changes are on disk.
    """
    if told is None:
        raise StoreUnavailable("the table sweep_lease is empty; run: idpass-server audit")
    session, synchronous_commit = told
    if session != connection.session or synchronous_commit not in DURABLE:
        connection.close()
        raise StoreUnavailable(f"{POOLED}; nothing was changed")


def _query(
    connection: Connection, statement: str, names: rows.Columns, keys: Sequence[tuple[object, ...]]
) -> Iterable[Any]:
    if not keys:
        return ()
    named = [dict(zip(names, key, strict=True)) for key in keys]
    return connection.execute(statement, (json.dumps(named),))
