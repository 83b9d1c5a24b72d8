"""Errors: the class says what happened, chosen by the reason and never by the message."""

import copy
import functools
import inspect
import pickle
import re
import uuid
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

import idpass
from idpass import _status, errors
from idpass.v1 import error_reason_pb2
from kit.client import PutPass

CODE = grpc.StatusCode


def refused(call: Callable[[], Any]) -> Any:
    try:
        answer = call()
    except idpass.IdPassError as error:
        return error
    raise AssertionError(f"was not refused: {answer}")


def test_an_error_keeps_all_that_the_service_said(client: Any, put_pass: PutPass) -> None:
    pass_id = put_pass(idpass.Status.CANCELLED)
    error = refused(lambda: client.cancel(pass_id, request_id="mine"))
    assert type(error) is idpass.AlreadyCancelled
    assert error.code is CODE.FAILED_PRECONDITION
    assert error.reason == "PASS_ALREADY_CANCELLED"
    assert error.metadata["id"] == pass_id
    assert uuid.UUID(error.reference)
    assert f"(reference {error.reference})" in str(error)
    assert error.request_id == "mine"
    assert isinstance(error.__cause__, grpc.RpcError)


def test_a_second_cancellation_is_told_the_outcome_of_the_first(
    client: Any, put_pass: PutPass
) -> None:
    for status, fee_refunded in ((idpass.Status.NEW, True), (idpass.Status.IN_PROGRESS, False)):
        pass_id = put_pass(status)
        first = client.cancel(pass_id, reason=idpass.CancelReason.FRAUD_SUSPECTED)
        error = refused(functools.partial(client.cancel, pass_id))
        assert error.fee_refunded is fee_refunded
        assert error.cancel_time == error.end_time == first.cancel_time
        assert error.cancel_reason is idpass.CancelReason.FRAUD_SUSPECTED
        assert error.superseded_by is None
        assert error.status is idpass.Status.CANCELLED


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (idpass.Status.COMPLETE, idpass.Complete),
        (idpass.Status.EXPIRED, idpass.Expired),
        (idpass.Status.FAILED, idpass.Failed),
    ],
)
def test_an_ended_pass_is_told_by_its_class(
    client: Any, put_pass: PutPass, status: idpass.Status, kind: type[idpass.PassEnded]
) -> None:
    pass_id = put_pass(status)
    error = refused(lambda: client.cancel(pass_id))
    assert type(error) is kind
    assert isinstance(error, idpass.PassEnded)
    assert error.status is status
    assert error.end_time
    assert abs(error.end_time - datetime.now(timezone.utc)) < timedelta(days=14)


def test_refusals_of_requests_and_transitions(client: Any, put_pass: PutPass) -> None:
    error = refused(lambda: client.get("nonsense"))
    assert type(error) is idpass.InvalidRequest
    assert [violation.field for violation in error.violations] == ["id"]
    assert error.request_id is None

    unknown = str(uuid.uuid4())
    assert type(refused(lambda: client.get(unknown))) is idpass.NotFound

    pass_id = put_pass()
    error = refused(lambda: client.advance(pass_id, idpass.Status.COMPLETE))
    assert type(error) is idpass.TransitionNotAllowed
    assert error.status is idpass.Status.NEW
    assert set(error.allowed) == {
        idpass.Status.OPENED,
        idpass.Status.EXPIRED,
        idpass.Status.CANCELLED,
    }

    receipt = client.cancel(pass_id)
    error = refused(lambda: client.cancel(pass_id, note="?", request_id=receipt.request_id))
    assert type(error) is idpass.RequestIdReused
    assert error.violations[0].field == "request_id"


def status_of(code: CODE, reason: str, domain: str = "idpass.v1", **metadata: str) -> Any:
    status = status_pb2.Status(code=code.value[0], message="the message")
    status.details.add().Pack(
        error_details_pb2.ErrorInfo(reason=reason, domain=domain, metadata=metadata)
    )
    return status


