"""Every method against the real service, sync and async alike."""

import itertools
import uuid
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest

from idpass import (
    AlreadyCancelled,
    CancelReason,
    CancelResult,
    InvalidRequest,
    Money,
    NotFound,
    PassChanged,
    RefundNotAvailable,
    ResourceExhausted,
    Status,
    _calls,
)
from kit.client import PutPass

FEE = Money("AUD", Decimal("4.50"))


@pytest.mark.parametrize(
    ("status", "refund"),
    [(Status.NEW, FEE), (Status.OPENED, FEE), (Status.IN_PROGRESS, None)],
)
def test_a_cancelled_pass_gives_a_receipt_with_the_refund(
    client: Any, put_pass: PutPass, status: Status, refund: Money | None
) -> None:
    pass_id = put_pass(status)
    before = datetime.now(timezone.utc)
    receipt = client.cancel(pass_id, reason=CancelReason.ABANDONED, note="gave up")
    assert receipt.id == pass_id
    assert receipt.status is Status.CANCELLED
    assert receipt.fee_refunded is (refund is not None)
    assert receipt.refund == refund
    assert receipt.previous_status is status
    assert timedelta(0) <= receipt.cancel_time - before < timedelta(seconds=10)
    assert receipt.replayed is False
    assert uuid.UUID(receipt.reference)

    id_pass = client.get(pass_id)
    assert id_pass.status is Status.CANCELLED
    assert id_pass.fee_refunded is (refund is not None)
    assert id_pass.end_time == receipt.cancel_time
    assert id_pass.cancellation.reason is CancelReason.ABANDONED
    assert id_pass.cancellation.note == "gave up"
    assert id_pass.cancellation.cancel_time == receipt.cancel_time


def test_a_request_id_is_made_up_and_gets_the_first_answer_again(
    client: Any, put_pass: PutPass
) -> None:
    pass_id = put_pass()
    first = client.cancel(pass_id)
    assert uuid.UUID(first.request_id).variant == uuid.RFC_4122
    assert uuid.UUID(first.request_id).version == 7
    again = client.cancel(pass_id, request_id=first.request_id)
    assert again.replayed
    assert (again.reference, again.refund, again.cancel_time) == (
        first.reference,
        first.refund,
        first.cancel_time,
    )
    with pytest.raises(AlreadyCancelled):
        client.cancel(pass_id)


def test_ids_may_be_uuids(client: Any, put_pass: PutPass) -> None:
    pass_id = uuid.UUID(put_pass())
    assert client.get(pass_id).id == str(pass_id)
    assert client.cancel(pass_id).id == str(pass_id)


def test_validate_only_changes_nothing_and_needs_no_request_id(
    client: Any, put_pass: PutPass
) -> None:
    pass_id = put_pass()
    receipt = client.cancel(pass_id, validate_only=True)
    assert receipt.fee_refunded
    assert receipt.request_id == ""
    assert client.get(pass_id).status is Status.NEW


def test_conditions_of_a_cancellation_are_sent(client: Any, put_pass: PutPass) -> None:
    pass_id = put_pass(Status.IN_PROGRESS)
    with pytest.raises(PassChanged) as changed:
        client.cancel(pass_id, expected_status=Status.OPENED)
    assert changed.value.status is Status.IN_PROGRESS
    with pytest.raises(RefundNotAvailable):
        client.cancel(pass_id, require_refund=True)
    assert client.get(pass_id).status is Status.IN_PROGRESS


def test_a_registered_pass_is_told_in_full(client: Any) -> None:
    receipt = client.register(link_validity_days=3, applicant_reference="applicant 7")
    id_pass = receipt.id_pass
    assert id_pass.status is Status.NEW
    assert id_pass.fee == FEE
    assert str(id_pass.fee) == "AUD 4.50"
    assert id_pass.applicant_reference == "applicant 7"
    assert id_pass.expire_time - id_pass.create_time == timedelta(days=3)
    assert id_pass.create_time.tzinfo is timezone.utc
    unset = (id_pass.consent_time, id_pass.end_time, id_pass.cancellation, id_pass.supersedes)
    assert unset == (None, None, None, None)
    again = client.register(
        link_validity_days=3, applicant_reference="applicant 7", request_id=receipt.request_id
    )
    assert again.replayed
    assert again.id_pass == id_pass


