"""The write-ahead log: it belongs to this database, and is on disk before anything is answered.

What a process finds in the WAL is not always on disk. The previous process may have been killed
between a commit's write and its fsync; the commit is then in the page cache only, and SQLite would
recover and serve it from there. Worse, if that fsync failed, the kernel has marked the pages clean,
and a later fsync succeeds without writing them. A checkpoint alone does not help: it syncs the WAL
first, which does nothing for such pages, and a power cut while it overwrites the database would
leave neither whole. So `settle` does two things, in this order:

1. Holding the write lock, it rewrites the WAL's bytes in place, which makes the pages dirty, and
   syncs them. From then on everything in the WAL is on disk.
2. A TRUNCATE checkpoint copies the WAL into the database, which SQLite syncs before it empties the
   WAL. It writes every page again, so an earlier, interrupted checkpoint does not matter. It may be
   postponed (the disk is full, a reader is in the way), as step 1 has made everything durable.

A WAL that another file left behind is never replayed. SQLite would: a backup copied over a database
whose process was killed would get the other one's pages and be damaged. The database's header tells
them apart. A database gets a random `schema_version` when it is first served, and `user_version`
repeats it; both are raised together when the schema changes. Both ways to make a backup (VACUUM
INTO, the backup API) change `schema_version` alone. A file copied while nobody served it cannot be
told from the original, and its WAL is replayed.
"""

import os
import secrets
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import structlog

from idpass_server.store import CannotOpen
from idpass_server.store.sqlite.paths import Names, sync_folder

_CHUNK_BYTES: Final = 1 << 20
_WAL_HEADER: Final = struct.Struct(">I4xI4x8s8s")  # magic number, page size, salts, checksum
_FRAME_HEADER: Final = struct.Struct(">I4x8s8s")  # page number, salts, checksum
_CHECKSUM: Final = struct.Struct(">II")
_VERSIONS: Final = struct.Struct(">40xI16xI36x")  # schema_version, user_version
_MARKS: Final = range(1 << 20, 1 << 30)
_NEAR: Final = 1_000
"""Upper bound on schema changes in the life of one WAL; there are far fewer."""

log = structlog.get_logger()


