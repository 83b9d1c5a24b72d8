"""A new history: who holds a position that is gone is told so, and never given other events."""

import asyncio
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from idpass_server.engine.reads import Reads
from idpass_server.rules.positions import PURGED
from idpass_server.rules.refusals import HistoryLost
from idpass_server.store import opening
from idpass_server.store.sqlite.file import connect
from idpass_server.urls import sqlite_path
from kit.serving import url_of
from kit.support import STATUS, Service, Told, cli, make_accounts, problems, refused

pytestmark = pytest.mark.both_stores

OTHER_HISTORY = "01932c07-0000-7000-8000-000000000000"


def execute(db: Path | str, sql: str) -> list[Any]:
    """Runs a statement on the database itself."""
    path = sqlite_path(url_of(db))
    if path is None:
        with psycopg.connect(url_of(db), autocommit=True) as connection:
            cursor = connection.execute(sql)
            return cursor.fetchall() if cursor.description else []
    with closing(connect(path)) as file:
        found: list[Any] = file.execute(sql).fetchall()
        return found


def lost(service: Service, after: int, **fields: Any) -> Told:
    error = refused(lambda: next(service.watch(after_sequence=after, **fields)))
    assert error.reason == "HISTORY_LOST"
    return error


@pytest.fixture
def restored(db: Path | str) -> Callable[[], Service]:
    """Begins a new history, as after a restore, and serves it."""

    def begin() -> Service:
        opening.begin_history(url_of(db))
        return Service(db)

    return begin


def test_positions_up_to_the_backup_go_on_and_later_ones_are_lost(
    db: Path | str, restored: Callable[[], Service]
) -> None:
    service = Service(db)
    passes = [service.register().id_pass.id for _ in range(3)]
    former = service.account()
    assert (former.last_sequence, former.oldest_sequence) == (3, 0)
    service.stop()

    service = restored()
    try:
        account = service.account()
        assert account.history != former.history
        assert account.last_sequence > 1_700_000_000_000_000
        assert account.oldest_sequence == 0
        for after in (4, 5_000, account.last_sequence - 1):
            error = lost(service, after)
            assert error.metadata == {
                "afterSequence": str(after),
                "oldestSequence": "0",
                "history": account.history,
            }
        service.cancel(passes[0])
        new = account.last_sequence + 1
        for after, expected in (
            (0, [1, 2, 3, new]),
            (2, [3, new]),
            (3, [new]),
            (account.last_sequence, [new]),
        ):
            events = service.events(new, after_sequence=after)
            assert [event.sequence for event in events] == expected
        assert service.account().last_sequence == new
    finally:
        service.stop()
    assert problems(db) == []


def test_two_restores_of_one_backup_never_give_the_same_numbers(
    db: Path | str, restored: Callable[[], Service]
) -> None:
    service = Service(db)
    service.register()
    service.stop()
    seen = []
    for _ in range(2):
        service = restored()
        service.register()
        seen.append(service.account().last_sequence)
        service.stop()
    service = restored()
    try:
        events = service.events(seen[1])
        assert [event.sequence for event in events] == [1, *seen]
        lost(service, seen[0] + 1)
        lost(service, seen[1] + 1)
        service.cancel(service.register().id_pass.id)
        assert len(service.events(after_sequence=seen[0])) == 3
    finally:
        service.stop()
    assert problems(db) == []


def test_a_stream_tells_its_history_and_refuses_positions_of_another(
    db: Path | str, restored: Callable[[], Service]
) -> None:
    service = Service(db)
    service.register()
    history = service.account().history
    stream = service.watch(history=history)
    assert dict(stream.initial_metadata())["idpass-history"] == history
    assert next(stream).sequence == 1
    stream.cancel()
    lost(service, 1, history=OTHER_HISTORY)
    assert next(service.watch(history=OTHER_HISTORY)).sequence == 1
    error = refused(lambda: next(service.watch(history="x")))
    assert error.reason == "INVALID_REQUEST"
    service.stop()

    service = restored()
    try:
        service.register()
        last = service.account().last_sequence
        events = service.watch(after_sequence=1, history=history)
        assert next(events).sequence == last
        lost(service, last, history=history)
    finally:
        service.stop()


def test_a_page_token_of_the_former_history_is_lost(
    db: Path | str, restored: Callable[[], Service]
) -> None:
    service = Service(db)
    for _ in range(3):
        service.register()
    token = service.page(page_size=1).next_page_token
    assert len(service.page(page_size=1, page_token=token).id_passes) == 1
    service.stop()

    service = restored()
    try:
        error = refused(lambda: service.page(page_size=1, page_token=token))
        assert error.reason == "HISTORY_LOST"
        assert error.metadata == {"history": service.account().history}
        assert len(service.list_all(page_size=1)) == 3
    finally:
        service.stop()


