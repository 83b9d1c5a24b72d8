"""Errors as callers see them: every refusal has its row, and bad input names every fault."""

import base64
import itertools
from typing import Any
from urllib.parse import quote

import grpc
import pytest
from google.rpc import code_pb2

from idpass.v1 import error_reason_pb2
from idpass.v1 import id_pass_pb2 as pb
from idpass.v1 import id_pass_service_pb2 as service_pb
from idpass_server.api import errors, methods, wire
from idpass_server.api.servicer import IdPassServicer
from idpass_server.rules import domain, refusals
from kit.contract import PASS, ROWS
from kit.support import Service, details_of, refused, told

HTTP = {
    400: (3, 9),
    401: (16,),
    403: (7,),
    404: (5,),
    409: (10,),
    429: (8,),
    500: (13,),
    503: (14,),
}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[1][2])
def test_every_refusal_is_told_as_the_contract_says(
    row: tuple[refusals.Refusal, tuple[str, int, str], set[str], set[str]],
) -> None:
    refusal, (code, http, reason), metadata, further = row
    error = errors.tell(refusal, "ref-1")
    assert (error.code.name, error.reason) == (code, reason)
    assert error.status.code == code_pb2.Code.Value(code)
    assert error.status.code in HTTP[http]
    details = details_of(error.status)
    assert set(details) == {"ErrorInfo", "RequestInfo"} | further
    assert details["ErrorInfo"].domain == "idpass.v1"
    assert details["ErrorInfo"].reason == reason
    assert set(details["ErrorInfo"].metadata) == metadata
    assert details["RequestInfo"].request_id == "ref-1"
    trailing = dict(error.trailing_metadata)
    assert trailing["grpc-status-details-bin"] == error.status.SerializeToString()
    if "RetryInfo" in further:
        retry_ms = details["RetryInfo"].retry_delay.ToMilliseconds()
        assert retry_ms > 0
        assert trailing["grpc-retry-pushback-ms"] == str(retry_ms)


def test_the_table_the_refusals_and_the_contract_agree() -> None:
    kinds = set(itertools.chain.from_iterable(_leaves(refusals.Refusal)))
    assert set(errors.TABLE) == kinds == {type(row[0]) for row in ROWS}
    reasons = {f"ERROR_REASON_{row[1][2]}" for row in ROWS} | {"ERROR_REASON_UNSPECIFIED"}
    assert set(error_reason_pb2.ErrorReason.keys()) == reasons


def _leaves(kind: type[refusals.Refusal]) -> list[list[type[refusals.Refusal]]]:
    below = kind.__subclasses__()
    return [[kind]] if not below else [leaf for each in below for leaf in _leaves(each)]


def test_an_outcome_that_is_not_known_is_said_so() -> None:
    error = errors.tell(refusals.StoreUnavailable("x", outcome_unknown=True), "ref")
    assert details_of(error.status)["ErrorInfo"].metadata == {"outcome": "unknown"}
    assert "request_id" in error.status.message


@pytest.mark.parametrize(
    ("time_us", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1_795_411_535_318_619, "2026-11-23T05:25:35.318619Z"),
        (1_795_411_535_000_001, "2026-11-23T05:25:35.000001Z"),
    ],
)
def test_times_are_rfc3339_to_the_microsecond(time_us: int, text: str) -> None:
    assert errors.rfc3339(time_us) == text


BAD_CANCELS = [
    ({"id": ""}, ["id"]),
    ({"id": "0198c0de"}, ["id"]),
    ({"id": "{0198c0de-0000-7000-8000-000000000001}"}, ["id"]),
    ({"id": "0198c0de000070008000000000000001"}, ["id"]),
    ({"id": "0198c0de-0000-7000-8000-00000000000g"}, ["id"]),
    ({"id": PASS.id + "\n"}, ["id"]),
    ({"id": PASS.id.replace("0", "０")}, ["id"]),
    ({"id": PASS.id, "request_id": "x" * 129}, ["request_id"]),
    ({"id": PASS.id, "request_id": "with space"}, ["request_id"]),
    ({"id": PASS.id, "request_id": "ümlaut"}, ["request_id"]),
    ({"id": PASS.id, "note": "n" * 501}, ["note"]),
    ({"id": PASS.id, "note": "nul\x00"}, ["note"]),
    ({"id": PASS.id, "reason": 99}, ["reason"]),
    ({"id": PASS.id, "reason": -1}, ["reason"]),
    ({"id": PASS.id, "expected_status": 8}, ["expected_status"]),
    (
        {"id": "x", "note": "n" * 501, "request_id": " ", "reason": 7, "expected_status": -5},
        ["expected_status", "id", "note", "reason", "request_id"],
    ),
]


