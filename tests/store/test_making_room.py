"""What a batch loads and saves beside the passes that it names: slots of overdue passes, timers.

On both stores, without a server: batches at times of the test's own.
"""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from idpass_server.ids import new_uuid
from idpass_server.rules.commands import Cancel, Cancelled, Expire, Outcome, Register, Registered
from idpass_server.rules.domain import DAY_US
from idpass_server.rules.records import Account
from idpass_server.rules.refusals import NoFreeSlot
from idpass_server.store import Store
from idpass_server.store.opening import open_store
from kit.serving import url_of
from kit.support import problems

pytestmark = pytest.mark.both_stores

NOW_US = 1_790_000_000_000_000
DAYS = 7


@pytest.fixture
def store(db: Path | str) -> Iterator[Store]:
    """A store with accounts of one slot each."""
    with closing(open_store(url_of(db), create=True)) as opened:
        for name in ("first", "last"):
            opened.create_account(Account(name, 1, 0, "AUD", 4_500_000, 0, 0, 0))
        yield opened
    assert problems(db) == []


def register(store: Store, account: str, now_us: int, pass_id: str | None = None) -> Outcome:
    command = Register(account, "tests", new_uuid(), None, pass_id or new_uuid(), DAYS)
    return store.commit([command], now_us).outcomes[0]


def test_the_slots_of_an_accounts_own_overdue_passes_are_free(store: Store) -> None:
    for account in ("first", "last"):
        assert isinstance(register(store, account, NOW_US), Registered)
    due_us = NOW_US + DAYS * DAY_US
    assert isinstance(register(store, "last", due_us - 1), NoFreeSlot)
    assert isinstance(register(store, "last", due_us), Registered)
    assert isinstance(register(store, "last", due_us), NoFreeSlot)
    (other,) = store.due(due_us, 10, "first")
    assert other.end_time_us is None


def test_timers_of_passes_that_have_ended_keep_no_slot(store: Store) -> None:
    ended = register(store, "last", NOW_US)
    assert isinstance(ended, Registered)
    cancel = Cancel("last", "tests", new_uuid(), None, ended.id_pass.id)
    store.commit([cancel], NOW_US)
    assert isinstance(register(store, "last", NOW_US + 1), Registered)
    later_us = NOW_US + 2 * DAYS * DAY_US
    assert isinstance(register(store, "last", later_us), Registered)


def test_a_timer_is_due_at_its_time_and_gone_when_it_was_served(store: Store) -> None:
    made = register(store, "first", NOW_US)
    assert isinstance(made, Registered)
    due_us = made.id_pass.expire_time_us
    for account in ("first", None):
        assert store.due(due_us - 1, 10, account) == []
        assert [each.id for each in store.due(due_us, 10, account)] == [made.id_pass.id]
    store.commit([Expire("first", new_uuid(), made.id_pass.id)], due_us)
    assert store.due(due_us, 10) == []


def test_passes_of_one_id_in_two_accounts_are_two(store: Store) -> None:
    pass_id = new_uuid()
    for account in ("first", "last"):
        assert isinstance(register(store, account, NOW_US, pass_id), Registered)
    cancel = Cancel("last", "tests", new_uuid(), None, pass_id)
    (outcome,) = store.commit([cancel], NOW_US + 1).outcomes
    assert isinstance(outcome, Cancelled)
    found = [store.get_pass(account, pass_id) for account in ("first", "last")]
    assert [each and each.status for each in found] == ["new", "cancelled"]
