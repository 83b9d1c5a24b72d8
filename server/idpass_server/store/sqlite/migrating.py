"""Bringing a SQLite file's schema up to date, after a backup."""

import os
import time
from pathlib import Path
from typing import Any

import structlog

from idpass_server.store import CannotOpen, schema
from idpass_server.store.sqlite import schema as sqlite_schema
from idpass_server.store.sqlite.file import cannot_open, connect, sqlite3
from idpass_server.store.sqlite.hold import Taken
from idpass_server.store.sqlite.paths import Names, create_private, must_exist, sync_folder
from idpass_server.store.sqlite.wal import mark

log = structlog.get_logger()


def check_schema(connection: Any, path: Path) -> None:
    """Checks that this program may serve the file as it is.

    Raises:
        SchemaOutdated: the file lacks migrations of this program.
        SchemaTooNew: a newer program has changed the schema beyond what this one can serve.
    """
    schema.check(sqlite_schema.SCHEMA, sqlite_schema.found(connection), f"sqlite:///{path}")


def migrate(connection: Any, names: Names, *, alone: bool) -> list[str]:
    """Brings the schema up to date; if the file has data, backs it up beside the file first.

    Args:
        connection: for changes, with no transaction open.
        names: of the files.
        alone: whether no other process serves the file.

    Returns:
        names of the migrations applied.

    Raises:
        SchemaTooNew: a newer program has changed the schema beyond what this one can serve.
        Taken: the process that serves the file could not continue afterwards.
        CannotOpen: the backup cannot be written.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        found = sqlite_schema.found(connection)
        plan = schema.plan(sqlite_schema.SCHEMA, found)
        if plan.ends_older and not alone:
            raise Taken(
                f"{names.given} is being served by another process, which could not go on after "
                f"{', '.join(plan.migrations)}; stop it first"
            )
        if plan.migrations and found.applied:
            back_up(names, f"before-{plan.migrations[0]}")
        sqlite_schema.apply(connection, plan)
        mark(connection)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return plan.migrations


def planned(path: Path) -> schema.Plan:
    """Says what `migrate` would do; changes nothing.

    Raises:
        SchemaTooNew: a newer program has changed the schema beyond what this one can serve.
        CannotOpen: the file does not exist or cannot be read.
    """
    must_exist(Names(path))
    connection = connect(path, read_only=True)
    try:
        return schema.plan(sqlite_schema.SCHEMA, sqlite_schema.found(connection))
    except sqlite3.Error as error:
        raise CannotOpen(cannot_open(path, error)) from error
    finally:
        connection.close()


def back_up(names: Names, word: str) -> Path:
    """Backs up what is committed to a new file beside the database, and syncs it.

    Args:
        names: of the database.
        word: part of the backup's name, before the time.

    Returns:
        path of the backup.

    Raises:
        CannotOpen: it cannot be written.
    """
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    path = names.file.with_name(f"{names.file.name}.{word}-{moment}")
    try:
        descriptor = create_private(path)
        try:
            reader = connect(names.file, read_only=True)
            try:
                reader.execute("VACUUM INTO ?", (str(path),))
            finally:
                reader.close()
            os.fsync(descriptor)
            sync_folder(path)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
    except (OSError, sqlite3.Error) as error:
        raise CannotOpen(
            f"no backup can be written to {path}, and without one the schema is not changed: "
            f"{error}"
        ) from error
    log.info("backup_made", path=str(path))
    return path
