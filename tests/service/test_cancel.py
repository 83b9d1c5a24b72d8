"""CancelIdPass and BatchCancelIdPasses, over real gRPC."""

import uuid
from pathlib import Path

import grpc
import pytest

from idpass.v1 import id_pass_pb2 as pb
from idpass.v1.id_pass_service_pb2 import CancelRequest
from idpass_server.rules.records import Money
from kit.support import STATUS, UNKNOWN_ID, Service, details_of, refused, set_account

pytestmark = pytest.mark.both_stores

REASON_OF = {
    "complete": "PASS_COMPLETE",
    "expired": "PASS_EXPIRED",
    "failed": "PASS_FAILED",
    "cancelled": "PASS_ALREADY_CANCELLED",
}


@pytest.mark.parametrize(
    ("status", "refunded"), [("new", True), ("opened", True), ("in_progress", False)]
)
def test_a_pass_in_flight_is_cancelled_with_the_right_refund(
    service: Service, status: str, refunded: bool
) -> None:
    pass_id = service.pass_in(status)
    before = service.account()
    answer = service.cancel(pass_id)
    after = service.account()

    assert answer.status == pb.ID_PASS_STATUS_CANCELLED
    assert answer.previous_status == STATUS[status]
    assert answer.fee_refunded is refunded
    assert answer.HasField("refund") is refunded
    assert uuid.UUID(answer.reference)
    assert answer.cancel_time.ToMicroseconds() == service.time.now_us
    assert not answer.replayed
    assert after.slots_in_use == before.slots_in_use - 1
    returned = after.fees_refunded.units - before.fees_refunded.units
    assert returned == (4 if refunded else 0)
    if refunded:
        assert (answer.refund.currency_code, answer.refund.units) == ("AUD", 4)
        assert answer.refund.nanos == 500_000_000

    id_pass = service.get(pass_id)
    assert id_pass.status == pb.ID_PASS_STATUS_CANCELLED
    assert id_pass.fee_refunded is refunded
    assert id_pass.end_time == answer.cancel_time == id_pass.cancellation.cancel_time
    assert id_pass.cancellation.caller == "demo"


def test_a_fee_of_nothing_is_refunded_like_any_other(service: Service, db: Path | str) -> None:
    set_account(db, fee=Money("AUD", 0))
    free = [service.register().id_pass.id for _ in range(2)]
    set_account(db, fee=Money("AUD", 9_000_000))
    answer = service.cancel(free[0], require_refund=True)
    assert answer.fee_refunded
    assert answer.HasField("refund")
    assert (answer.refund.currency_code, answer.refund.units, answer.refund.nanos) == ("AUD", 0, 0)
    batch = service.batch(CancelRequest(id=free[1]))
    assert (batch.cancelled_count, batch.refunded_count) == (1, 1)
    assert service.get(free[0]).fee_refunded
    assert service.account().fees_refunded.units == 0
    error = refused(lambda: service.cancel(free[0]))
    assert error.metadata["feeRefunded"] == "true"
    assert [event.HasField("refund") for event in service.events()] == [False, False, True, True]


@pytest.mark.parametrize("status", REASON_OF)
def test_a_terminal_pass_is_refused_and_nothing_changes(service: Service, status: str) -> None:
    pass_id = service.pass_in(status)
    before = (service.get(pass_id), service.account())
    error = refused(lambda: service.cancel(pass_id, request_id="r"))
    assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, REASON_OF[status])
    assert error.metadata["id"] == pass_id
    assert error.metadata["status"] == status
    assert error.metadata["endTime"] == before[0].end_time.ToJsonString()
    (violation,) = error.details["PreconditionFailure"].violations  # type: ignore[attr-defined]
    assert violation.type == REASON_OF[status]
    assert (service.get(pass_id), service.account()) == before


