"""One process delivers at a time; another takes over, and nothing is missed or written twice."""

from pathlib import Path

import pytest

from idpass_server.ids import new_uuid
from idpass_server.rules.webhooks import Attempt, DeliveryState, Webhook
from idpass_server.store import DELIVERY_LEASE, LEASE_US
from idpass_server.store.opening import open_store
from idpass_server.store.webhooks import Done, Progress
from kit.hooked import ALLOWED, Hooked, key_file
from kit.receiver import Receiver
from kit.support import Process, eventually

NOW_US = 1_790_000_000_000_000


def progress(webhook: Webhook, cursor: int) -> Progress:
    done = Done(cursor, new_uuid(), "id_pass.new", NOW_US, DeliveryState.DELIVERED, 1, 0)
    attempts = [(cursor, Attempt(1, NOW_US, 5, 200, "", "ok"))]
    return Progress(webhook._replace(cursor=cursor), [done], attempts)


def test_a_process_that_has_lost_the_lease_stores_nothing(postgres_db: str) -> None:
    one, two = open_store(postgres_db), open_store(postgres_db)
    try:
        webhook = Webhook(
            *("demo", new_uuid(), "https://example.com/", "", "active", "", 1, 0, 0, 1, "ann"),
            *(NOW_US, NOW_US),
        )
        one.webhooks.create(webhook, 0)
        term = one.claim_lease(DELIVERY_LEASE, NOW_US)
        assert term is not None
        assert one.claim_lease(DELIVERY_LEASE, NOW_US + 1) == term
        assert two.claim_lease(DELIVERY_LEASE, NOW_US + LEASE_US) is None
        assert one.webhooks.save([progress(webhook, 1)], term)
        # The first one hangs; the second takes over.
        late_us = NOW_US + LEASE_US + 2
        other = two.claim_lease(DELIVERY_LEASE, late_us)
        assert other == term + 1
        assert two.webhooks.save([progress(webhook, 5)], other)
        assert not one.webhooks.save([progress(webhook, 2)], term)
        found = one.webhooks.get("demo", webhook.id)
        assert found is not None
        assert found.cursor == 5
        assert [each.sequence for each in one.webhooks.deliveries("demo", webhook.id, 9)] == [5, 1]
        # When it gets it back it knows that another one had it.
        two.release_lease(DELIVERY_LEASE)
        assert one.claim_lease(DELIVERY_LEASE, late_us + 1) == term + 2
        assert not one.webhooks.save([progress(webhook, 2)], term)
    finally:
        one.close()
        two.close()


@pytest.mark.both_stores
def test_what_a_caller_has_changed_meanwhile_is_left_alone(db: Path | str) -> None:
    store = open_store(str(db) if isinstance(db, str) else f"sqlite:///{db}", create=True)
    try:
        webhook = Webhook(
            *("demo", new_uuid(), "https://example.com/", "", "active", "", 1, 0, 0, 1, "ann"),
            *(NOW_US, NOW_US),
        )
        store.webhooks.create(webhook, 0)
        term = store.claim_lease(DELIVERY_LEASE, NOW_US)
        assert term is not None
        store.webhooks.change("demo", webhook.id, lambda it: it._replace(wanted="new"), NOW_US)
        assert store.webhooks.save([progress(webhook, 1)], term)
        found = store.webhooks.get("demo", webhook.id)
        assert found is not None
        assert (found.cursor, found.version) == (0, 2)
        assert store.webhooks.deliveries("demo", webhook.id, 9) == []
        store.webhooks.delete("demo", webhook.id)
        assert store.webhooks.save([progress(webhook, 1)], term)
        assert store.webhooks.get("demo", webhook.id) is None
    finally:
        store.close()


def test_another_process_takes_over_when_the_one_that_delivers_is_killed(
    postgres_db: str, tmp_path: Path, receiver: Receiver
) -> None:
    options = ("--webhook-key", str(key_file(tmp_path)), "--webhook-allow", ALLOWED)
    first = Process(postgres_db, *options)
    try:
        second = Hooked(postgres_db, tmp_path, drain_s=1.0)
    except BaseException:
        first.kill()
        raise
    try:
        second.hook(receiver.url)
        # Whichever delivers, events of both processes come once.
        for server in (first, second):
            server.register()
        receiver.wait_for(2)
        sent_by_first = not second.server._hooks.delivering._holds  # type: ignore[union-attr]
        assert sent_by_first
        first.kill()
        for _ in range(3):
            second.register()
        assert not second.server._hooks.delivering._holds  # type: ignore[union-attr]
        second.time.advance(us=LEASE_US + 60_000_000)  # its own time stands still otherwise
        # Some come once more: that they were taken was not saved yet.
        eventually(lambda: {each.sequence for each in receiver.requests} == {1, 2, 3, 4, 5})
        eventually(lambda: second.server._hooks.delivering._holds)  # type: ignore[union-attr]
        by_sequence: dict[int, set[str]] = {}
        for request in receiver.requests:
            by_sequence.setdefault(request.sequence, set()).add(request.id)
        assert {len(ids) for ids in by_sequence.values()} == {1}
    finally:
        first.kill()
        second.stop()
