"""Statements for a database of either kind, for what operators do beside the hot path.

A statement is written once, in SQL that both databases speak, with parameters as :name. A value
that may be None stands in a CAST: PostgreSQL cannot guess its type.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

STREAMED_ROWS: Final = 1_000
"""Number of rows that `stream` holds at a time."""
_PARAMETER: Final = re.compile(r"(?<!:):([a-z_]+)")


def run(connection: Any, statement: str, **values: object) -> Any:
    """Executes a statement.

    Args:
        connection: of sqlite3 or psycopg.
        statement: with parameters as :name.
        values: of the parameters.

    Returns:
        the cursor.
    """
    if _is_postgres(connection):
        return connection.execute(_in_psycopg(statement), values)
    return connection.execute(statement, values)


def stream(connection: Any, statement: str, **values: object) -> Iterator[Any]:
    """Yields the rows of a query, of which few are in memory at a time.

    Args:
        connection: in a transaction.
        statement: as for `run`.
        values: as for `run`.
    """
    if not _is_postgres(connection):
        yield from connection.execute(statement, values)
        return
    with connection.cursor(name="stream") as cursor:
        cursor.itersize = STREAMED_ROWS
        yield from cursor.execute(_in_psycopg(statement), values)


@contextmanager
def transaction(connection: Any) -> Iterator[None]:
    """Begins a transaction for changes, and commits it, or rolls it back after an error.

    Args:
        connection: in autocommit mode.
    """
    if _is_postgres(connection):
        with connection.transaction():
            yield
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # After an I/O error or on a full disk SQLite has ended the transaction itself.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def for_update(connection: Any) -> str:
    """The end of a SELECT that locks its rows; SQLite's transaction has locked everything."""
    return " FOR UPDATE" if _is_postgres(connection) else ""


def uuids(connection: Any, parameter: str) -> str:
    """A query for the UUIDs in a parameter, which is a JSON array of them.

    Args:
        connection: of sqlite3 or psycopg.
        parameter: its name.
    """
    if _is_postgres(connection):
        return (
            "SELECT CAST(value AS uuid) "  # noqa: S608 the name is a constant
            f"FROM json_array_elements_text(CAST(:{parameter} AS json))"
        )
    return f"SELECT value FROM json_each(:{parameter})"  # noqa: S608 likewise


def _is_postgres(connection: Any) -> bool:
    return hasattr(connection, "pgconn")


def _in_psycopg(statement: str) -> str:
    return _PARAMETER.sub(r"%(\1)s", statement.replace("%", "%%"))