def test_every_reason_of_the_contract_has_a_class() -> None:
    names = {name.removeprefix("ERROR_REASON_") for name, _ in error_reason_pb2.ErrorReason.items()}
    assert set(_status._BY_REASON) == names - {"UNSPECIFIED"}


@pytest.mark.parametrize(
    ("code", "kind"), [*_status._BY_CODE.items(), (CODE.DATA_LOSS, idpass.IdPassError)]
)
def test_an_unknown_reason_falls_back_to_the_class_of_its_code(
    code: CODE, kind: type[idpass.IdPassError]
) -> None:
    error = _status.from_status(status_of(code, "A_NEW_ONE"), "request")
    assert type(error) is kind
    assert (error.reason, error.code, error.request_id) == ("A_NEW_ONE", code, "request")


def test_a_known_reason_decides_whatever_the_code_and_the_message() -> None:
    error = _status.from_status(status_of(CODE.UNKNOWN, "NO_FREE_SLOT", slotLimit="7"), None)
    assert isinstance(error, idpass.NoFreeSlot)
    assert error.slot_limit == 7


def test_a_quota_that_is_used_up_says_when_the_next_day_begins() -> None:
    told = {"registrationsPerDay": "9", "resetTime": "2026-11-26T00:00:00Z"}
    status = status_of(CODE.RESOURCE_EXHAUSTED, "DAILY_QUOTA_EXHAUSTED", **told)
    error = _status.from_status(status, None)
    assert isinstance(error, idpass.DailyQuotaExhausted)
    assert error.registrations_per_day == 9
    assert error.reset_time == datetime(2026, 11, 26, tzinfo=timezone.utc)


def test_a_reason_of_another_domain_is_not_taken_for_ours() -> None:
    status = status_of(CODE.RESOURCE_EXHAUSTED, "NO_FREE_SLOT", domain="proxy.example")
    error = _status.from_status(status, None)
    assert type(error) is idpass.ResourceExhausted
    assert error.reason is None
    assert error.metadata == {}


def test_a_code_that_no_version_of_grpc_knows_is_an_error_all_the_same() -> None:
    error = _status.from_status(status_pb2.Status(code=99), None)
    assert type(error) is idpass.IdPassError
    assert error.code is CODE.UNKNOWN
    assert str(error) == "The call failed with UNKNOWN, and nothing was said of why."


def test_broken_metadata_is_read_as_nothing() -> None:
    said = {
        "endTime": "soon",
        "cancelTime": "",
        "status": "gone",
        "slotLimit": "-",
        "registrationsPerDay": "x",
        "resetTime": "never",
        "allowed": "x,",
    }
    for kind in (
        idpass.AlreadyCancelled,
        idpass.TransitionNotAllowed,
        idpass.NoFreeSlot,
        idpass.DailyQuotaExhausted,
    ):
        error = kind("message", metadata=said)
        for name, member in inspect.getmembers(kind):
            if isinstance(member, property):
                assert getattr(error, name) in (None, False, (), idpass.CancelReason.UNSPECIFIED)


def test_errors_survive_pickling_and_copying() -> None:
    error = _status.from_status(
        status_of(CODE.FAILED_PRECONDITION, "PASS_ALREADY_CANCELLED", feeRefunded="true"), "mine"
    )
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(twin) is idpass.AlreadyCancelled
        assert twin.__dict__ == error.__dict__
        assert twin.fee_refunded
        assert str(twin) == str(error)


def test_the_tree_in_the_module_is_the_tree_of_the_classes() -> None:
    drawn = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r" {4}([│├└─ ]*)([A-Z]\w+)(?:\s{2,}|$)", line)
        if match:
            drawn.append((match[2], len(match[1]) // 4))

    def walk(kind: type[Exception], depth: int) -> list[tuple[str, int]]:
        below: list[list[tuple[str, int]]] = [
            walk(child, depth + 1) for child in kind.__subclasses__()
        ]
        return [(kind.__name__, depth), *(item for items in below for item in items)]

    assert drawn == walk(idpass.IdPassError, 0)
