"""The commands of one transaction, decided in memory: what is written, and what is not."""

from idpass_server.rules.batch import Batch, Needs
from idpass_server.rules.commands import (
    Advance,
    Advanced,
    Cancel,
    Cancelled,
    Expire,
    Register,
    Registered,
    Settled,
)
from idpass_server.rules.records import Status
from idpass_server.rules.refusals import NoFreeSlot, PassEnded, PassNotFound, RequestIdReused
from kit.records import NOW_US, a_pass, account

OVERDUE = a_pass(Status.OPENED)._replace(expire_time_us=NOW_US - 1)
PASS = a_pass(Status.NEW)


def cancel(**changes: object) -> Cancel:
    return Cancel("acme", "t", "ref", None, PASS.id)._replace(**changes)  # type: ignore[arg-type]


def test_a_refused_command_writes_nothing() -> None:
    batch = Batch([account()], [a_pass(Status.COMPLETE)])
    (outcome,) = batch.run([cancel()], NOW_US)
    assert isinstance(outcome, PassEnded)
    assert (batch.events, batch.created, batch.changed) == ([], {}, {})
    assert batch.changed_accounts() == []


def test_a_refusal_because_a_pass_is_overdue_writes_its_expiry() -> None:
    batch = Batch([account()], [OVERDUE])
    (outcome,) = batch.run([cancel()], NOW_US)
    assert isinstance(outcome, PassEnded)
    assert [event.to_status for event in batch.events] == [Status.EXPIRED]


def test_what_is_due_may_be_said_by_another_time_than_now() -> None:
    batch = Batch([account()], [OVERDUE])
    (outcome,) = batch.run([cancel()], NOW_US, OVERDUE.expire_time_us - 1)
    assert isinstance(outcome, Cancelled)
    assert batch.events[0].event_time_us == NOW_US


def test_no_event_comes_before_an_earlier_one_of_its_pass() -> None:
    """Another host's clock was ahead when it stored the earlier one."""
    ahead = PASS._replace(update_time_us=NOW_US + 500)
    other = a_pass(Status.OPENED)._replace(id="other")
    batch = Batch([account()], [ahead, other])
    batch.run([cancel(), cancel(id="other")], NOW_US)
    assert [event.event_time_us for event in batch.events] == [NOW_US + 500] * 2


def test_validate_only_does_not_even_let_an_overdue_pass_expire() -> None:
    batch = Batch([account()], [OVERDUE])
    (outcome,) = batch.run([cancel(validate_only=True)], NOW_US)
    assert isinstance(outcome, PassEnded)
    assert outcome.id_pass.status == Status.EXPIRED
    assert batch.events == []


def test_commands_on_one_pass_see_what_those_before_them_did() -> None:
    batch = Batch([account()], [PASS])
    outcomes = batch.run(
        [
            Advance("acme", "t", "ref", "a", PASS.id, Status.OPENED),
            cancel(request_id="c"),
            cancel(request_id="c"),
            cancel(),
            Advance("acme", "t", "ref", "a", PASS.id, Status.OPENED),
            cancel(request_id="a"),
        ],
        NOW_US,
    )
    kinds = [type(outcome) for outcome in outcomes]
    assert kinds == [Advanced, Cancelled, Cancelled, PassEnded, Advanced, RequestIdReused]
    assert [getattr(outcome, "replayed", None) for outcome in outcomes[:3]] == [False, False, True]
    assert [event.sequence for event in batch.events] == [42, 43]
    (changed,) = batch.changed.values()
    assert (changed.status, changed.event_sequence) == (Status.CANCELLED, 43)
    (after,) = batch.changed_accounts()
    assert (after.slots_in_use, after.last_sequence) == (2, 43)


def test_a_pass_made_and_moved_in_one_batch_is_stored_once() -> None:
    batch = Batch([account()], [])
    made, moved = batch.run(
        [
            Register("acme", "t", "ref", None, "new-id"),
            Advance("acme", "t", "ref", None, "new-id", Status.OPENED),
        ],
        NOW_US,
    )
    assert isinstance(made, Registered)
    assert isinstance(moved, Advanced)
    assert [p.status for p in batch.created.values()] == [Status.OPENED]
    assert batch.changed == {}