@pytest.mark.parametrize(("fields", "wrong"), BAD_CANCELS)
def test_a_malformed_cancellation_names_every_fault(
    service: Service, fields: dict[str, object], wrong: list[str]
) -> None:
    request = service_pb.CancelRequest(**fields)  # type: ignore[arg-type]
    error = refused(lambda: service.stub.CancelIdPass(request))
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    violations = error.details["BadRequest"].field_violations  # type: ignore[attr-defined]
    assert sorted(v.field for v in violations) == wrong
    assert all(v.description for v in violations)


@pytest.mark.parametrize(
    ("method", "request_", "wrong"),
    [
        (
            "RegisterIdPass",
            service_pb.RegisterRequest(link_validity_days=15),
            ["link_validity_days"],
        ),
        (
            "RegisterIdPass",
            service_pb.RegisterRequest(link_validity_days=-1),
            ["link_validity_days"],
        ),
        (
            "RegisterIdPass",
            service_pb.RegisterRequest(
                applicant_reference="a" * 129, supersedes="x", request_id="é"
            ),
            ["applicant_reference", "request_id", "supersedes"],
        ),
        ("AdvanceIdPass", service_pb.AdvanceRequest(), ["id", "to_status"]),
        (
            "AdvanceIdPass",
            service_pb.AdvanceRequest(id=PASS.id, to_status=42, expected_status=43),  # type: ignore[arg-type]
            ["expected_status", "to_status"],
        ),
        ("GetIdPass", service_pb.GetRequest(), ["id"]),
    ],
)
def test_other_malformed_requests_name_every_fault(
    service: Service, method: str, request_: object, wrong: list[str]
) -> None:
    error = refused(lambda: getattr(service.stub, method)(request_))
    violations = error.details["BadRequest"].field_violations  # type: ignore[attr-defined]
    assert sorted(v.field for v in violations) == wrong


PRINTABLE = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")
FACES = "\N{GRINNING FACE}" * 3_000
TOO_MANY = [
    ("CancelIdPass", service_pb.CancelRequest(id=FACES, request_id=FACES, note=FACES, reason=77)),  # type: ignore[arg-type]
    ("CancelIdPass", service_pb.CancelRequest(id="%" * 9_000)),
    ("ListIdPasses", service_pb.ListRequest(statuses=[99] * 50)),  # type: ignore[list-item]
    ("ListIdPasses", service_pb.ListRequest(statuses=[0] * 50, page_size=-1)),  # type: ignore[list-item]
]


