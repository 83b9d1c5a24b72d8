"""Files that are read again: what counts as a change, and what does not."""

import asyncio
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from idpass_server.hosting import reloading
from idpass_server.hosting.reloading import Reloading, apart


class Reader:
    """Keeps what it read; a file that says `fault` it cannot take."""

    def __init__(self, *paths: Path) -> None:
        self.paths = paths
        self.read: list[str] = []

    async def load(self) -> None:
        text = "".join(path.read_text() for path in self.paths if path.exists())
        self.read.append(text)
        if text == "fault":
            raise ValueError(text)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.001)


def watched(file: Path) -> reloading._Watched:
    return reloading._Watched([file], Reader(file).load)


def test_a_file_that_is_still_being_written_is_left_until_it_is_whole(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("first")
    one = watched(file)
    assert not one.has_changed()
    for half in ("sec", "second,", "second, and "):
        file.write_text(half)
        assert not one.has_changed()
    file.write_text("second, and last")
    assert [one.has_changed() for _ in range(4)] == [False, True, False, False]


def test_a_file_that_is_put_in_anothers_place_has_changed(tmp_path: Path) -> None:
    folder = tmp_path / "1"
    folder.mkdir()
    (folder / "file").write_text("same")
    link = tmp_path / "current"
    link.symlink_to(folder)
    one = watched(link / "file")
    other = tmp_path / "2"
    other.mkdir()
    (other / "file").write_text("same")
    stat = (folder / "file").stat()
    os.utime(other / "file", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    (tmp_path / "next").symlink_to(other)
    (tmp_path / "next").rename(link)
    assert [one.has_changed() for _ in range(3)] == [False, True, False]


def test_a_file_that_goes_and_comes_has_changed_each_time(tmp_path: Path) -> None:
    file = tmp_path / "file"
    one = watched(file)
    assert not one.has_changed()
    file.write_text("there")
    assert [one.has_changed() for _ in range(3)] == [False, True, False]
    file.unlink()
    assert [one.has_changed() for _ in range(3)] == [False, True, False]


async def test_a_file_system_that_hangs_keeps_nothing_waiting() -> None:
    hung = threading.Event()
    try:
        reading = asyncio.create_task(apart(hung.wait))
        await until(lambda: "files" in {thread.name for thread in threading.enumerate()})
        assert await apart(lambda: "answered") == "answered"
        reading.cancel()  # as the stop does
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert all(thread.daemon for thread in threading.enumerate() if thread.name == "files")
    finally:
        hung.set()


async def test_what_is_raised_apart_is_raised_to_whoever_waits() -> None:
    with pytest.raises(ZeroDivisionError):
        await apart(lambda: 1 // 0)


async def test_a_fault_ends_neither_the_watching_nor_that_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reloading, "INTERVAL_S", 0.005)
    first, second = Reader(tmp_path / "first"), Reader(tmp_path / "second")
    files = Reloading()
    for reader in (first, second):
        files.watch(reader.paths, reader.load)
    task = asyncio.create_task(files.run())
    (tmp_path / "first").write_text("fault")
    await until(lambda: "fault" in first.read)
    (tmp_path / "second").write_text("well")
    await until(lambda: "well" in second.read)
    (tmp_path / "first").write_text("mended")
    await until(lambda: "mended" in first.read)
    await files.reload()
    assert (first.read[-1], second.read[-1]) == ("mended", "well")
    task.cancel()