def settle(connection: Any, names: Names) -> None:
    """Syncs everything in the WAL, and empties the WAL if possible.

    Args:
        connection: with no transaction open.
        names: of the files.

    Raises:
        sqlite3.Error: the database cannot be written.
        OSError: the WAL cannot be written.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        _write_again(names.wal)
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    try:
        busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        why = "another connection is in the way" if busy else ""
    except connection.OperationalError as error:
        if error.sqlite_errorname != "SQLITE_FULL":
            raise
        why = "the disk is full"
    if why:
        log.warning("checkpoint_put_off", path=str(names.file), cause=why)


def _write_again(wal: Path) -> None:
    """Rewrites a file's bytes in place, and syncs the file and its name.

    Raises:
        OSError: it cannot be written.
    """
    descriptor = os.open(wal, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        offset = 0
        while chunk := os.pread(descriptor, _CHUNK_BYTES, offset):
            offset += os.pwrite(descriptor, chunk, offset)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    sync_folder(wal)


def refuse_foreign(names: Names, descriptor: int) -> None:
    """Refuses a database beside the WAL of another one.

    Args:
        names: of the files.
        descriptor: of the database.

    Raises:
        CannotOpen: another file left the WAL behind, or it cannot be read.
    """
    try:
        belongs = _wal_belongs(names, descriptor)
    except OSError as error:
        raise CannotOpen(
            f"{names.given} or its WAL cannot be read: {error.strerror}; if its disk is sound, "
            "start again"
        ) from error
    if not belongs:
        raise CannotOpen(
            f"{names.given} is a backup, or another database, and {names.wal.name} beside it was "
            "left behind by the one that was there before; together they would damage each other. "
            f"To go on with what is in {names.file.name}: rm {names.wal} {names.shm}"
        )


def _wal_belongs(names: Names, descriptor: int) -> bool:
    header = os.pread(descriptor, _VERSIONS.size, 0)
    if len(header) < _VERSIONS.size or not names.wal.exists():
        return True
    schema_version, user_version = _VERSIONS.unpack(header)
    if not user_version:
        return True
    wal = os.open(names.wal, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return _belongs(schema_version, user_version, _first_pages(wal))
    finally:
        os.close(wal)


def _belongs(schema_version: int, user_version: int, in_wal: Iterable[int | None]) -> bool:
    """Whether a WAL can belong to a file with this header.

    Args:
        schema_version: in the file's header.
        user_version: in the file's header.
        in_wal: for each frame its `schema_version`, None if it is not the first page's.
    """
    frames = first_pages = 0
    for version in in_wal:
        frames += 1
        if version is None:
            continue
        first_pages += 1
        if abs(version - schema_version) >= _NEAR:
            continue
        # Either a backup, or another program has just changed the schema (Litestream adds tables).
        if schema_version == user_version or version >= schema_version > user_version:
            return True
    return not frames or (schema_version == user_version and not first_pages)


def _first_pages(wal: int) -> Iterator[int | None]:
    """The `schema_version` in a WAL's frames, None in those of other pages than the first.

    A power cut leaves frames that are written in part. SQLite takes none from there on, and they
    say nothing of whose WAL it is. Each frame goes on with the checksum of the one before, and it
    costs time, so only those that say something are checked, and the first.

    Args:
        wal: its descriptor.
    """
    header = os.pread(wal, _WAL_HEADER.size, 0)
    if len(header) < _WAL_HEADER.size:
        return
    magic, page_bytes, salts, before = _WAL_HEADER.unpack(header)
    order = ">" if magic & 1 else "<"
    if _checksum(order, bytes(8), header[:24]) != before:
        return
    offset = _WAL_HEADER.size
    while len(head := os.pread(wal, _FRAME_HEADER.size, offset)) == _FRAME_HEADER.size:
        page, frame_salts, checksum = _FRAME_HEADER.unpack(head)
        if frame_salts != salts:
            return
        version = None
        if page == 1 or offset == _WAL_HEADER.size:
            content = os.pread(wal, page_bytes, offset + _FRAME_HEADER.size)
            if (
                len(content) < page_bytes
                or _checksum(order, before, head[:8] + content) != checksum
            ):
                return
            version = _VERSIONS.unpack_from(content)[0] if page == 1 else None
        yield version
        before = checksum
        offset += _FRAME_HEADER.size + page_bytes


def _checksum(order: str, before: bytes, data: bytes) -> bytes:
    """SQLite's checksum of a part of a WAL.

    Args:
        order: of the bytes of each word, as the WAL's header says.
        before: checksum of what comes before.
        data: of 8 bytes, or a multiple.
    """
    first, second = _CHECKSUM.unpack(before)
    words = iter(struct.unpack(f"{order}{len(data) // 4}I", data))
    for one, other in zip(words, words, strict=True):
        first = (first + one + second) & 0xFFFFFFFF
        second = (second + other + first) & 0xFFFFFFFF
    return _CHECKSUM.pack(first, second)


def claim(connection: Any, names: Names) -> None:
    """Marks a file that is new, a backup, or of an earlier program as a database of its own.

    The mark bypasses the WAL, as a WAL that held it would look like another file's.

    Args:
        connection: the only one, with no transaction open and a settled WAL.
        names: of the files.

    Raises:
        sqlite3.Error: it cannot be written.
    """
    schema_version, user_version = _versions(connection)
    if (user_version and schema_version == user_version) or names.wal.stat().st_size:
        return
    connection.execute("PRAGMA journal_mode = DELETE")
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(f"PRAGMA schema_version = {_MARKS.start + secrets.randbelow(len(_MARKS))}")
    mark(connection)
    connection.execute("COMMIT")
    connection.execute("PRAGMA journal_mode = WAL")


def mark(connection: Any) -> None:
    """Copies `schema_version` to `user_version`, in the open transaction or one of its own.

    Args:
        connection: for changes.

    Raises:
        sqlite3.Error: it cannot be written.
    """
    schema_version, user_version = _versions(connection)
    if user_version != schema_version:
        connection.execute(f"PRAGMA user_version = {schema_version}")


def _versions(connection: Any) -> tuple[int, int]:
    (schema_version,) = connection.execute("PRAGMA schema_version").fetchone()
    (user_version,) = connection.execute("PRAGMA user_version").fetchone()
    return schema_version, user_version
