"""The lifecycle, every cell of it, decided by pure functions."""

import pytest

from idpass_server.rules import domain
from idpass_server.rules.commands import (
    Advance,
    Cancel,
    Cancelled,
    Expire,
    Register,
    Settled,
    _digest,
)
from idpass_server.rules.records import Event, Pass, Reason, Status
from idpass_server.rules.refusals import (
    AccountDisabled,
    DailyQuotaExhausted,
    PassChanged,
    PassEnded,
    RefundNotAvailable,
    TransitionNotAllowed,
)
from kit.records import FEE, NOW_US, TERMINAL, a_pass, account

# Written out once more, from the words of the contract, so that the table cannot change unnoticed.
ALLOWED = {
    ("new", "opened"): None,
    ("new", "expired"): None,
    ("new", "cancelled"): FEE,
    ("opened", "in_progress"): None,
    ("opened", "expired"): None,
    ("opened", "cancelled"): FEE,
    ("in_progress", "complete"): None,
    ("in_progress", "failed"): None,
    ("in_progress", "expired"): None,
    ("in_progress", "cancelled"): None,
}
CELLS = [(before, after) for before in Status for after in Status]


@pytest.mark.parametrize(("before", "after"), CELLS)
def test_nothing_of_a_disabled_account_is_changed_by_a_caller(
    before: Status, after: Status
) -> None:
    subject = a_pass(before)
    for each in (
        command(subject, after),
        Register("acme", "tester", "ref", None, "new"),
        Register("acme", "tester", "ref", None, "new", supersedes=subject.id),
    ):
        given = None if each.subject is None else subject
        refusal = domain.decide(account(disabled=1), given, each, NOW_US)
        assert isinstance(refusal, AccountDisabled)
        assert refusal.account == "acme"


def test_passes_of_a_disabled_account_expire() -> None:
    subject = a_pass(Status.OPENED)
    expired = domain.expire(account(disabled=1), subject, "ref", NOW_US)
    assert expired.changes[0].id_pass.status == Status.EXPIRED
    settled = domain.decide(account(disabled=1), subject, Expire("acme", "ref", "x"), NOW_US)
    assert isinstance(settled, domain.Decision)


def command(before: Pass, after: Status) -> Cancel | Advance:
    if after is Status.CANCELLED:
        return Cancel("acme", "tester", "ref", None, before.id)
    return Advance("acme", "tester", "ref", None, before.id, after)


@pytest.mark.parametrize(("before", "after"), CELLS)
def test_every_cell_of_the_table(before: Status, after: Status) -> None:
    subject = a_pass(before)
    decision = domain.decide(account(), subject, command(subject, after), NOW_US)

    if before in TERMINAL:
        assert isinstance(decision, PassEnded)
        assert decision.id_pass is subject
    elif (before, after) not in ALLOWED:
        assert isinstance(decision, TransitionNotAllowed)
        assert {(before, allowed) for allowed in decision.allowed} <= ALLOWED.keys()
    else:
        assert isinstance(decision, domain.Decision)
        ((moved, event),) = decision.changes
        refund = ALLOWED[before, after]
        ended = after in TERMINAL
        assert moved.status == after
        assert moved.fee_refunded == (refund is not None)
        assert moved.update_time_us == NOW_US
        assert moved.end_time_us == (NOW_US if ended else None)
        assert event == Event(
            account="acme",
            sequence=42,
            id_pass_id=subject.id,
            from_status=before,
            to_status=after,
            event_time_us=NOW_US,
            caller="tester",
            request_id=None,
            request_digest=None,
            reference="ref",
            currency="AUD",
            charge_micros=None,
            refund_micros=refund,
            reason="",
            previous_sequence=41,
        )
        assert decision.account == account(
            slots_in_use=2 if ended else 3,
            refunded_micros=2 * FEE + (refund or 0),
            last_sequence=42,
        )