def test_cancelling_again_tells_the_first_outcome(service: Service) -> None:
    pass_id = service.register().id_pass.id
    first = service.cancel(pass_id, reason=pb.CANCEL_REASON_DUPLICATE)
    error = refused(lambda: service.cancel(pass_id))
    assert error.reason == "PASS_ALREADY_CANCELLED"
    assert error.metadata == {
        "id": pass_id,
        "status": "cancelled",
        "endTime": first.cancel_time.ToJsonString(),
        "cancelTime": first.cancel_time.ToJsonString(),
        "feeRefunded": "true",
        "reason": "duplicate",
        "supersededBy": "",
    }


def test_the_same_request_id_gets_the_first_answer_and_refunds_once(service: Service) -> None:
    pass_id = service.register().id_pass.id
    fields = {"request_id": "r-1", "reason": pb.CANCEL_REASON_OTHER, "note": "moved abroad"}
    first = service.cancel(pass_id, **fields)
    after = service.account()
    service.time.advance(days=30)
    again = service.cancel(pass_id.upper(), **fields)
    assert again.replayed
    again.replayed = False
    assert again == first
    assert service.account() == after


@pytest.mark.parametrize(
    "change",
    [
        {"reason": pb.CANCEL_REASON_OTHER},
        {"note": "other"},
        {"expected_status": pb.ID_PASS_STATUS_NEW},
        {"require_refund": True},
    ],
)
def test_a_request_id_cannot_be_used_for_other_content(
    service: Service, change: dict[str, object]
) -> None:
    pass_id = service.register().id_pass.id
    service.cancel(pass_id, request_id="r-1")
    error = refused(lambda: service.cancel(pass_id, request_id="r-1", **change))
    assert (error.code, error.reason) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "REQUEST_ID_REUSED",
    )
    (violation,) = error.details["BadRequest"].field_violations  # type: ignore[attr-defined]
    assert violation.field == "request_id"


def test_a_request_id_is_shared_by_all_rpcs(service: Service) -> None:
    pass_id = service.register(request_id="r-1").id_pass.id
    assert refused(lambda: service.cancel(pass_id, request_id="r-1")).reason == "REQUEST_ID_REUSED"
    error = refused(lambda: service.advance(pass_id, "opened", request_id="r-1"))
    assert error.reason == "REQUEST_ID_REUSED"
    assert service.get(pass_id).status == pb.ID_PASS_STATUS_NEW


def test_a_refusal_is_decided_anew_each_time(service: Service) -> None:
    pass_id = service.register().id_pass.id
    fields = {"request_id": "r", "expected_status": pb.ID_PASS_STATUS_OPENED}
    assert refused(lambda: service.cancel(pass_id, **fields)).reason == "PASS_CHANGED"
    service.advance(pass_id, "opened")
    assert service.cancel(pass_id, **fields).fee_refunded


def test_expected_status_guards_against_a_change_in_between(service: Service) -> None:
    pass_id = service.pass_in("in_progress")
    error = refused(lambda: service.cancel(pass_id, expected_status=pb.ID_PASS_STATUS_OPENED))
    assert (error.code, error.reason) == (grpc.StatusCode.ABORTED, "PASS_CHANGED")
    assert error.metadata["status"] == "in_progress"
    assert service.get(pass_id).status == pb.ID_PASS_STATUS_IN_PROGRESS


def test_require_refund_cancels_only_when_the_fee_comes_back(service: Service) -> None:
    started = service.pass_in("in_progress")
    error = refused(lambda: service.cancel(started, require_refund=True))
    assert (error.code, error.reason) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "REFUND_NOT_AVAILABLE",
    )
    assert error.details["PreconditionFailure"]
    assert service.get(started).status == pb.ID_PASS_STATUS_IN_PROGRESS
    assert service.cancel(service.pass_in("opened"), require_refund=True).fee_refunded