@pytest.mark.parametrize(("method", "request_"), TOO_MANY)
def test_however_much_is_wrong_its_trailers_stay_below_4_kb(
    service: Service, method: str, request_: object
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        getattr(service.stub, method)(request_)
    error = told(caught.value)
    assert error.reason == "INVALID_REQUEST"
    details = error.trailing["grpc-status-details-bin"]
    said = quote(error.message, safe=PRINTABLE)
    assert len(base64.b64encode(details)) + len(said) < 3_800


def test_at_most_20_violations_are_listed_and_the_others_counted(service: Service) -> None:
    request = service_pb.ListRequest(statuses=[99] * 50)  # type: ignore[list-item]
    error = refused(lambda: service.stub.ListIdPasses(request))
    violations = error.details["BadRequest"].field_violations  # type: ignore[attr-defined]
    assert [v.field for v in violations] == [f"statuses[{n}]" for n in range(20)]
    listed = error.message.count("is not an IdPassStatus")
    assert 1 < listed <= 20
    assert error.message.endswith(f"; and {50 - listed} more")


@pytest.mark.parametrize(
    ("method", "request_", "field"),
    [
        ("ListIdPasses", service_pb.ListRequest(statuses=[1] * 51), "statuses"),  # type: ignore[list-item]
        ("ListIdPasses", service_pb.ListRequest(statuses=[1] * 1_000_000), ""),  # type: ignore[list-item]
        ("CancelIdPass", service_pb.CancelRequest(id=PASS.id, note="n" * 1_000_000), ""),
        (
            "BatchCancelIdPasses",
            service_pb.BatchCancelRequest(requests=[service_pb.CancelRequest()] * 1_001),
            "requests",
        ),
        (
            "BatchCancelIdPasses",
            service_pb.BatchCancelRequest(requests=[service_pb.CancelRequest()] * 1_000_000),
            "requests",
        ),
    ],
)
def test_too_much_of_something_is_refused_by_its_amount(
    service: Service, method: str, request_: object, field: str
) -> None:
    error = refused(lambda: getattr(service.stub, method)(request_))
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    (violation,) = error.details["BadRequest"].field_violations  # type: ignore[attr-defined]
    assert violation.field == field
    assert "allowed" in violation.description or "more than 1000" in violation.description


def test_gRPC_parses_nothing_before_the_caller_is_known(service: Service) -> None:
    class Details:
        method = "/idpass.v1.IdPassService/ListIdPasses"
        invocation_metadata = ()

    handlers = methods.handlers(
        wire.ID_PASSES,
        IdPassServicer,
        service.server._calls,
        lambda: None,  # type: ignore[arg-type,return-value]
    )
    handler: Any = handlers.service(Details())  # type: ignore[arg-type]
    assert handler.request_deserializer is None


STEERING = ["\0", "\x1b[31m", "\x7f", "\x85", "\x9b", "\u202e", "\u2066", "\u2069"]


def test_a_reference_is_a_line_that_cannot_steer_a_terminal(service: Service) -> None:
    for character in (*STEERING, "\t", "\n", "\r", "\u2028", "\u2029"):
        error = refused(lambda: service.register(applicant_reference=f"Anna{character}"))  # noqa: B023
        (violation,) = error.details["BadRequest"].field_violations  # type: ignore[attr-defined]
        assert violation.field == "applicant_reference"
        assert f"U+{ord(character[0]):04X} at 4" in violation.description
        assert character not in violation.description


def test_a_note_cannot_steer_a_terminal(service: Service) -> None:
    pass_id = service.register().id_pass.id
    for character in STEERING:
        error = refused(lambda: service.cancel(pass_id, note=f"gone{character}"))  # noqa: B023
        (violation,) = error.details["BadRequest"].field_violations  # type: ignore[attr-defined]
        assert violation.field == "note"
    assert service.get(pass_id).status == pb.ID_PASS_STATUS_NEW


def test_names_of_every_script_are_taken_and_notes_may_have_lines(service: Service) -> None:
    # With joiners, combining marks, marks of direction, markup and emoji.
    name = "نور‌\u200fالدین Žofie\u0301 [bold]<b> 👩‍👧 \u00a0क्ष"
    note = "first\tline\r\nsecond\u2028third"
    id_pass = service.register(applicant_reference=name).id_pass
    assert id_pass.applicant_reference == name
    service.cancel(id_pass.id, note=note)
    assert service.get(id_pass.id).cancellation.note == note


def test_the_longest_allowed_fields_are_taken(service: Service) -> None:
    pass_id = service.register(applicant_reference="é" * 128, request_id="x" * 128).id_pass.id
    note = "\N{GRINNING FACE}" * 500
    service.cancel(pass_id, note=note, request_id="!" * 128)
    assert service.get(pass_id).cancellation.note == note


def test_a_fault_is_internal_and_its_text_stays_inside(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    pass_id = service.register().id_pass.id

    def fault(*_: object) -> None:
        raise RuntimeError("secret text")

    monkeypatch.setattr(domain, "_cancel", fault)
    error = refused(lambda: service.cancel(pass_id))
    assert (error.code, error.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert "secret" not in str(error)
    monkeypatch.undo()
    service.cancel(pass_id)


def test_a_request_too_large_is_refused_before_it_is_read(service: Service) -> None:
    request = service_pb.CancelRequest(id=PASS.id, note="n" * 3_000_000)
    with pytest.raises(grpc.RpcError) as caught:
        service.stub.CancelIdPass(request)
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
