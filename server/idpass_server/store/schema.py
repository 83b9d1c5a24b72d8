"""Which program may serve which schema, whatever the database. Pure: no SQL.

A program has an ordered list of migrations; a database records which of them it has. A migration
that the previous program tolerates (a new table, a column with a default that it never names)
leaves `oldest` as it is, and both programs serve the database side by side. Any other raises it.
"""

from collections.abc import Collection
from typing import NamedTuple

from idpass_server.store import CannotOpen


class Schema(NamedTuple):
    """The schema of a program.

    Attributes:
        migrations: names in the order of application; none is ever removed.
        oldest: number of them that a program must know to serve a database that has them all.
    """

    migrations: tuple[str, ...]
    oldest: int


class Found(NamedTuple):
    """What a database records of its schema.

    Attributes:
        applied: names of the migrations that it has.
        oldest: number of migrations that a program must know to serve it; 0 in databases older
            than this record.
    """

    applied: Collection[str]
    oldest: int


class Plan(NamedTuple):
    """What brings a database up to date.

    Attributes:
        migrations: names of those to apply, in order; empty if it is up to date.
        ends_older: whether an older program that serves it now may be unable to afterwards.
    """

    migrations: list[str]
    ends_older: bool


class SchemaOutdated(CannotOpen):
    """The database lacks migrations of this program; the message has the command to run."""


class SchemaTooNew(CannotOpen):
    """The database has migrations that this program does not know and cannot tolerate."""


def plan(schema: Schema, found: Found) -> Plan:
    """Plans how this program would bring a database up to date.

    Args:
        schema: of this program.
        found: what the database records.

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
    """Checks that this program may serve a database as it is.

    Args:
        schema: of this program.
        found: what the database records.
        url: of the database, without secrets.

    Raises:
        SchemaOutdated: the database lacks migrations of this program.
        SchemaTooNew: a newer program has changed it beyond what this one can serve.
    """
    if missing := plan(schema, found).migrations:
        raise SchemaOutdated(
            f"the database lacks {', '.join(missing)}; bring it up to date with: "
            f"idpass-server migrate --db '{url}'"
        )