def test_validate_only_answers_and_changes_nothing(service: Service) -> None:
    pass_id = service.pass_in("opened")
    before = (service.get(pass_id), service.account())
    dry = service.cancel(pass_id, validate_only=True, request_id="r")
    assert (service.get(pass_id), service.account()) == before
    real = service.cancel(pass_id, request_id="r")
    assert not real.replayed
    assert (dry.fee_refunded, dry.refund, dry.previous_status) == (
        real.fee_refunded,
        real.refund,
        real.previous_status,
    )
    error = refused(lambda: service.cancel(pass_id, validate_only=True))
    assert error.reason == "PASS_ALREADY_CANCELLED"
    assert service.cancel(pass_id, validate_only=True, request_id="r").replayed


def test_validate_only_does_not_even_let_an_overdue_pass_expire(service: Service) -> None:
    pass_id = service.register(link_validity_days=1).id_pass.id
    service.time.advance(days=2)
    error = refused(lambda: service.cancel(pass_id, validate_only=True))
    assert error.reason == "PASS_EXPIRED"


def test_an_overdue_pass_is_expired_and_not_refunded(service: Service) -> None:
    registered = service.register(link_validity_days=1).id_pass
    service.time.advance(days=1)
    error = refused(lambda: service.cancel(registered.id))
    assert error.reason == "PASS_EXPIRED"
    assert error.metadata["endTime"] == registered.expire_time.ToJsonString()
    account = service.account()
    assert (account.slots_in_use, account.fees_refunded.units) == (0, 0)


def test_a_batch_answers_each_item_in_order_and_by_itself(service: Service) -> None:
    new, started, done = (service.pass_in(s) for s in ("new", "in_progress", "complete"))
    answer = service.batch(
        CancelRequest(id=new, request_id="r-1"),
        CancelRequest(id=UNKNOWN_ID),
        CancelRequest(id=done),
        CancelRequest(id="nonsense", note="n" * 501),
        CancelRequest(id=started),
        CancelRequest(id=new, request_id="r-1"),
        CancelRequest(id=started),
    )
    kinds = [result.WhichOneof("result") for result in answer.results]
    assert kinds == ["response", "error", "error", "error", "response", "response", "error"]
    reasons = [
        details_of(result.error)["ErrorInfo"].reason
        for result in answer.results
        if result.HasField("error")
    ]
    assert reasons == [
        "PASS_NOT_FOUND",
        "PASS_COMPLETE",
        "INVALID_REQUEST",
        "PASS_ALREADY_CANCELLED",
    ]
    invalid = details_of(answer.results[3].error)["BadRequest"]
    assert [v.field for v in invalid.field_violations] == ["id", "note"]
    assert answer.results[0].response.fee_refunded
    assert not answer.results[4].response.fee_refunded
    assert answer.results[5].response.replayed
    assert (answer.cancelled_count, answer.refunded_count) == (3, 2)
    (total,) = answer.refund_totals
    assert (total.currency_code, total.units, total.nanos) == ("AUD", 9, 0)
    assert service.account().fees_refunded.units == 4


@pytest.mark.parametrize(("items", "told"), [(0, "has 0 items"), (1001, "more than 1000 items")])
def test_a_batch_of_no_items_or_too_many_is_refused(
    service: Service, items: int, told: str
) -> None:
    pass_id = service.register().id_pass.id
    error = refused(lambda: service.batch(*[CancelRequest(id=pass_id)] * items))
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    (violation,) = error.details["BadRequest"].field_violations  # type: ignore[attr-defined]
    assert violation.field == "requests"
    assert told in violation.description
    assert service.get(pass_id).status == pb.ID_PASS_STATUS_NEW


def test_a_batch_of_a_thousand_is_taken_with_the_longest_fields(service: Service) -> None:
    pass_id = service.register().id_pass.id
    items = [
        CancelRequest(id=pass_id, request_id=f"{n:0128}", note="\N{GRINNING FACE}" * 500)
        for n in range(1000)
    ]
    answer = service.batch(*items)
    assert len(answer.results) == 1000
    assert answer.cancelled_count == 1
