"""A server with HTTP and a callers file: ann may do everything, rae may only read."""

from pathlib import Path
from typing import Final

from kit.guarded import caller
from kit.http import Http
from kit.support import make_accounts

ACME: Final = caller("ann") + caller("rae", permissions="read watch")
READS: Final = caller("rio", permissions="read")


def guarded(folder: Path, tables: str = ACME + READS) -> Http:
    """Starts it, with the account acme; its callers' tokens are their names with -token behind.

    Args:
        folder: of its own; the file in it is callers.toml.
        tables: of the file.
    """
    db = folder / "idpass.db"
    make_accounts(db, "acme")
    write(folder, tables)
    return Http(db, "--callers", str(folder / "callers.toml"))


def write(folder: Path, tables: str) -> None:
    """Replaces the file, which the server reads again at SIGHUP."""
    (folder / "callers.toml").write_text(tables)
