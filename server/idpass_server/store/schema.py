"""Which program may serve which schema, whatever the database: pure, no SQL.

A program knows its migrations in order; a database records which of them it has. A migration
that the program before can live with (a new table, a column with a default that it never names)
leaves `oldest` alone, and both programs serve the database side by side. Any other raises it.
"""

from collections.abc import Collection
from typing import NamedTuple

from idpass_server.store import CannotOpen


class Schema(NamedTuple):
    """What a program knows.

    Args:
        migrations: names, in the order in which they are applied; none is ever taken out.
        oldest: how many of them a program has to know to serve a database that has them all.
    """

    migrations: tuple[str, ...]
    oldest: int


class Found(NamedTuple):
    """What a database records.

    Args:
        applied: names of the migrations that it has.
        oldest: how many migrations a program has to know to serve it; 0 where none was recorded
            (databases made before this was).
    """

    applied: Collection[str]
    oldest: int


class Plan(NamedTuple):
    """What bringing a database up to date would do.

    Args:
        migrations: names of those to apply, in order; none where it is up to date.
        ends_older: whether a program that serves the database now may be unable to afterwards.
    """

    migrations: list[str]
    ends_older: bool


class SchemaOutdated(CannotOpen):
    """The database lacks migrations of this program; the message has the command to run."""


class SchemaTooNew(CannotOpen):
    """The database has migrations that this program does not know and cannot live with."""


def plan(schema: Schema, found: Found) -> Plan:
    """What this program would do to bring a database up to date.

    Raises:
        SchemaTooNew: a newer program has changed it beyond what this one can serve.
    """
    unknown = sorted(set(found.applied) - set(schema.migrations))
    missing = [name for name in schema.migrations if name not in found.applied]
    servable = bool(found.oldest) and len(schema.migrations) >= found.oldest
    if unknown and (missing or not servable):
        raise SchemaTooNew(
            f"the database was written by a newer idpass-server (it has {', '.join(unknown)}); "
            "run that version"
        )
    return Plan(missing, bool(missing) and schema.oldest > found.oldest)


def check(schema: Schema, found: Found, url: str) -> None:
    """Lets by a database that this program may serve and change as it is.

    Args:
        url: of the database, as it may be shown.

    Raises:
        SchemaOutdated, SchemaTooNew: see there.
    """
    if missing := plan(schema, found).migrations:
        raise SchemaOutdated(
            f"the database lacks {', '.join(missing)}; bring it up to date with: "
            f"idpass-server migrate --db '{url}'"
        )
