"""The SQLite schema, as migrations: each is applied once, in order, and never edited.

The account leads every key, so that an account's rows are stored together and the data can be
divided by account. Tables are clustered on their key (WITHOUT ROWID): finding a pass by id touches
one b-tree, and an account's events are stored in the order in which they are watched. A pass names
its newest event, and an event the previous one of the same pass, so that one pass's events need no
index: a cancellation among a million passes touches one random page of them.

Statements name their columns, so that a program still works where a newer one has added some.
"""

import time
from typing import Any, Final

from sqlite_utils import Database, Migrations

from idpass_server.ids import new_uuid
from idpass_server.store import schema

APPLICATION_ID: Final = 0x49445053
""""IDPS": identifies a database file of this service."""
OLDEST: Final = 2
"""Number of migrations that a program must know to serve a database that has them all."""

migrations: Final = Migrations("idpass")


@migrations()
def initial(db: Database) -> None:
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    db.execute(
        """
        CREATE TABLE accounts (
            name            TEXT    NOT NULL PRIMARY KEY,
            slot_limit      INTEGER NOT NULL CHECK (slot_limit >= 0),
            slots_in_use    INTEGER NOT NULL CHECK (slots_in_use >= 0),
            currency        TEXT    NOT NULL,
            fee_micros      INTEGER NOT NULL CHECK (fee_micros >= 0),
            charged_micros  INTEGER NOT NULL,
            refunded_micros INTEGER NOT NULL CHECK (refunded_micros <= charged_micros),
            last_sequence   INTEGER NOT NULL
        ) STRICT, WITHOUT ROWID
        """
    )
    db.execute(
        """
        CREATE TABLE passes (
            account             TEXT    NOT NULL,
            id                  TEXT    NOT NULL,
            status              TEXT    NOT NULL,
            currency            TEXT    NOT NULL,
            fee_micros          INTEGER NOT NULL,
            fee_refunded        INTEGER NOT NULL,
            applicant_reference TEXT    NOT NULL,
            supersedes          TEXT,
            superseded_by       TEXT,
            create_time_us      INTEGER NOT NULL,
            update_time_us      INTEGER NOT NULL,
            expire_time_us      INTEGER NOT NULL,
            consent_time_us     INTEGER,
            end_time_us         INTEGER,
            cancel_reason       TEXT,
            cancel_note         TEXT,
            cancel_caller       TEXT,
            event_sequence      INTEGER NOT NULL,
            PRIMARY KEY (account, id)
        ) STRICT, WITHOUT ROWID
        """
    )
    # One timer per pass, which the sweeper deletes when it is due. Ending a pass leaves it alone:
    # an index of the passes in flight would cost every cancellation one more page.
    db.execute(
        """
        CREATE TABLE timers (
            account        TEXT    NOT NULL,
            expire_time_us INTEGER NOT NULL,
            id_pass_id     TEXT    NOT NULL,
            PRIMARY KEY (account, expire_time_us, id_pass_id)
        ) STRICT, WITHOUT ROWID
        """
    )
    db.execute(
        """
        CREATE TABLE events (
            account        TEXT    NOT NULL,
            sequence       INTEGER NOT NULL,
            id_pass_id     TEXT    NOT NULL,
            from_status    TEXT,
            to_status      TEXT    NOT NULL,
            event_time_us  INTEGER NOT NULL,
            caller         TEXT    NOT NULL,
            request_id     TEXT,
            request_digest TEXT,
            reference      TEXT    NOT NULL,
            currency       TEXT    NOT NULL,
            charge_micros  INTEGER,
            refund_micros  INTEGER CHECK (refund_micros IS NULL OR to_status = 'cancelled'),
            reason         TEXT    NOT NULL,
            previous_sequence INTEGER,
            PRIMARY KEY (account, sequence)
        ) STRICT, WITHOUT ROWID
        """
    )
    # One receipt per request_id.
    db.execute(
        """
        CREATE UNIQUE INDEX events_request_id ON events (account, request_id)
        WHERE request_id IS NOT NULL
        """
    )
    # At most one refund per pass.
    db.execute(
        """
        CREATE UNIQUE INDEX events_refund ON events (account, id_pass_id)
        WHERE refund_micros IS NOT NULL
        """
    )
    db.execute(
        """
        INSERT INTO accounts VALUES ('demo', 1000, 0, 'AUD', 4500000, 0, 0, 0)
        """
    )


