"""Erasing what a pass says of its applicant: what goes, what stays, and what a retry is told."""

import pytest

from idpass_server.rules.batch import Batch
from idpass_server.rules.commands import (
    Cancel,
    Cancelled,
    Erase,
    Erased,
    Outcome,
    Register,
    Registered,
)
from idpass_server.rules.domain import DAY_US
from idpass_server.rules.erasure import ERASED, count_erased
from idpass_server.rules.records import Event, Pass, Reason, Status
from idpass_server.rules.refusals import AccountDisabled, PassNotFound, RequestIdReused
from kit.records import NOW_US, a_pass, account

ERASE = Erase("acme", "ref", a_pass(Status.NEW).id)


def named(status: Status) -> Pass:
    note = "Zoe called" if status is Status.CANCELLED else None
    return a_pass(status)._replace(applicant_reference="zoe-77", cancel_note=note)


@pytest.mark.parametrize("status", Status)
def test_only_the_reference_and_the_note_go_in_any_status(status: Status) -> None:
    before = named(status)
    batch = Batch([account()], [before])
    (outcome,) = batch.run([ERASE], NOW_US)
    (after,) = batch.changed.values()
    note = "" if status is Status.CANCELLED else None
    assert after == before._replace(applicant_reference="", cancel_note=note, event_sequence=42)
    assert batch.accounts["acme"] == account(last_sequence=42)
    assert outcome == Erased(
        Event(
            *("acme", 42, before.id, status, status, NOW_US, "operator", None, None, "ref"),
            *("AUD", None, None, "", 41, 1),
        )
    )
    assert list(batch.erased) == [("acme", before.id)]


@pytest.mark.parametrize(("reference", "note"), [("zoe-77", None), ("", "Zoe called")])
def test_either_alone_is_erased(reference: str, note: str | None) -> None:
    before = a_pass(Status.CANCELLED)._replace(applicant_reference=reference, cancel_note=note)
    batch = Batch([account()], [before])
    batch.run([ERASE], NOW_US)
    (after,) = batch.changed.values()
    assert (after.applicant_reference, after.cancel_note or "") == ("", "")
    assert len(batch.events) == 1


def test_erasing_again_is_a_no_op_without_an_event() -> None:
    batch = Batch([account()], [named(Status.CANCELLED)])
    outcomes = batch.run([ERASE, ERASE], NOW_US)
    assert [isinstance(each, Erased) and each.event is None for each in outcomes] == [False, True]
    assert len(batch.events) == 1


def test_an_overdue_pass_expires_before_it_is_erased() -> None:
    batch = Batch([account()], [named(Status.OPENED)._replace(expire_time_us=NOW_US - 1)])
    batch.run([ERASE], NOW_US)
    assert [(event.sequence, event.to_status, event.erased) for event in batch.events] == [
        (42, Status.EXPIRED, 0),
        (43, Status.EXPIRED, 1),
    ]
    assert batch.accounts["acme"] == account(slots_in_use=2, last_sequence=43)


def test_a_pass_that_is_not_there_is_not_found() -> None:
    (outcome,) = Batch([account()], []).run([ERASE], NOW_US)
    assert isinstance(outcome, PassNotFound)


def test_passes_are_counted_and_a_refusal_is_not_taken_for_one() -> None:
    event = receipt("c", Status.NEW, Status.NEW)
    gone = PassNotFound("purged meanwhile")
    outcomes: list[Outcome] = [Erased(event), Erased(None), gone, Erased(event)]
    assert count_erased(outcomes) == 2
    with pytest.raises(AccountDisabled):
        count_erased([*outcomes, AccountDisabled("acme")])


CANCEL = Cancel("acme", "t", "again", "c", ERASE.id, Reason.OTHER, "Zoe called")
REGISTER = Register("acme", "t", "again", "r", "new", 3, "zoe-77")


def receipt(request_id: str, from_status: str | None, to_status: str, reason: str = "") -> Event:
    return Event(
        *("acme", 7, ERASE.id, from_status, to_status, NOW_US, "t", request_id, ERASED, "first"),
        *("AUD", None, None, reason, None),
    )


@pytest.mark.parametrize(
    ("command", "replayed"),
    [
        (CANCEL, True),
        (CANCEL._replace(note="another"), True),  # what was erased cannot be compared
        (CANCEL._replace(reason=Reason.ABANDONED), False),
        (CANCEL._replace(id="other"), False),
        (CANCEL._replace(request_id="r"), False),
        (REGISTER, True),
        (REGISTER._replace(link_validity_days=4), False),
        (REGISTER._replace(request_id="c"), False),
        (REGISTER._replace(supersedes="other"), False),
    ],
)
def test_a_retry_that_meets_an_erased_receipt_is_compared_with_what_is_left(
    command: Cancel | Register, *, replayed: bool
) -> None:
    registered_us = NOW_US - 5 * DAY_US
    blank = a_pass(Status.CANCELLED)._replace(
        create_time_us=registered_us, expire_time_us=registered_us + 3 * DAY_US
    )
    receipts = [
        receipt("r", None, Status.NEW),
        receipt("c", Status.NEW, Status.CANCELLED, Reason.OTHER),
    ]
    batch = Batch([account()], [blank, blank._replace(id="other")], receipts)
    (outcome,) = batch.run([command], NOW_US)
    if replayed:
        assert isinstance(outcome, Cancelled | Registered)
        assert outcome.replayed
    else:
        assert isinstance(outcome, RequestIdReused)
    assert batch.events == []
