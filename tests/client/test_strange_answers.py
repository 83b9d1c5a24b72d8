"""What answers is not the service, or one of another version: an error of the tree all the same."""

from collections.abc import Callable
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import status_pb2

import idpass
from idpass import (
    BadAnswer,
    FailedPrecondition,
    IdPassError,
    OutcomeUnknown,
    PermissionDenied,
    RetryPolicy,
    Status,
    Unauthenticated,
    Unavailable,
    Unimplemented,
    _status,
)
from idpass.v1 import id_pass_pb2 as pb
from kit.client import Connect

pytest.importorskip("hyperframe", reason="makes frames")
from hyperframe.frame import GoAwayFrame, RstStreamFrame

from kit.http2 import data_frames, header_frames, message
from kit.odd_http2 import GRPC, HANG_UP, Answer, page, serving, trailers

OK = ("grpc-status", "0")
ONCE = RetryPolicy(max_attempts=1)


def goaway(last: Callable[[int], int], code: int, after: bytes = b"") -> Answer:
    return lambda stream: (
        GoAwayFrame(0, last_stream_id=last(stream), error_code=code).serialize() + after
    )


def with_message(body: bytes, flag: int = 0, *trailer: tuple[str, str]) -> Answer:
    def answer(stream: int) -> bytes:
        sent = header_frames(stream, GRPC)
        sent += data_frames(stream, message(body, flag), end_stream=not trailer)
        return sent + (header_frames(stream, trailer, end_stream=True) if trailer else b"")

    return answer


def reset(code: int) -> Answer:
    return lambda stream: RstStreamFrame(stream, error_code=code).serialize()


Case = tuple[Answer, type[IdPassError], str]
IN_BETWEEN = "Something in between answered HTTP"
# What it does to a call that changes nothing.
READS: dict[str, Case] = {
    "a page": (page(200), BadAnswer, "does not speak gRPC"),
    "a redirect": (page(302), BadAnswer, f"{IN_BETWEEN} 302"),
    "HTTP 400": (page(400), BadAnswer, f"{IN_BETWEEN} 400"),
    "HTTP 401": (page(401), Unauthenticated, f"{IN_BETWEEN} 401"),
    "HTTP 403": (page(403), PermissionDenied, f"{IN_BETWEEN} 403"),
    "HTTP 404": (page(404), Unimplemented, f"{IN_BETWEEN} 404"),
    "HTTP 429": (page(429), Unavailable, f"{IN_BETWEEN} 429"),
    "HTTP 500": (page(500), BadAnswer, f"{IN_BETWEEN} 500"),
    "HTTP 502": (page(502), Unavailable, f"{IN_BETWEEN} 502"),
    "HTTP 503": (page(503), Unavailable, f"{IN_BETWEEN} 503"),
    "no method": (trailers(("grpc-status", "12")), Unimplemented, "older than this client"),
    "GOAWAY": (goaway(lambda stream: stream, 0, HANG_UP), Unavailable, "in mid-call"),
    "GOAWAY, unseen": (goaway(lambda _: 0, 0), Unavailable, "hung up in mid-call"),
    "GOAWAY, in anger": (goaway(lambda s: s, 11, HANG_UP), Unavailable, "in mid-call"),
    "a reset": (reset(2), BadAnswer, "cut the call off"),
    "an end": (lambda _: HANG_UP, Unavailable, "The connection broke in mid-call"),
    "no details": (trailers(("grpc-status", "9")), FailedPrecondition, "nothing was said of why"),
    "broken details": (
        trailers(("grpc-status", "9"), ("grpc-status-details-bin", "////")),
        FailedPrecondition,
        "nothing was said of why",
    ),
    "an unknown code": (
        trailers(("grpc-status", "99")),
        BadAnswer,
        "nothing was said of why|a status that gRPC does not have",
    ),
    "no code": (trailers(("grpc-status", "fine")), BadAnswer, "does not speak gRPC"),
    "no status": (trailers(), BadAnswer, "does not speak gRPC"),
    "no trailers": (with_message(b""), BadAnswer, "does not speak gRPC"),
    "no message": (trailers(OK), BadAnswer, "missing or cannot be read"),
    "garbage": (with_message(b"\xff\xff", 0, OK), BadAnswer, "missing or cannot be read"),
}
# After these a change cannot have been made: whatever refused it did so before the service saw it.
REFUSED = {"HTTP 401", "HTTP 403", "HTTP 404", "no method", "no details", "broken details"}