@migrations()
def caller_of_every_pass(db: Database) -> None:
    # Who made the newest change, not only who cancelled.
    db.execute("ALTER TABLE passes RENAME COLUMN cancel_caller TO caller")
    db.execute(
        """
        UPDATE passes SET caller = events.caller FROM events
        WHERE events.account = passes.account AND events.sequence = passes.event_sequence
        """
    )


@migrations()
def registrations_per_day(db: Database) -> None:
    # A program that does not know them goes on, without counting.
    for column in ("registrations_per_day", "registration_day", "registrations_of_day"):
        db.execute(
            f"ALTER TABLE accounts ADD COLUMN {column} INTEGER NOT NULL DEFAULT 0 "
            f"CHECK ({column} >= 0)"
        )


@migrations()
def admin_log(db: Database) -> None:
    db.execute(
        """
        CREATE TABLE admin_log (
            id      TEXT    NOT NULL PRIMARY KEY,
            time_us INTEGER NOT NULL,
            who     TEXT    NOT NULL,
            what    TEXT    NOT NULL,
            account TEXT,
            before  TEXT,
            after   TEXT
        ) STRICT, WITHOUT ROWID
        """
    )


@migrations()
def accounts_disabled(db: Database) -> None:
    # A program that does not know it goes on, and lets a disabled account change its passes.
    db.execute(
        "ALTER TABLE accounts ADD COLUMN disabled INTEGER NOT NULL DEFAULT 0 "
        "CHECK (disabled IN (0, 1))"
    )


@migrations()
def erasures(db: Database) -> None:
    # A program that does not know them goes on: such an event leaves the status as it is.
    db.execute("ALTER TABLE events ADD COLUMN erased INTEGER NOT NULL DEFAULT 0")


@migrations()
def history(db: Database) -> None:
    # A program that does not know it goes on: it finds the next sequence in its account.
    db.execute(
        """
        CREATE TABLE history (
            id            TEXT    NOT NULL PRIMARY KEY,
            begin_time_us INTEGER NOT NULL,
            base_sequence INTEGER NOT NULL
        ) STRICT, WITHOUT ROWID
        """
    )
    db.execute(
        """
        CREATE TABLE history_gaps (
            account         TEXT    NOT NULL,
            after_sequence  INTEGER NOT NULL,
            before_sequence INTEGER NOT NULL CHECK (before_sequence > after_sequence),
            PRIMARY KEY (account, after_sequence)
        ) STRICT, WITHOUT ROWID
        """
    )
    now_us = time.time_ns() // 1_000
    db.execute("INSERT INTO history VALUES (?, ?, 0)", (new_uuid(), now_us))


@migrations()
def passes_applicant_reference(db: Database) -> None:
    # No change of status sets an applicant_reference, so that only a registration pays for it.
    db.execute(
        """
        CREATE INDEX passes_applicant_reference ON passes (account, applicant_reference, id)
        WHERE applicant_reference <> ''
        """
    )


