"""What operators are promised, beyond every answer: of backups, restores, purges, migrations."""

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from idpass_server.store import CannotOpen, Store
from idpass_server.store.opening import audit_store, open_store
from idpass_server.store.sqlite.backup import verify_digest
from idpass_server.store.sqlite.store import SqliteStore
from kit.cut_disks import Promise, lost
from kit.serving import url_of

BACKUP: Final = "copy.db"


@dataclass
class BackedUp(Promise):
    """A backup is whole when it has its name, and there once the command has ended.

    Marks: `backup` and `load2` around the command.
    """

    def broken(self, store: Store, folder: Path, position: int) -> list[str]:
        found = super().broken(store, folder, position)
        backup = folder / BACKUP
        if not backup.exists():
            return found + ["the backup is gone"] * self.past("load2", position)
        found += [f"backup: {each}" for each in audit_store(url_of(backup)).problems]
        if self.past("load2", position):
            verify_digest(backup)
            with closing(open_store(url_of(backup))) as copy:
                found += lost(copy, self.until(self.marks["backup"]))
        return found


@dataclass
class Restored(Promise):
    """A restore leaves one of two databases whole; a purge removes what it should, no more.

    Marks: `backup`, `purge` and `purged`, `restore` and `restored`.

    Attributes:
        old: ids of passes to be purged, after the backup.
        history: of the former database.
    """

    old: tuple[str, ...] = ()
    history: str = ""

    def broken(self, store: Store, folder: Path, position: int) -> list[str]:  # noqa: ARG002
        restored = store.history() != self.history
        found = lost(store, self.until(self.marks["backup"] if restored else position))
        if restored and not self.past("restore", position):
            found.append("it has another history before the restore")
        if not restored and self.past("restored", position):
            found.append("the restored database is gone")
        there = {each.id for each in store.get_passes("demo", self.old)}
        if there and self.past("purged", position) and not restored:
            found.append(f"{len(there)} passes are there that were purged")
        if len(there) < len(self.old) and (restored or not self.past("purge", position)):
            found.append(f"{len(self.old) - len(there)} passes are gone that were not purged")
        return found


@dataclass
class Migrated(Promise):
    """A migration keeps every pass, and leaves a backup of what was before it.

    Attributes:
        statuses: of the passes that were there, by id.
    """

    statuses: dict[str, str] = None  # type: ignore[assignment]

    def broken(self, store: Store, folder: Path, position: int) -> list[str]:
        found = super().broken(store, folder, position)
        passes = {each.id: str(each.status) for each in store.get_passes("demo", self.statuses)}
        if passes != self.statuses:
            found.append(f"passes are {passes}, not {self.statuses}")
        assert isinstance(store, SqliteStore)
        if not store.migrated:
            found += self._before(folder)
        return found

    def _before(self, folder: Path) -> list[str]:
        backups = list(folder.glob("*.before-*"))
        for backup in backups:
            try:
                with closing(SqliteStore(backup, create=False)) as store:
                    if len(store.get_passes("demo", self.statuses)) == len(self.statuses):
                        return []
            except CannotOpen:
                continue
        return [f"it was migrated, and none of {backups} is what was before"]