@pytest.mark.parametrize("fee_micros", [0, 1, 7 * FEE])
@pytest.mark.parametrize("before", [Status.NEW, Status.OPENED])
def test_the_fee_that_was_paid_comes_back_be_it_nothing(before: Status, fee_micros: int) -> None:
    """Whatever the account charges by now."""
    subject = a_pass(before)._replace(fee_micros=fee_micros)
    cancel = Cancel("acme", "tester", "ref", None, subject.id, require_refund=True)
    decision = domain.decide(account(charged_micros=99 * FEE), subject, cancel, NOW_US)
    assert isinstance(decision, domain.Decision)
    ((moved, event),) = decision.changes
    assert (moved.fee_refunded, event.refund_micros) == (1, fee_micros)
    assert decision.account.refunded_micros == 2 * FEE + fee_micros


def test_a_cancellation_keeps_what_it_was_told() -> None:
    subject = a_pass(Status.OPENED)
    cancel = Cancel("acme", "ann", "ref", None, subject.id, Reason.DUPLICATE, "asked twice")
    decision = domain.decide(account(), subject, cancel, NOW_US)
    assert isinstance(decision, domain.Decision)
    ((moved, event),) = decision.changes
    told = moved.cancel_reason, moved.cancel_note, moved.caller, event.reason
    assert told == (Reason.DUPLICATE, "asked twice", "ann", Reason.DUPLICATE)


def test_the_table_has_no_arrow_beside_those() -> None:
    arrows = {
        (before, after): FEE if fee is domain.Fee.REFUNDED else None
        for before, ways in domain.TRANSITIONS.items()
        for after, fee in ways.items()
    }
    assert arrows == ALLOWED


@pytest.mark.parametrize("before", [s for s in Status if s not in TERMINAL])
def test_an_overdue_pass_ended_at_its_expire_time(before: Status) -> None:
    subject = a_pass(before)._replace(expire_time_us=NOW_US - 7)
    assert subject.overdue(NOW_US)
    decision = domain.expire(account(), subject, "ref", NOW_US)
    ((moved, event),) = decision.changes
    assert (moved.status, moved.end_time_us) == ("expired", NOW_US - 7)
    assert (event.event_time_us, event.refund_micros, event.caller) == (NOW_US, None, "sweeper")
    assert decision.account.slots_in_use == 2


def test_a_pass_is_overdue_from_its_expire_time_on() -> None:
    subject = a_pass(Status.NEW)
    assert not subject.overdue(subject.expire_time_us - 1)
    assert subject.overdue(subject.expire_time_us)
    assert not a_pass(Status.COMPLETE).overdue(subject.expire_time_us)


@pytest.mark.parametrize("before", Status)
def test_letting_a_pass_expire_that_is_not_overdue_changes_nothing(before: Status) -> None:
    decision = domain.decide(account(), a_pass(before), Expire("acme", "ref", "id"), NOW_US)
    assert decision == domain.Decision(account(), (), Settled())


def test_expected_status_is_checked_before_require_refund_and_the_transition() -> None:
    subject = a_pass(Status.IN_PROGRESS)
    cancel = Cancel(
        "acme", "t", "r", None, subject.id, expected_status=Status.NEW, require_refund=True
    )
    assert isinstance(domain.decide(account(), subject, cancel, NOW_US), PassChanged)
    advance = Advance("acme", "t", "r", None, subject.id, Status.OPENED, Status.NEW)
    assert isinstance(domain.decide(account(), subject, advance, NOW_US), PassChanged)
    cancel = cancel._replace(expected_status=Status.IN_PROGRESS)
    assert isinstance(domain.decide(account(), subject, cancel, NOW_US), RefundNotAvailable)


def test_superseding_needs_no_free_slot() -> None:
    full = account(slots_in_use=10)
    prior = a_pass(Status.OPENED)
    register = Register("acme", "t", "ref", "req", "new-id", supersedes=prior.id)
    decision = domain.decide(full, prior, register, NOW_US)
    assert isinstance(decision, domain.Decision)
    (cancelled, _), (created, registered) = decision.changes
    assert (cancelled.status, cancelled.superseded_by) == ("cancelled", "new-id")
    assert (created.status, created.supersedes) == ("new", prior.id)
    assert registered.request_id == "req"
    assert decision.account.slots_in_use == 10
    assert decision.account.charged_micros == full.charged_micros + FEE
    assert decision.account.refunded_micros == full.refunded_micros + FEE
    assert isinstance(decision.answer.superseded, Cancelled)  # type: ignore[union-attr]