@migrations()
def webhooks(db: Database) -> None:
    db.execute(
        """
        CREATE TABLE webhooks (
            account           TEXT    NOT NULL,
            id                TEXT    NOT NULL,
            url               TEXT    NOT NULL,
            wanted            TEXT    NOT NULL,
            state             TEXT    NOT NULL,
            paused_reason     TEXT    NOT NULL,
            generation        INTEGER NOT NULL,
            previous_until_us INTEGER NOT NULL,
            cursor            INTEGER NOT NULL,
            version           INTEGER NOT NULL,
            caller            TEXT    NOT NULL,
            create_time_us    INTEGER NOT NULL,
            update_time_us    INTEGER NOT NULL,
            request_id        TEXT,
            request_digest    TEXT,
            last_success_us   INTEGER,
            failing_since_us  INTEGER,
            PRIMARY KEY (account, id)
        ) STRICT, WITHOUT ROWID
        """
    )
    db.execute(
        """
        CREATE UNIQUE INDEX webhooks_request_id ON webhooks (account, request_id)
        WHERE request_id IS NOT NULL
        """
    )
    # What is not delivered yet, and lately was: at most some thousand rows of an endpoint.
    db.execute(
        """
        CREATE TABLE webhook_deliveries (
            account      TEXT    NOT NULL,
            webhook_id   TEXT    NOT NULL,
            sequence     INTEGER NOT NULL,
            id_pass_id   TEXT    NOT NULL,
            event_type   TEXT    NOT NULL,
            state        TEXT    NOT NULL,
            attempts     INTEGER NOT NULL,
            next_time_us INTEGER NOT NULL,
            event_time_us INTEGER NOT NULL,
            PRIMARY KEY (account, webhook_id, sequence)
        ) STRICT, WITHOUT ROWID
        """
    )
    db.execute(
        """
        CREATE TABLE webhook_attempts (
            account     TEXT    NOT NULL,
            webhook_id  TEXT    NOT NULL,
            sequence    INTEGER NOT NULL,
            number      INTEGER NOT NULL,
            time_us     INTEGER NOT NULL,
            duration_ms INTEGER NOT NULL,
            status_code INTEGER,
            error       TEXT    NOT NULL,
            answer      TEXT    NOT NULL,
            PRIMARY KEY (account, webhook_id, sequence, number)
        ) STRICT, WITHOUT ROWID
        """
    )


@migrations()
def purged_totals(db: Database) -> None:
    # A program that does not know them goes on: only operators purge.
    db.execute(
        """
        CREATE TABLE purged_totals (
            account         TEXT    NOT NULL PRIMARY KEY,
            passes          INTEGER NOT NULL,
            events          INTEGER NOT NULL,
            charged_micros  INTEGER NOT NULL,
            refunded_micros INTEGER NOT NULL
        ) STRICT, WITHOUT ROWID
        """
    )


@migrations()
def ended_passes(db: Database) -> None:
    # A fee is given back when its pass ends, and no pass ends twice. The index that said so cost
    # every cancellation one more page at random. A program that does not know it goes on.
    db.execute("DROP INDEX events_refund")
    db.execute(
        """
        CREATE TRIGGER passes_ended
        BEFORE UPDATE OF status, currency, fee_micros, fee_refunded, end_time_us ON passes
        WHEN old.end_time_us IS NOT NULL
            AND (new.status, new.currency, new.fee_micros, new.fee_refunded, new.end_time_us)
                IS NOT
                (old.status, old.currency, old.fee_micros, old.fee_refunded, old.end_time_us)
        BEGIN
            SELECT raise(ABORT, 'a pass that has ended stays as it is');
        END
        """
    )


SCHEMA: Final = schema.Schema(tuple(each.name for each in migrations._migrations), OLDEST)  # noqa: SLF001 no accessor


def found(connection: Any) -> schema.Found:
    """Reads what the database records of its schema."""
    db = Database(connection, execute_plugins=False)
    applied = [each.name for each in migrations.applied(db)]
    recorded = "schema_compatibility" in db.table_names()
    query = "SELECT oldest FROM schema_compatibility"
    return schema.Found(applied, connection.execute(query).fetchone()[0] if recorded else 0)


def apply(connection: Any, plan: schema.Plan) -> None:
    """Brings the schema up to date.

    Args:
        connection: in a transaction.
        plan: from `schema.plan`.
    """
    recorded = found(connection).oldest
    if plan.migrations:
        migrations.apply(Database(connection, execute_plugins=False))
    if plan.migrations or not recorded:
        connection.execute(
            "CREATE TABLE IF NOT EXISTS schema_compatibility (oldest INTEGER NOT NULL) STRICT"
        )
        connection.execute("DELETE FROM schema_compatibility")
        connection.execute("INSERT INTO schema_compatibility VALUES (?)", (max(recorded, OLDEST),))
