"""The PostgreSQL schema, as migrations: each is applied once, in order, and never edited.

The tables are those of SQLite, and so are the reasons for their form: see `sqlite.schema`. The
account leads every key, so that a distributed database that speaks PostgreSQL's protocol can keep
an account's rows together (co-locate or partition all tables by `account`, or by `name` in
accounts): a transaction then stays on one machine unless it has commands of several accounts.
Nothing here needs an extension, a trigger, a function or a sequence; so an index, and not a trigger
as in SQLite, sees to it that no pass is refunded twice.

Ids are of type uuid, which sorts like their text; names sort by their bytes on every server. Pages
keep room for new versions of a row, so that an update touches no index.
"""

import time
from collections.abc import Mapping
from typing import Any, Final

from idpass_server.store import CannotOpen
from idpass_server.store.schema import Found, Schema, plan
from idpass_server.store.schema import check as schema_check

_LOCK_KEY: Final = 0x49445053  # "IDPS": one process migrates at a time

MIGRATIONS: Final[Mapping[str, str]] = {
    "initial": """
        CREATE TABLE accounts (
            name            text COLLATE "C" NOT NULL PRIMARY KEY,
            slot_limit      bigint NOT NULL CHECK (slot_limit >= 0),
            slots_in_use    bigint NOT NULL CHECK (slots_in_use >= 0),
            currency        text   NOT NULL,
            fee_micros      bigint NOT NULL CHECK (fee_micros >= 0),
            charged_micros  bigint NOT NULL,
            refunded_micros bigint NOT NULL CHECK (refunded_micros <= charged_micros),
            last_sequence   bigint NOT NULL
        ) WITH (fillfactor = 10);

        CREATE TABLE passes (
            account             text COLLATE "C" NOT NULL,
            id                  uuid   NOT NULL,
            status              text   NOT NULL,
            currency            text   NOT NULL,
            fee_micros          bigint NOT NULL,
            fee_refunded        integer NOT NULL,
            applicant_reference text   NOT NULL,
            supersedes          uuid,
            superseded_by       uuid,
            create_time_us      bigint NOT NULL,
            update_time_us      bigint NOT NULL,
            expire_time_us      bigint NOT NULL,
            consent_time_us     bigint,
            end_time_us         bigint,
            cancel_reason       text,
            cancel_note         text,
            caller              text   NOT NULL,
            event_sequence      bigint NOT NULL,
            PRIMARY KEY (account, id)
        ) WITH (fillfactor = 75);

        CREATE TABLE timers (
            account        text COLLATE "C" NOT NULL,
            expire_time_us bigint NOT NULL,
            id_pass_id     uuid   NOT NULL,
            PRIMARY KEY (account, expire_time_us, id_pass_id)
        );

        CREATE TABLE events (
            account           text COLLATE "C" NOT NULL,
            sequence          bigint NOT NULL,
            id_pass_id        uuid   NOT NULL,
            from_status       text,
            to_status         text   NOT NULL,
            event_time_us     bigint NOT NULL,
            caller            text   NOT NULL,
            request_id        text COLLATE "C",
            request_digest    text,
            reference         uuid   NOT NULL,
            currency          text   NOT NULL,
            charge_micros     bigint,
            refund_micros     bigint CHECK (refund_micros IS NULL OR to_status = 'cancelled'),
            reason            text   NOT NULL,
            previous_sequence bigint,
            PRIMARY KEY (account, sequence)
        );
        CREATE UNIQUE INDEX events_request_id ON events (account, request_id)
            WHERE request_id IS NOT NULL;
        CREATE UNIQUE INDEX events_refund ON events (account, id_pass_id)
            WHERE refund_micros IS NOT NULL;

        CREATE TABLE sweep_lease (
            name     text PRIMARY KEY,
            holder   uuid   NOT NULL,
            until_us bigint NOT NULL
        );
        INSERT INTO sweep_lease VALUES ('sweep', '00000000-0000-0000-0000-000000000000', 0);

        INSERT INTO accounts VALUES ('demo', 1000, 0, 'AUD', 4500000, 0, 0, 0);
        """,
    # A program that does not know them goes on, without counting.
    "registrations_per_day": """
        ALTER TABLE accounts
            ADD COLUMN registrations_per_day bigint NOT NULL DEFAULT 0
                CHECK (registrations_per_day >= 0),
            ADD COLUMN registration_day bigint NOT NULL DEFAULT 0,
            ADD COLUMN registrations_of_day bigint NOT NULL DEFAULT 0
                CHECK (registrations_of_day >= 0);
        """,
    "admin_log": """
        CREATE TABLE admin_log (
            id      uuid   NOT NULL PRIMARY KEY,
            time_us bigint NOT NULL,
            who     text   NOT NULL,
            what    text   NOT NULL,
            account text COLLATE "C",
            before  text,
            after   text
        );
        """,
    # A program that does not know it goes on, and lets a disabled account change its passes.
    "accounts_disabled": """
        ALTER TABLE accounts
            ADD COLUMN disabled integer NOT NULL DEFAULT 0 CHECK (disabled IN (0, 1));
        """,
    # A program that does not know them goes on: such an event leaves the status as it is.
    "erasures": "ALTER TABLE events ADD COLUMN erased integer NOT NULL DEFAULT 0",
    # A program that does not know it goes on: it finds the next sequence in its account.
    "history": """
        CREATE TABLE history (
            id            uuid   PRIMARY KEY,
            begin_time_us bigint NOT NULL,
            base_sequence bigint NOT NULL
        );
        CREATE TABLE history_gaps (
            account         text COLLATE "C" NOT NULL,
            after_sequence  bigint NOT NULL,
            before_sequence bigint NOT NULL CHECK (before_sequence > after_sequence),
            PRIMARY KEY (account, after_sequence)
        );
        INSERT INTO history
            VALUES (gen_random_uuid(), (extract(epoch FROM now()) * 1000000)::bigint, 0);
        """,
    # No change of status sets an applicant_reference, so that only a registration pays for it.
    "passes_applicant_reference": """
        CREATE INDEX passes_applicant_reference ON passes (account, applicant_reference, id)
            WHERE applicant_reference <> '';
        """,
    # `sweep_lease` has one row for good: the program before this one changes all that it has.
    "webhooks": """
        CREATE TABLE webhooks (
            account           text COLLATE "C" NOT NULL,
            id                text COLLATE "C" NOT NULL,
            url               text   NOT NULL,
            wanted            text   NOT NULL,
            state             text   NOT NULL,
            paused_reason     text   NOT NULL,
            generation        bigint NOT NULL,
            previous_until_us bigint NOT NULL,
            cursor            bigint NOT NULL,
            version           bigint NOT NULL,
            caller            text   NOT NULL,
            create_time_us    bigint NOT NULL,
            update_time_us    bigint NOT NULL,
            request_id        text COLLATE "C",
            request_digest    text,
            last_success_us   bigint,
            failing_since_us  bigint,
            PRIMARY KEY (account, id)
        ) WITH (fillfactor = 50);
        CREATE UNIQUE INDEX webhooks_request_id ON webhooks (account, request_id)
            WHERE request_id IS NOT NULL;

        CREATE TABLE webhook_deliveries (
            account      text COLLATE "C" NOT NULL,
            webhook_id   text COLLATE "C" NOT NULL,
            sequence     bigint NOT NULL,
            id_pass_id   text   NOT NULL,
            event_type   text   NOT NULL,
            state        text   NOT NULL,
            attempts     bigint NOT NULL,
            next_time_us bigint NOT NULL,
            event_time_us bigint NOT NULL,
            PRIMARY KEY (account, webhook_id, sequence)
        );

        CREATE TABLE webhook_attempts (
            account     text COLLATE "C" NOT NULL,
            webhook_id  text COLLATE "C" NOT NULL,
            sequence    bigint NOT NULL,
            number      bigint NOT NULL,
            time_us     bigint NOT NULL,
            duration_ms bigint NOT NULL,
            status_code bigint,
            error       text   NOT NULL,
            answer      text   NOT NULL,
            PRIMARY KEY (account, webhook_id, sequence, number)
        );

        CREATE TABLE leases (
            name     text PRIMARY KEY,
            holder   uuid   NOT NULL,
            term     bigint NOT NULL,
            until_us bigint NOT NULL
        );
        INSERT INTO leases VALUES ('webhooks', '00000000-0000-0000-0000-000000000000', 0, 0);
        """,
    # A program that does not know them goes on: only operators purge.
    "purged_totals": """
        CREATE TABLE purged_totals (
            account         text COLLATE "C" NOT NULL PRIMARY KEY,
            passes          bigint NOT NULL,
            events          bigint NOT NULL,
            charged_micros  bigint NOT NULL,
            refunded_micros bigint NOT NULL
        );
        """,
}