def test_one_pass_is_watched_on_after_a_restore(
    db: Path | str, restored: Callable[[], Service]
) -> None:
    service = Service(db)
    pass_id = service.register().id_pass.id
    ended = service.pass_in("cancelled")
    service.stop()
    service = restored()
    try:
        stream = service.watch(id=pass_id, after_sequence=1)
        service.cancel(pass_id)
        assert [event.to_status for event in stream] == [STATUS["cancelled"]]
        assert list(service.watch(id=ended, after_sequence=3)) == []
        lost(service, 5, id=pass_id)
    finally:
        service.stop()
    assert problems(db) == []


def test_a_retry_from_before_the_restore_gets_its_first_answer(
    db: Path | str, restored: Callable[[], Service]
) -> None:
    service = Service(db)
    prior = service.register().id_pass.id
    first = service.register(supersedes=prior, request_id="r")
    service.stop()
    service = restored()
    try:
        again = service.register(supersedes=prior, request_id="r")
        assert again.replayed
        assert (again.id_pass, again.superseded) == (first.id_pass, first.superseded)
    finally:
        service.stop()


def test_an_account_made_after_a_restore_begins_where_the_history_does(
    db: Path | str, restored: Callable[[], Service]
) -> None:
    Service(db).stop()
    restored().stop()
    make_accounts(db, "acme")
    with closing(opening.open_store(url_of(db), exclusive=False)) as store:
        acme, demo = store.get_account("acme"), store.get_account("demo")
        assert acme is not None
        assert demo is not None
        assert acme.last_sequence == demo.last_sequence
        assert store.gaps("acme") == [(0, acme.last_sequence)]
    assert problems(db) == []
    changed = cli("account", "set", "acme", "--fee", "USD 1.00", "--db", url_of(db))
    assert changed.returncode == 0, changed.stderr


def test_reading_on_stops_where_a_purge_took_something(db: Path | str) -> None:
    service = Service(db)
    for _ in range(6):
        service.register()
    service.stop()
    with closing(opening.open_store(url_of(db))) as store:
        reads = Reads(store, None, None, threads=1, on_broken=print)  # type: ignore[arg-type]

        def read(after: int) -> list[int]:
            stretch = asyncio.run(reads.events("demo", after, 2))
            return [event.sequence for event in stretch.events]

        execute(db, f"INSERT INTO history_gaps VALUES ('demo', {PURGED}, 4)")
        execute(db, "DELETE FROM events WHERE sequence IN (3, 4)")
        assert [read(after) for after in (0, 4, 5, 6)] == [[1, 2], [5, 6], [6], []]
        for after in (1, 2, 3):
            with pytest.raises(HistoryLost) as caught:
                read(after)
            assert caught.value.oldest_sequence == 4
        reads.close()


def test_a_purge_that_left_no_event_ends_the_streams_behind_it(db: Path | str) -> None:
    service = Service(db)
    try:
        for _ in range(3):
            service.register()
        service.stop()
        execute(db, f"INSERT INTO history_gaps VALUES ('demo', {PURGED}, 3)")
        execute(db, "DELETE FROM events")
        service = Service(db)
        lost(service, 0)
        stream = service.watch(after_sequence=3)
        service.register()
        assert next(stream).sequence == 4
        stream.cancel()
    finally:
        service.stop()


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("UPDATE events SET sequence = 90 WHERE sequence > 3", "was skipped"),
        ("DELETE FROM history_gaps", "sequence has gaps"),
        ("UPDATE history_gaps SET after_sequence = 2", "was skipped"),
        (
            "UPDATE history_gaps SET before_sequence = before_sequence - 1",
            "sequence has gaps",
        ),
        ("DELETE FROM history", "not exactly one history"),
    ],
)
def test_the_audit_knows_the_gaps(
    db: Path | str, restored: Callable[[], Service], sql: str, said: str
) -> None:
    service = Service(db)
    for _ in range(3):
        service.register()
    service.stop()
    service = restored()
    service.register()
    service.stop()
    assert problems(db) == []
    execute(db, sql)
    assert said in "\n".join(problems(db))


def test_a_new_history_begins_beyond_every_number_that_was_reached(db: Path | str) -> None:
    """Also beyond what only a database that is gone had reached, by a clock that was ahead."""
    Service(db).stop()
    far = 9_000_000_000_000_000
    first = opening.begin_history(url_of(db))
    assert first.base_sequence < far
    execute(db, f"UPDATE accounts SET last_sequence = {far}")
    second = opening.begin_history(url_of(db))
    assert second.base_sequence == far + 1
    third = opening.begin_history(url_of(db))
    assert third.base_sequence == far + 2
    assert len({first.id, second.id, third.id}) == 3
    assert [second.former, third.former] == [first.id, second.id]
