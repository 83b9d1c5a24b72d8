"""For each rpc: how its request is built and its answer read. No I/O in here."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from itertools import islice
from typing import Any, Generic, TypeVar

import grpc
from google.protobuf.message import Message

from idpass import _read, _status
from idpass._arguments import (
    Id,
    flag,
    new_request_id,
    reason_number,
    request_id_or,
    several,
    status_number,
    text,
    text_id,
    whole,
)
from idpass._failure import EmptyAnswer
from idpass._records import (
    Account,
    AdvanceReceipt,
    CancelResult,
    Event,
    IdPass,
    Receipt,
    RegisterReceipt,
)
from idpass._words import AnyReason, AnyStatus
from idpass.errors import IdPassError, OutcomeUnknown
from idpass.v1 import id_pass_service_pb2 as service_pb

T = TypeVar("T")
PAGE_SIZE = 500
MAX_BATCH_SIZE = 1_000


@dataclass
class Call(Generic[T]):
    """
    Attributes:
        method: name of the rpc.
        read: turns the answer's message into what the client returns.
        changes: whether the call changes anything on the server.
        request_id: what the call is sent with, or None.
    """

    method: str
    request: Message
    read: Callable[[Any], T]
    changes: bool = False
    request_id: str | None = None


def cancel(
    pass_id: Id,
    *,
    reason: AnyReason,
    note: str,
    expected_status: AnyStatus | None,
    require_refund: bool,
    validate_only: bool,
    request_id: str | None,
) -> Call[Receipt]:
    sent_pass_id = text_id(pass_id)
    changes = not flag("validate_only", validate_only)
    sent_id = request_id_or(request_id, new_request_id() if changes else "")
    request = service_pb.CancelRequest(
        id=sent_pass_id,
        request_id=sent_id,
        reason=reason_number(reason),
        note=text("note", note),
        expected_status=status_number("expected_status", expected_status),
        require_refund=flag("require_refund", require_refund),
        validate_only=validate_only,
    )
    return Call(
        "CancelIdPass",
        request,
        lambda answer: _read.receipt(answer, sent_pass_id, sent_id),
        changes,
        sent_id or None,
    )


def register(
    link_validity_days: int,
    applicant_reference: str,
    supersedes: Id | None,
    request_id: str | None,
) -> Call[RegisterReceipt]:
    sent_id = request_id_or(request_id, new_request_id())
    prior = "" if supersedes is None else text_id(supersedes, "supersedes")
    request = service_pb.RegisterRequest(
        request_id=sent_id,
        link_validity_days=whole("link_validity_days", link_validity_days, bits=32),
        applicant_reference=text("applicant_reference", applicant_reference),
        supersedes=prior,
    )

    def read(answer: service_pb.RegisterResponse) -> RegisterReceipt:
        superseded = None
        if answer.HasField("superseded"):
            superseded = _read.receipt(answer.superseded, prior, sent_id)
        return RegisterReceipt(
            _read.id_pass(answer.id_pass), superseded, answer.reference, answer.replayed, sent_id
        )

    return Call("RegisterIdPass", request, read, changes=True, request_id=sent_id)


def advance(
    pass_id: Id,
    to_status: AnyStatus,
    expected_status: AnyStatus | None,
    request_id: str | None,
) -> Call[AdvanceReceipt]:
    sent_id = request_id_or(request_id, new_request_id())
    request = service_pb.AdvanceRequest(
        id=text_id(pass_id),
        to_status=status_number("to_status", to_status, needed=True),
        request_id=sent_id,
        expected_status=status_number("expected_status", expected_status),
    )

    def read(answer: service_pb.AdvanceResponse) -> AdvanceReceipt:
        return AdvanceReceipt(
            _read.id_pass(answer.id_pass), answer.reference, answer.replayed, sent_id
        )

    return Call("AdvanceIdPass", request, read, changes=True, request_id=sent_id)


def get(pass_id: Id) -> Call[IdPass]:
    request = service_pb.GetRequest(id=text_id(pass_id))
    return Call("GetIdPass", request, lambda answer: _read.id_pass(answer.id_pass))


def account() -> Call[Account]:
    return Call("GetAccount", service_pb.GetAccountRequest(), _read.account)


class Listing:
    """The position of an iteration over pages.

    Raises:
        ValueError: both idle_before and idle_for are given, or idle_before has no time zone.
    """

    def __init__(
        self,
        statuses: Iterable[AnyStatus],
        idle_before: datetime | None,
        idle_for: timedelta | None,
        applicant_reference: str,
    ) -> None:
        several("statuses", statuses)
        if idle_for is not None:
            if not isinstance(idle_for, timedelta):
                raise TypeError(f"idle_for is {idle_for!r}; pass a datetime.timedelta")
            if idle_before is not None:
                raise ValueError("give idle_before or idle_for, not both")
            # Once for all pages: a page token is valid for the same moment only.
            idle_before = datetime.now(timezone.utc) - idle_for
        self._request = service_pb.ListRequest(
            page_size=PAGE_SIZE,
            statuses=[status_number("statuses", each) for each in statuses],
            applicant_reference=text("applicant_reference", applicant_reference),
        )
        if idle_before is not None:
            if not isinstance(idle_before, datetime):
                raise TypeError(f"idle_before is {idle_before!r}; pass a datetime.datetime")
            if idle_before.tzinfo is None:
                raise ValueError("idle_before has no time zone; give one, such as timezone.utc")
            self._request.idle_before.FromDatetime(idle_before)
        self.done = False

    def next_page(self) -> Call[list[IdPass]]:
        def read(answer: service_pb.ListResponse) -> list[IdPass]:
            self._request.page_token = answer.next_page_token
            self.done = not answer.next_page_token
            return [_read.id_pass(message) for message in answer.id_passes]

        return Call("ListIdPasses", self._request, read)


class Watching:
    """The position of an iteration over events: after the newest that was read.

    Attributes:
        ends: whether the events end: those of one pass do.
    """

    method = "WatchIdPasses"

    def __init__(self, pass_id: Id | None, after_sequence: int, history: str | None) -> None:
        self.ends = pass_id is not None
        self._request = service_pb.WatchRequest(
            after_sequence=whole("after_sequence", after_sequence),
            id="" if pass_id is None else text_id(pass_id),
            history="" if history is None else text("history", history),
        )

    def opened(self, metadata: Iterable[tuple[str, Any]] | None) -> None:
        """Takes note of the history that the events are from.

        Args:
            metadata: what the stream began with.
        """
        for key, value in metadata or ():
            if key == "idpass-history":
                self._request.history = value

    def next_stream(self) -> Call[Event]:
        return Call(self.method, self._request, self._read)

    def _read(self, message: Any) -> Event:
        if message is None:  # which is how grpc.aio gives what it cannot read
            raise EmptyAnswer
        self._request.after_sequence = message.sequence
        return _read.event(message)


class Batch:
    """Passes that are cancelled in one call."""

    def __init__(self, requests: Sequence[service_pb.CancelRequest]) -> None:
        self._requests = requests
        self.call: Call[list[CancelResult]] = Call(
            "BatchCancelIdPasses",
            service_pb.BatchCancelRequest(requests=requests),
            self._read,
            changes=True,
        )

    def _read(self, answer: service_pb.BatchCancelResponse) -> list[CancelResult]:
        if len(answer.results) != len(self._requests):
            raise OutcomeUnknown(
                f"The service answered {len(answer.results)} results for {len(self._requests)} "
                "passes, so it is not known which were cancelled. Cancelling them again is safe.",
                code=grpc.StatusCode.INTERNAL,
            )
        results = []
        for request, result in zip(self._requests, answer.results, strict=True):
            receipt, error = None, None
            if result.HasField("response"):
                receipt = _read.receipt(result.response, request.id, request.request_id)
            else:
                error = _status.from_status(result.error, request.request_id)
            results.append(CancelResult(request.id, request.request_id, receipt, error))
        return results

    def failed(self, error: IdPassError) -> list[CancelResult]:
        """The results of the items if the call failed as a whole."""
        return [
            CancelResult(r.id, r.request_id, None, error.with_request_id(r.request_id))
            for r in self._requests
        ]


class Batches:
    """Splits ids into batches.

    Raises:
        ValueError: batch_size or in_flight is out of range, or a reason or status is unknown.
        TypeError: a reason or status is not a word.
    """

    def __init__(
        self,
        *,
        reason: AnyReason,
        note: str,
        expected_status: AnyStatus | None,
        require_refund: bool,
        batch_size: int,
        in_flight: int,
    ) -> None:
        if not 1 <= whole("batch_size", batch_size) <= MAX_BATCH_SIZE:
            raise ValueError(f"batch_size is {batch_size}; 1 to {MAX_BATCH_SIZE} are allowed")
        if whole("in_flight", in_flight) < 1:
            raise ValueError(f"in_flight is {in_flight}; at least 1 is needed")
        self.size = batch_size
        self._template = service_pb.CancelRequest(
            reason=reason_number(reason),
            note=text("note", note),
            expected_status=status_number("expected_status", expected_status),
            require_refund=flag("require_refund", require_refund),
        )

    def of(self, ids: Iterable[Id]) -> Iterator[Batch]:
        several("ids", ids)
        return self._of(ids)

    def _of(self, ids: Iterable[Id]) -> Iterator[Batch]:
        iterator = iter(ids)
        while chunk := list(islice(iterator, self.size)):
            yield self.batch(chunk)

    def batch(self, ids: Sequence[Id]) -> Batch:
        requests = []
        for pass_id in ids:
            request = service_pb.CancelRequest()
            request.CopyFrom(self._template)
            request.id = text_id(pass_id)
            request.request_id = new_request_id()
            requests.append(request)
        return Batch(requests)
