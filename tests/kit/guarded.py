"""A server that knows its callers, for the tests of who may do what."""

import asyncio
import hashlib
from pathlib import Path
from typing import Any

from idpass_server.store.opening import reading_store
from kit.support import Service, make_accounts

ALL = "register read advance cancel watch webhooks"


def digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def caller(name: str, account: str = "acme", permissions: str = ALL) -> str:
    """A table of the callers file; the token is the name with -token behind it."""
    listed = ", ".join(f'"{permission}"' for permission in permissions.split())
    return (
        f'[callers.{name}]\naccount = "{account}"\npermissions = [{listed}]\n'
        f'token_sha256 = "{digest(f"{name}-token")}"\n'
    )


class Guarded(Service):
    """A server with a callers file, and the accounts acme and beta.

    Args:
        folder: for the file.
        tables: of the file.
        db: the database; None is a SQLite file in the folder.
    """

    def __init__(
        self, folder: Path, *tables: str, db: Path | str | None = None, **settings: Any
    ) -> None:
        self.file = folder / "callers.toml"
        self.file.write_text("\n".join(tables))
        db = db or folder / "idpass.db"
        make_accounts(db, "acme", "beta")
        super().__init__(db, callers=str(self.file), **settings)

    def reload(self, *tables: str) -> None:
        """Has the server read another file."""
        self.file.write_text("\n".join(tables))
        self.read_again()

    def read_again(self) -> None:
        reload = asyncio.run_coroutine_threadsafe(self.server.reload(), self.loop)
        reload.result(timeout=30)


def rows(url: str, account: str) -> dict[str, list[tuple[object, ...]]]:
    """Everything that the database holds of an account."""
    with reading_store(url) as connection:
        return {
            table: [
                tuple(row)
                for row in connection.execute(
                    f"SELECT * FROM {table} WHERE {column} = '{account}' ORDER BY 1, 2, 3"
                )
            ]
            for table, column in (
                ("accounts", "name"),
                *(("passes", "account"), ("events", "account"), ("timers", "account")),
            )
        }
