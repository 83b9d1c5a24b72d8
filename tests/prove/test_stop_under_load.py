"""Promise: what was answered before a stop is true after it, and who is told that nothing was
changed can believe it.

Means: calls that come whatever becomes of the earlier ones, without retries, and onlookers whose
streams are open; SIGTERM in the middle, and a successor started at once. Each OK is found again; of
what was refused as unchanged, nothing is. Clients that do retry see no error over many restarts.
Each run prints for how long calls failed, and how. SQLite with and without HTTP, PostgreSQL, and
workers.

Blind spots: what gRPC itself drops as it hangs up, of which no caller can tell what became.
"""

import asyncio
import contextlib
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from idpass.v1.id_pass_service_pb2 import WatchRequest
from kit.open_loop import open_loop, registered
from kit.proving import times
from kit.restarting import restart_under_load
from kit.support import STATUS, Process, problems, process, report

BEFORE_S, AFTER_S = 1.0, 2.0
KINDS = ["sqlite", "http", "postgresql", "workers"]
MORE_OPTIONS = {"workers": ("--workers", "2"), "http": ("--http", "127.0.0.1:0")}


@contextlib.contextmanager
def onlookers(server: Process, http: str | None) -> Iterator[None]:
    """Watchers, and readers of event streams."""
    watches = [server.stub.WatchIdPasses(WatchRequest()) for _ in range(5)]
    for watch in watches:
        next(watch)
    address = f"http://{http}/idpass/events"
    streams = [urllib.request.urlopen(address) for _ in range(3 if http else 0)]
    yield
    for stream in streams:
        stream.close()


def database(request: pytest.FixtureRequest, folder: Path, kind: str) -> Path | str:
    if kind in {"postgresql", "workers"}:
        url: str = request.getfixturevalue("postgres_db")
        return url
    return folder / "idpass.db"


@pytest.mark.parametrize("kind", KINDS)
def test_clients_see_nothing_of_restarts(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str
) -> None:
    db = database(request, tmp_path, kind)
    restart_under_load(db, *MORE_OPTIONS.get(kind, ()), restarts=times(3, 1))


@pytest.mark.parametrize("rate", [30, 300])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_stop_under_load(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str, rate: int
) -> None:
    db = database(request, tmp_path, kind)
    options = ("--drain", "600", *MORE_OPTIONS.get(kind, ()))
    over = asyncio.Event()
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(process(db, *options))
        ids = await asyncio.to_thread(registered, first, rate * 12)
        http = first.wait_for("gateway")["http"] if kind == "http" else None
        stack.enter_context(onlookers(first, http))
        load = asyncio.create_task(open_loop(first.address, rate, ids, over))
        await asyncio.sleep(BEFORE_S)
        signalled_s = time.monotonic()
        first.signal()
        assert await asyncio.to_thread(first.wait) == 0
        stopped_s = time.monotonic()
        again = (db, *options, "--listen", first.address)
        second = await asyncio.to_thread(Process, *again)
        stack.callback(second.kill)
        serving_s = time.monotonic()
        await asyncio.sleep(AFTER_S)
        over.set()
        ended = await load
        failed = [each for each in ended if each.error]
        for each in failed:
            if second.get(each.id_pass).status == STATUS["cancelled"]:
                assert not each.known, each  # told that nothing was changed, and it was
        for each in ended:
            if not each.error:
                assert second.get(each.id_pass).status == STATUS["cancelled"]
    failing_s = failed[-1].sent_s - failed[0].sent_s if failed else 0.0
    title = f"stop under load: {kind}, {rate} calls/s"
    report(
        request,
        title,
        f"stop {stopped_s - signalled_s:.2f} s, start {serving_s - stopped_s:.2f} s, "
        f"calls failed for {failing_s:.2f} s",
    )
    for error, count in Counter(each.error for each in failed).most_common():
        report(request, title, f"{count:5} {error}")
    # What nobody can know is what gRPC itself dropped in the moment of hanging up: the busier the
    # machine, the more of it.
    assert {each.error for each in failed if not each.known} <= {"CANCELLED: CANCELLED"}
    assert problems(db) == []