OLDEST: Final = 1
"""Number of MIGRATIONS that a program must know to serve a database that has them all."""


def schema() -> Schema:
    """The schema of this program."""
    return Schema(tuple(MIGRATIONS), OLDEST)


def migrate(connection: Any) -> list[str]:
    """Brings the schema up to date, once even if several processes start at the same time.

    Args:
        connection: with no transaction open.

    Returns:
        names of the migrations applied.

    Raises:
        SchemaTooNew: a newer program has changed the schema beyond what this one can serve.
        CannotOpen: the database has the wrong encoding.
    """
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK_KEY,))
        (encoding,) = connection.execute("SELECT current_setting('server_encoding')").fetchone()
        if encoding != "UTF8":
            raise CannotOpen(
                f"the database is encoded in {encoding}; make one with: createdb --encoding UTF8"
            )
        recorded = found(connection)
        missing = plan(schema(), recorded).migrations
        if missing or not recorded.oldest:
            _apply(connection, missing, max(OLDEST, recorded.oldest))
    return missing


def _apply(connection: Any, missing: list[str], oldest: int) -> None:
    connection.execute(
        "CREATE TABLE IF NOT EXISTS schema_migrations "
        "(name text PRIMARY KEY, applied_time_us bigint NOT NULL)"
    )
    connection.execute("CREATE TABLE IF NOT EXISTS schema_compatibility (oldest integer NOT NULL)")
    for name in missing:
        connection.execute(MIGRATIONS[name], prepare=False)
        connection.execute(
            "INSERT INTO schema_migrations VALUES (%s, %s)", (name, time.time_ns() // 1000)
        )
    connection.execute("DELETE FROM schema_compatibility")
    connection.execute("INSERT INTO schema_compatibility VALUES (%s)", (oldest,))


def found(connection: Any) -> Found:
    """Reads what the database records of its schema."""
    applied = _rows(connection, "schema_migrations", "SELECT name FROM schema_migrations")
    oldest = _rows(connection, "schema_compatibility", "SELECT oldest FROM schema_compatibility")
    return Found(applied, max(oldest, default=0))


def _rows(connection: Any, table: str, query: str) -> list[Any]:
    """The values of a table that may not exist yet."""
    (known,) = connection.execute("SELECT to_regclass(%s) IS NOT NULL", (table,)).fetchone()
    return [value for (value,) in connection.execute(query)] if known else []


def check(connection: Any, url: str) -> None:
    """Checks that this program may serve a database as it is.

    Args:
        connection: to the database.
        url: of the database, without secrets.

    Raises:
        SchemaOutdated: the database lacks migrations of this program.
        SchemaTooNew: a newer program has changed it beyond what this one can serve.
    """
    schema_check(schema(), found(connection), url)