def test_a_superseding_pass_tells_of_the_one_before(client: Any, put_pass: PutPass) -> None:
    prior = put_pass(Status.OPENED)
    receipt = client.register(supersedes=prior)
    assert receipt.superseded.id == prior
    assert receipt.superseded.refund == FEE
    assert receipt.id_pass.supersedes == prior
    assert client.get(prior).superseded_by == receipt.id_pass.id
    with pytest.raises(AlreadyCancelled) as error:
        client.register(supersedes=prior)
    assert error.value.superseded_by == receipt.id_pass.id
    assert error.value.cancel_reason is CancelReason.SUPERSEDED


def test_a_pass_is_advanced_step_by_step(client: Any, put_pass: PutPass) -> None:
    pass_id = put_pass()
    opened = client.advance(pass_id, Status.OPENED, expected_status=Status.NEW)
    assert opened.id_pass.status is Status.OPENED
    again = client.advance(
        pass_id, Status.OPENED, expected_status=Status.NEW, request_id=opened.request_id
    )
    assert again.replayed
    started = client.advance(pass_id, Status.IN_PROGRESS)
    assert started.id_pass.consent_time == started.id_pass.update_time


def test_the_account_is_told(client: Any, put_pass: PutPass) -> None:
    before = client.account()
    client.cancel(put_pass())
    after = client.account()
    assert after.id == "demo"
    assert after.fee == FEE
    assert after.slot_limit == 1_000_000
    assert after.slots_in_use == before.slots_in_use
    assert after.fees_charged.amount - before.fees_charged.amount == FEE.amount
    assert after.fees_refunded.amount - before.fees_refunded.amount == FEE.amount
    assert after.last_sequence == before.last_sequence + 2


def test_a_listing_goes_over_all_pages(
    client: Any, put_pass: PutPass, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_calls, "PAGE_SIZE", 3)
    ids = [put_pass(Status.OPENED) for _ in range(10)]
    listed = list(itertools.islice(client.list(statuses=[Status.OPENED]), 10))
    assert [id_pass.id for id_pass in listed] == ids[::-1]
    monkeypatch.setattr(_calls, "PAGE_SIZE", 300)
    everything = [id_pass.id for id_pass in client.list()]
    assert len(everything) == len(set(everything))
    assert set(ids) <= set(everything)


def test_a_listing_can_be_of_idle_passes_only(client: Any, put_pass: PutPass) -> None:
    pass_id = put_pass()
    idle = {p.id for p in client.list(idle_for=timedelta(days=1))}
    assert pass_id not in idle
    idle = {p.id for p in client.list(idle_before=datetime.now(timezone.utc))}
    assert pass_id in idle
    with pytest.raises(ValueError, match="not both"):
        client.list(idle_for=timedelta(days=1), idle_before=datetime.now(timezone.utc))
    with pytest.raises(ValueError, match="time zone"):
        client.list(idle_before=datetime.now())  # noqa: DTZ005 is the point


def test_a_listing_can_be_of_one_applicant_only(client: Any) -> None:
    person = str(uuid.uuid4())
    wanted = client.register(applicant_reference=person).id_pass
    client.register(applicant_reference=f"{person}-2")
    assert [p.id for p in client.list(applicant_reference=person)] == [wanted.id]


def test_a_watched_pass_tells_its_history_and_ends(client: Any, put_pass: PutPass) -> None:
    pass_id = put_pass(Status.OPENED)
    receipt = client.cancel(pass_id, reason=CancelReason.DUPLICATE)
    events = list(client.watch(pass_id))
    steps = [(event.from_status, event.to_status) for event in events]
    assert steps == [
        (None, Status.NEW),
        (Status.NEW, Status.OPENED),
        (Status.OPENED, Status.CANCELLED),
    ]
    assert [event.refund for event in events] == [None, None, FEE]
    assert [event.reason for event in events] == [None, None, CancelReason.DUPLICATE]
    assert events[-1].request_id == receipt.request_id
    assert events[-1].event_time == receipt.cancel_time
    assert all(event.id == pass_id for event in events)
    with pytest.raises(NotFound):
        next(client.watch(uuid.uuid4()))


def test_a_watcher_sees_what_happens_from_now_on(client: Any, put_pass: PutPass) -> None:
    start = client.account().last_sequence
    events = client.watch(after_sequence=start)
    ids = [put_pass(), put_pass()]
    assert [next(events).id for _ in range(2)] == ids
    ids = [put_pass()]
    event = next(events)
    assert (event.id, event.sequence) == (ids[0], start + 3)
    events.close()


