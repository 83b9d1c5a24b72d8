"""A PostgreSQL database brought back to a point in time begins a new history.

The promise: after `idpass-server new-history`, positions up to the point go on, positions beyond it
are HISTORY_LOST, and retries that the point knows get their first answers. The control: without
new-history the same position gets other passes' events. The means: PostgreSQL's own base backup and
WAL archive, and a restore point between changes of the real server.

Blind spots: pgBackRest, which does the same by other means; a failover to a lagging standby.
"""

from collections.abc import Iterator

import pytest

from idpass_server.store.opening import migrate_store
from kit.commands import run
from kit.postgres import Postgres
from kit.support import Service, eventually, problems, refused

POINT = "before_the_mistake"


@pytest.fixture
def own_postgres() -> Iterator[Postgres]:
    with Postgres() as running:
        yield running


def test_a_restore_to_a_point_in_time_begins_a_new_history(own_postgres: Postgres) -> None:
    archive = own_postgres.archive()
    url = own_postgres.create_database("kept")
    migrate_store(url)
    service = Service(url)
    first = service.register(request_id="first")
    restored = own_postgres.back_up()
    second = service.register(request_id="second")
    history = service.account().history
    own_postgres.execute("SELECT pg_create_restore_point(%s)", POINT)
    service.register(request_id="third")
    service.cancel(second.id_pass.id, request_id="late")
    lost = service.account().last_sequence
    assert lost == 4
    own_postgres.execute("CHECKPOINT")
    segment = own_postgres.execute("SELECT pg_walfile_name(pg_switch_wal())")[0][0]
    eventually((archive / segment).exists)
    service.stop()
    own_postgres.stop()

    restored.recover(archive, POINT)
    _control(restored.create_database("control", "kept"), lost, history)
    url = restored.url("kept")
    done = run("new-history", "--db", url, "--yes", "--as", "drill")
    assert history in done.stdout
    service = Service(url)
    try:
        assert service.account().history != history
        for position in (lost - 1, lost):
            error = refused(lambda: next(service.watch(after_sequence=position)))  # noqa: B023
            assert error.reason == "HISTORY_LOST"
        again = service.register(request_id="second")
        assert (again.replayed, again.id_pass) == (True, second.id_pass)
        assert not service.cancel(first.id_pass.id, request_id="late").replayed
        events = service.events(after_sequence=lost - 2)
        assert [event.sequence for event in events] == [service.account().last_sequence]
    finally:
        service.stop()
    assert problems(url) == []


def _control(url: str, lost: int, history: str) -> None:
    """The numbers go on, and somebody who has seen up to `lost` is given an event of another."""
    service = Service(url)
    try:
        assert service.account().history == history
        others = [service.register().id_pass.id for _ in range(3)]
        event = next(service.watch(after_sequence=lost))
        assert (event.sequence, event.id_pass_id) == (lost + 1, others[2])
    finally:
        service.stop()