def test_a_replayed_registration_tells_of_the_pass_it_superseded() -> None:
    register = Register("acme", "t", "ref", "r", "new-id", supersedes=PASS.id)
    batch = Batch([account()], [PASS])
    first, again = batch.run([register, register._replace(id="other-id")], NOW_US)
    assert isinstance(first, Registered)
    assert again == first._replace(replayed=True)


def test_a_replay_shows_nothing_of_what_others_did_to_the_pass_later() -> None:
    register = Register("acme", "ann", "ref-1", "r", "new-id")
    opened = Advance("acme", "bob", "ref-2", "o", "new-id", Status.OPENED)
    supersede = Register("acme", "eve", "ref-3", None, "newer-id", supersedes="new-id")
    batch = Batch([account()], [])
    made, moved, _, made_again, moved_again = batch.run(
        [register, opened, supersede, register, opened], NOW_US
    )
    for first, again in ((made, made_again), (moved, moved_again)):
        assert isinstance(first, Registered | Advanced)
        assert isinstance(again, Registered | Advanced)
        # Whose number is no business of callers.
        as_then = again.id_pass._replace(event_sequence=first.id_pass.event_sequence)
        assert again._replace(id_pass=as_then) == first._replace(replayed=True)


def test_one_overdue_pass_makes_room_for_one_registration() -> None:
    full = account(slot_limit=3)
    batch = Batch([full], [], overdue=[OVERDUE])
    outcomes = batch.run([Register("acme", "t", "ref", None, f"new-{n}") for n in range(2)], NOW_US)
    assert [type(outcome) for outcome in outcomes] == [Registered, NoFreeSlot]


def test_an_overdue_pass_that_ended_earlier_in_the_batch_makes_no_room_again() -> None:
    full = account(slot_limit=3)
    batch = Batch([full], [OVERDUE], overdue=[OVERDUE])
    registers = [Register("acme", "t", "ref", None, f"new-{n}") for n in range(2)]
    outcomes = batch.run([cancel(), *registers], NOW_US)
    assert [type(outcome) for outcome in outcomes] == [PassEnded, Registered, NoFreeSlot]
    assert batch.accounts["acme"].slots_in_use == 3


def test_the_same_request_id_is_another_one_in_another_account() -> None:
    theirs = PASS._replace(account="beta")
    first = Batch([account(name="beta")], [theirs])
    first.run([cancel(account="beta", request_id="r")], NOW_US)
    (receipt,) = first.events
    (moved,) = first.changed.values()
    batch = Batch([account(), account(name="beta")], [PASS, moved], [receipt])
    ours, again = batch.run(
        [cancel(request_id="r"), cancel(account="beta", request_id="r")], NOW_US
    )
    assert isinstance(ours, Cancelled)
    assert (ours.event.account, ours.replayed) == ("acme", False)
    assert again == Cancelled(receipt, replayed=True)


def test_a_pass_that_was_not_found_is_not_there() -> None:
    (outcome,) = Batch([account()], []).run([cancel()], NOW_US)
    assert isinstance(outcome, PassNotFound)


def test_a_timer_has_done_its_work_when_its_pass_has_ended() -> None:
    expire = Expire("acme", "ref", PASS.id)
    for subject, ended in ((PASS, []), (OVERDUE, [Status.EXPIRED])):
        batch = Batch([account()], [subject])
        assert batch.run([expire], NOW_US) == [Settled()]
        assert [p.status for p in batch.timers_done] == ended


def test_accounts_are_needed_in_sorted_order() -> None:
    names = list("himajdbgkcfel")
    commands = [cancel(account=name, request_id="r") for name in [*names, "a"]]
    assert Needs.of(commands).accounts == sorted(names)
    assert Needs.of(commands).receipts == [(name, "r") for name in names]