def test_many_are_cancelled_each_with_its_own_result(client: Any, put_pass: PutPass) -> None:
    ids = [put_pass() for _ in range(25)]
    ended = put_pass(Status.CANCELLED)
    given = [*ids[:11], ended, "nonsense", *ids[11:]]
    results = list(client.cancel_many(given, batch_size=4, reason=CancelReason.OTHER))
    assert [result.id for result in results] == given
    assert [r.id for r in results if r.receipt and r.receipt.refund == FEE] == ids
    assert isinstance(results[11].error, AlreadyCancelled)
    assert results[11].error.fee_refunded
    assert results[11].error.request_id == results[11].request_id
    assert isinstance(results[12].error, InvalidRequest)
    assert results[12].error.violations[0].field == "id"
    assert len({result.request_id for result in results}) == len(given)


def test_ids_to_cancel_are_read_only_a_little_ahead(client: Any, put_pass: PutPass) -> None:
    read = 0

    def ids() -> Iterator[str]:
        nonlocal read
        while True:
            read += 1
            yield put_pass()

    results = client.cancel_many(ids(), batch_size=3, in_flight=2)
    assert read == 0
    for _ in range(7):
        assert next(results).receipt.fee_refunded
    assert read <= 7 + 2 * 3
    results.close()


def test_a_batch_that_fails_as_a_whole_is_told_item_by_item_and_raised(
    client: Any, put_pass: PutPass
) -> None:
    ids = [put_pass() for _ in range(2)]
    note = "x" * 200 * 1_000  # one item is more than the service takes as a message
    results = client.cancel_many(itertools.cycle(ids), batch_size=20, note=note)
    seen: list[CancelResult] = []
    with pytest.raises(ResourceExhausted) as failure:
        seen.extend(results)  # keeps what came before the error
    assert len(seen) == 40
    assert {result.id for result in seen} == set(ids)
    assert all(type(result.error) is type(failure.value) for result in seen)
    assert seen[3].error
    assert seen[3].error.request_id == seen[3].request_id
    assert client.get(ids[0]).status is Status.NEW


@pytest.mark.parametrize("bad", [{"batch_size": 0}, {"batch_size": 1_001}, {"in_flight": 0}])
def test_sizes_of_batches_are_checked_at_once(client: Any, bad: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        client.cancel_many([], **bad)


def test_cancelling_none_of_many_is_nothing(client: Any) -> None:
    assert list(client.cancel_many([])) == []


def test_words_stand_for_statuses_and_reasons(client: Any) -> None:
    pass_id = client.register().id_pass.id
    client.advance(uuid.UUID(pass_id), "opened", expected_status="new")
    assert pass_id in {each.id for each in client.list(statuses=["opened"])}
    client.cancel(pass_id, reason="abandoned", expected_status="opened")
    assert client.get(pass_id).cancellation.reason is CancelReason.ABANDONED
    pass_id = client.register().id_pass.id
    (result,) = client.cancel_many([pass_id], reason="duplicate", expected_status="new")
    assert result.receipt


WRONG: dict[str, tuple[Any, type[Exception], str]] = {
    "a status": (lambda c: c.advance("x", "open"), ValueError, "to_status is 'open'; .*opened"),
    "no status": (lambda c: c.advance("x", None), TypeError, "to_status is None"),
    "empty": (lambda c: c.cancel("x", expected_status=""), ValueError, "expected_status is ''"),
    "a number": (lambda c: c.advance("x", 2), TypeError, "to_status is 2; pass a Status"),
    "a reason": (lambda c: c.cancel("x", reason="bored"), ValueError, "reason is .*abandoned"),
    "NEW": (lambda c: c.cancel("x", reason="ABANDONED"), ValueError, "reason is 'ABANDONED'"),
    "other": (lambda c: c.cancel("x", reason=Status.NEW), TypeError, "pass a CancelReason"),
    "many": (lambda c: c.cancel_many(["x"], reason=1), TypeError, "reason is 1"),
    "letters": (lambda c: list(c.list(statuses="new")), TypeError, r"such as \['new'\]"),
    "ids": (lambda c: list(c.cancel_many("abc")), TypeError, r"ids is the text 'abc'"),
    "no id": (lambda c: c.get(None), TypeError, "id is None; pass the UUID"),
    "pass": (lambda c: c.cancel(b"x"), TypeError, "id is b'x'"),
    "prior": (lambda c: c.register(supersedes=7), TypeError, "supersedes is 7"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_word_or_id_is_refused_with_what_to_pass(client: Any, case: str) -> None:
    call, error, text = WRONG[case]
    with pytest.raises(error, match=text):
        call(client)
