"""RegisterIdPass, AdvanceIdPass and GetIdPass, over real gRPC."""

import uuid
from datetime import datetime

import grpc
import pytest

from idpass.v1 import id_pass_pb2 as pb
from idpass.v1.id_pass_service_pb2 import RegisterRequest
from kit.support import DAY_US, STATUS, UNKNOWN_ID, Service, refused, set_account, told
from kit.ways import WAYS


def test_registering_charges_the_fee_and_takes_a_slot(service: Service) -> None:
    answer = service.register(applicant_reference="application 7")
    id_pass = answer.id_pass
    assert uuid.UUID(id_pass.id).version == 7
    assert uuid.UUID(answer.reference)
    assert (id_pass.status, id_pass.account) == (pb.ID_PASS_STATUS_NEW, "demo")
    assert id_pass.applicant_reference == "application 7"
    assert id_pass.create_time.ToMicroseconds() == service.time.now_us
    assert id_pass.expire_time.ToMicroseconds() == service.time.now_us + 7 * DAY_US
    account = service.account()
    assert (account.slots_in_use, account.fees_charged) == (1, id_pass.fee)
    assert service.get(id_pass.id) == id_pass


@pytest.mark.parametrize("days", [1, 14])
def test_a_link_is_valid_for_as_many_days_as_asked(service: Service, days: int) -> None:
    id_pass = service.register(link_validity_days=days).id_pass
    valid_us = id_pass.expire_time.ToMicroseconds() - id_pass.create_time.ToMicroseconds()
    assert valid_us == days * DAY_US


def test_a_retried_registration_gets_the_pass_as_it_was_registered(service: Service) -> None:
    first = service.register(request_id="r", applicant_reference="a")
    service.advance(first.id_pass.id, "opened")
    service.cancel(first.id_pass.id)
    again = service.register(request_id="r", applicant_reference="a")
    assert again.replayed
    again.replayed = False
    assert again == first
    assert service.account().fees_charged == first.id_pass.fee


def test_a_retried_advance_gets_the_pass_as_it_was_then(service: Service) -> None:
    pass_id = service.register().id_pass.id
    answers = {}
    for step in WAYS["complete"]:
        service.time.advance(us=1_000)
        answers[step] = service.advance(pass_id, step, request_id=step)
    for step, first in answers.items():
        again = service.advance(pass_id, step, request_id=step)
        assert again.replayed
        again.replayed = False
        assert again == first


def test_without_request_id_a_second_advance_is_refused(service: Service) -> None:
    pass_id = service.pass_in("opened")
    error = refused(lambda: service.advance(pass_id, "opened"))
    assert (error.code, error.reason) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "TRANSITION_NOT_ALLOWED",
    )
    assert error.metadata["status"] == "opened"
    assert error.metadata["allowed"] == "in_progress,expired,cancelled"


def test_consent_time_is_when_in_progress_was_entered(service: Service) -> None:
    pass_id = service.pass_in("opened")
    assert not service.get(pass_id).HasField("consent_time")
    service.time.advance(us=5)
    service.advance(pass_id, "in_progress")
    consented_us = service.time.now_us
    service.time.advance(us=5)
    service.advance(pass_id, "complete")
    id_pass = service.get(pass_id)
    assert id_pass.consent_time.ToMicroseconds() == consented_us
    assert id_pass.end_time.ToMicroseconds() == service.time.now_us


def test_a_pass_cannot_be_cancelled_by_advancing_it(service: Service) -> None:
    pass_id = service.register().id_pass.id
    error = refused(lambda: service.advance(pass_id, "cancelled"))
    assert error.reason == "INVALID_REQUEST"
    assert "CancelIdPass" in error.message


def test_a_result_after_the_cancellation_is_refused(service: Service) -> None:
    pass_id = service.pass_in("in_progress")
    service.cancel(pass_id)
    error = refused(lambda: service.advance(pass_id, "complete"))
    assert error.reason == "PASS_ALREADY_CANCELLED"
    assert service.get(pass_id).status == pb.ID_PASS_STATUS_CANCELLED


def test_an_advance_may_name_the_status_it_expects(service: Service) -> None:
    pass_id = service.register().id_pass.id
    error = refused(
        lambda: service.advance(pass_id, "opened", expected_status=STATUS["in_progress"])
    )
    assert error.reason == "PASS_CHANGED"
    service.advance(pass_id, "opened", expected_status=STATUS["new"])


@pytest.mark.parametrize(("status", "refunded"), [("new", True), ("in_progress", False)])
def test_superseding_cancels_the_prior_and_links_both(
    service: Service, status: str, refunded: bool
) -> None:
    prior_id = service.pass_in(status)
    answer = service.register(supersedes=prior_id.upper(), request_id="r")
    assert answer.superseded.fee_refunded is refunded
    assert answer.superseded.previous_status == STATUS[status]
    prior, new = service.get(prior_id), service.get(answer.id_pass.id)
    assert (new.supersedes, prior.superseded_by) == (prior_id, new.id)
    assert prior.cancellation.reason == pb.CANCEL_REASON_SUPERSEDED
    assert service.account().slots_in_use == 1
    error = refused(lambda: service.cancel(prior_id))
    assert error.metadata["supersededBy"] == new.id

    service.advance(new.id, "opened")
    again = service.register(supersedes=prior_id, request_id="r")
    assert again.replayed
    again.replayed = False
    assert again == answer