@pytest.mark.parametrize("case", READS)
def test_a_question_that_something_else_answers_is_told_by_what(
    connect: Connect, case: str
) -> None:
    answer, kind, said = READS[case]
    with serving(answer) as address, pytest.raises(IdPassError, match=said) as raised:
        connect(address, retry=ONCE).account()
    assert type(raised.value) is kind
    assert raised.value.reason is None
    assert isinstance(raised.value.__cause__, grpc.RpcError)


@pytest.mark.parametrize("case", READS)
def test_a_change_that_something_else_answers_may_have_been_made(
    connect: Connect, case: str
) -> None:
    answer, kind, said = READS[case]
    with serving(answer) as address, pytest.raises(IdPassError, match=said) as raised:
        connect(address, retry=ONCE).cancel("id", request_id="mine")
    assert type(raised.value) is (kind if case in REFUSED else OutcomeUnknown)
    assert raised.value.request_id == "mine"


@pytest.mark.parametrize("case", ["no method", "GOAWAY", "no status", "garbage"])
def test_so_is_a_watch(connect: Connect, case: str) -> None:
    answer, kind, said = READS[case]
    with serving(answer) as address, pytest.raises(kind, match=said):
        next(connect(address).watch(reconnect_for=0.1))


def test_a_stream_that_something_in_between_ends_is_opened_again(connect: Connect) -> None:
    sequences = iter(range(1, 100))

    def one_event(stream: int) -> bytes:
        event = pb.IdPassEvent(sequence=next(sequences), to_status=pb.ID_PASS_STATUS_NEW)
        return with_message(event.SerializeToString(), 0, OK)(stream)

    with serving(one_event) as address:
        events = connect(address).watch()
        seen = [next(events).sequence for _ in range(3)]
        events.close()
    assert seen == sorted(seen)


def test_a_batch_that_is_not_answered_in_full_is_of_unknown_outcome(connect: Connect) -> None:
    with serving(with_message(b"", 0, OK)) as address:
        results = connect(address).cancel_many(["a", "b"])
        told = [next(results).error for _ in range(2)]
        assert all(isinstance(error, OutcomeUnknown) and error.request_id for error in told)
        with pytest.raises(OutcomeUnknown, match="0 results for 2 passes"):
            next(results)


def test_a_newer_service_is_understood_as_far_as_it_goes(connect: Connect) -> None:
    newer = pb.IdPass(id="x", status=99)  # type: ignore[arg-type]
    unknown_field = b"\xfa\x3f\x01x"  # number 1023, which no version knows
    body = idpass.v1.id_pass_service_pb2.GetResponse(id_pass=newer).SerializeToString()
    with serving(with_message(body + unknown_field, 0, OK)) as address:
        id_pass = connect(address).get("x")
    assert isinstance(id_pass.status, Status)
    assert id_pass.status.name == "UNRECOGNIZED_99"


def test_an_older_service_leaves_out_what_it_does_not_know(connect: Connect) -> None:
    with serving(with_message(b"", 0, OK)) as address:
        client = connect(address)
        account = client.account()
        assert (account.history, account.oldest_sequence) == ("", 0)
        receipt = client.cancel("x")
        assert (receipt.reference, receipt.refund, receipt.previous_status) == ("", None, None)


def test_a_detail_that_cannot_be_read_does_not_hide_the_others() -> None:
    broken = any_pb2.Any(type_url="type.googleapis.com/google.rpc.ErrorInfo", value=b"\xff")
    status = status_pb2.Status(code=5, message="gone", details=[broken])
    error: Any = _status.from_status(status, None)
    assert type(error) is idpass.NotFound
    assert str(error) == "gone"