DAY = NOW_US // domain.DAY_US


@pytest.mark.parametrize("prior", [None, a_pass(Status.OPENED)])
def test_a_days_quota_is_kept_to_and_begins_anew_each_day(prior: Pass | None) -> None:
    """Superseding a pass stores one more like any registration."""
    register = Register("acme", "t", "ref", None, "new-id", supersedes=prior and prior.id)
    quota = account(registrations_per_day=5, registration_day=DAY, registrations_of_day=4)
    last = domain.decide(quota, prior, register, NOW_US)
    assert isinstance(last, domain.Decision)
    assert (last.account.registration_day, last.account.registrations_of_day) == (DAY, 5)
    refusal = domain.decide(last.account, prior, register, NOW_US)
    assert isinstance(refusal, DailyQuotaExhausted)
    assert refusal.registrations_per_day == 5
    assert refusal.reset_time_us == (DAY + 1) * domain.DAY_US
    again = domain.decide(last.account, prior, register, refusal.reset_time_us - 1)
    assert isinstance(again, DailyQuotaExhausted)
    next_day = domain.decide(last.account, prior, register, refusal.reset_time_us)
    assert isinstance(next_day, domain.Decision)
    assert next_day.account.registration_day == DAY + 1
    assert next_day.account.registrations_of_day == 1


def test_without_a_quota_any_number_is_registered_and_counted() -> None:
    many = account(registration_day=DAY, registrations_of_day=1_000_000)
    decision = domain.decide(many, None, Register("acme", "t", "ref", None, "new-id"), NOW_US)
    assert isinstance(decision, domain.Decision)
    assert decision.account.registrations_of_day == 1_000_001


def test_a_host_that_is_still_in_the_day_before_does_not_begin_the_count_anew() -> None:
    ahead = account(registrations_per_day=5, registration_day=DAY + 1, registrations_of_day=5)
    register = Register("acme", "t", "ref", None, "new-id")
    refusal = domain.decide(ahead, None, register, NOW_US)
    assert isinstance(refusal, DailyQuotaExhausted)
    assert refusal.reset_time_us == (DAY + 2) * domain.DAY_US


def test_a_pass_that_has_ended_is_told_before_a_quota() -> None:
    used_up = account(registrations_per_day=1, registration_day=DAY, registrations_of_day=1)
    register = Register("acme", "t", "ref", None, "new-id", supersedes="prior")
    assert isinstance(domain.decide(used_up, a_pass(Status.CANCELLED), register, NOW_US), PassEnded)


@pytest.mark.parametrize("status", TERMINAL)
def test_a_terminal_prior_is_not_superseded(status: Status) -> None:
    register = Register("acme", "t", "ref", None, "new-id", supersedes="prior")
    assert isinstance(domain.decide(account(), a_pass(status), register, NOW_US), PassEnded)


def test_a_digest_tells_requests_apart_by_their_fields_and_method() -> None:
    base = Cancel("acme", "t", "ref", "req", "id")
    same = base._replace(reference="other", caller="other", validate_only=True)
    assert base.digest() == same.digest()
    others: list[Cancel | Advance | Register] = [
        base._replace(id="other"),
        base._replace(reason=Reason.FRAUD_SUSPECTED),
        base._replace(note="x"),
        base._replace(note="new"),  # is no expected_status
        base._replace(expected_status=Status.NEW),
        base._replace(require_refund=True),
        Advance("acme", "t", "ref", "req", "id", Status.OPENED),
        Register("acme", "t", "ref", "req", "id"),
    ]
    others += [
        Register("acme", "t", "ref", "req", "id")._replace(**fields)
        for fields in (
            {"link_validity_days": 3},
            {"applicant_reference": "zoe"},
            {"applicant_reference": "prior"},
            {"supersedes": "prior"},
        )
    ]
    others.append(Advance("acme", "t", "ref", "req", "id", Status.OPENED, Status.NEW))
    assert len({base.digest(), *(other.digest() for other in others)}) == len(others) + 1


def test_a_digest_tells_methods_apart_whose_fields_are_the_same() -> None:
    assert _digest("cancel", id="id") != _digest("delete", id="id")