@pytest.mark.parametrize("status", ["complete", "expired", "failed", "cancelled"])
def test_nothing_happens_if_the_prior_is_terminal(service: Service, status: str) -> None:
    prior_id = service.pass_in(status)
    before = (service.get(prior_id), service.account())
    error = refused(lambda: service.register(supersedes=prior_id))
    assert error.code == grpc.StatusCode.FAILED_PRECONDITION
    assert error.metadata["status"] == status
    assert (service.get(prior_id), service.account()) == before


def test_an_unknown_pass_is_not_found_by_any_rpc(service: Service) -> None:
    for call in (
        lambda: service.get(UNKNOWN_ID),
        lambda: service.cancel(UNKNOWN_ID),
        lambda: service.advance(UNKNOWN_ID, "opened"),
        lambda: service.register(supersedes=UNKNOWN_ID),
        lambda: list(service.watch(id=UNKNOWN_ID)),
    ):
        error = refused(call)
        assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "PASS_NOT_FOUND")
        assert error.metadata == {"id": UNKNOWN_ID}
        assert error.details["ResourceInfo"].resource_name == UNKNOWN_ID  # type: ignore[attr-defined]


def test_ids_are_accepted_in_upper_case_and_answered_in_lower(service: Service) -> None:
    pass_id = service.register().id_pass.id
    assert service.get(pass_id.upper()).id == pass_id
    service.advance(pass_id.upper(), "opened")
    service.cancel(pass_id.upper())
    assert service.get(pass_id).status == pb.ID_PASS_STATUS_CANCELLED


def test_an_overdue_pass_reads_expired_wherever_it_is_looked_at(service: Service) -> None:
    ids = [service.register(link_validity_days=1).id_pass.id for _ in range(3)]
    service.time.advance(days=1)
    assert service.get(ids[0]).status == pb.ID_PASS_STATUS_EXPIRED
    expired = service.page(statuses=[pb.ID_PASS_STATUS_EXPIRED]).id_passes
    assert {p.id for p in expired} == set(ids)
    assert service.account().slots_in_use == 0
    assert refused(lambda: service.advance(ids[1], "opened")).reason == "PASS_EXPIRED"


def test_untouched_passes_are_swept(service: Service) -> None:
    for _ in range(3):
        service.register(link_validity_days=1)
    last = service.account().last_sequence
    service.time.advance(days=2)
    swept = service.events(last + 3, after_sequence=last)
    assert [(e.to_status, e.caller) for e in swept] == [(pb.ID_PASS_STATUS_EXPIRED, "sweeper")] * 3


def test_overdue_passes_do_not_block_a_slot(service: Service) -> None:
    limit = service.account().slot_limit
    for _ in range(limit):
        service.register(link_validity_days=1)
    error = refused(service.register)
    assert (error.code, error.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "NO_FREE_SLOT")
    assert error.metadata["slotLimit"] == str(limit)
    assert error.details["QuotaFailure"]
    service.time.advance(days=1)
    service.register()
    assert service.account().slots_in_use == 1


def test_an_account_registers_no_more_in_a_day_than_its_quota(service: Service) -> None:
    first = service.register(request_id="first")
    set_account(service.url, registrations_per_day=2)
    service.register(supersedes=first.id_pass.id)
    error = refused(service.register)
    assert (error.code, error.reason) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "DAILY_QUOTA_EXHAUSTED",
    )
    midnight = datetime.fromisoformat(error.metadata["resetTime"])
    assert (midnight.hour, midnight.minute, midnight.second) == (0, 0, 0)
    assert error.metadata["registrationsPerDay"] == "2"
    assert error.details["QuotaFailure"]
    assert "RetryInfo" not in error.details
    assert service.register(request_id="first").replayed
    assert service.cancel(service.list_all()[0].id).fee_refunded
    service.time.now_us = round(midnight.timestamp() * 1e6) - 1
    assert refused(service.register).reason == "DAILY_QUOTA_EXHAUSTED"
    service.time.advance(us=1)
    service.register()


def test_passes_of_one_batch_count_one_by_one(service: Service) -> None:
    set_account(service.url, registrations_per_day=3)
    calls = [service.stub.RegisterIdPass.future(RegisterRequest()) for _ in range(10)]
    errors = [call.exception() for call in calls]
    refusals = [told(error).reason for error in errors if isinstance(error, grpc.RpcError)]
    assert refusals == ["DAILY_QUOTA_EXHAUSTED"] * 7
    assert service.account().slots_in_use == 3


def test_cancelling_and_superseding_free_the_slot(service: Service) -> None:
    limit = service.account().slot_limit
    ids = [service.register().id_pass.id for _ in range(limit)]
    service.register(supersedes=ids[0])
    assert refused(service.register).reason == "NO_FREE_SLOT"
    service.cancel(ids[1])
    service.register()
