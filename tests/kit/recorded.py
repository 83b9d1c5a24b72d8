"""Calls as they were made and answered, and what each asked of a pass."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from idpass.v1 import id_pass_pb2 as pb
from idpass.v1 import id_pass_service_pb2 as service_pb
from kit.event_log import NAME, EventLog
from kit.linear import Step
from kit.pass_rules import Asked, Told
from kit.support import details_of

Request = (
    service_pb.CancelRequest
    | service_pb.BatchCancelRequest
    | service_pb.RegisterRequest
    | service_pb.AdvanceRequest
    | service_pb.GetRequest
    | service_pb.ListRequest
    | service_pb.GetAccountRequest
)
Answer = (
    service_pb.CancelResponse
    | service_pb.BatchCancelResponse
    | service_pb.RegisterResponse
    | service_pb.AdvanceResponse
    | service_pb.GetResponse
    | service_pb.ListResponse
    | pb.Account
)


class Refused(NamedTuple):
    """An error: its ErrorInfo."""

    reason: str
    metadata: dict[str, str]


NOTHING_DONE: Final = frozenset({"OVERLOADED", "STORE_UNAVAILABLE"})
"""Refusals that say nothing of a pass."""


@dataclass(eq=False)
class Made:
    """A call.

    Attributes:
        request: what was asked.
        began: nanoseconds on the clock of all callers.
        ended: when the answer came; None if no answer tells the outcome.
        answer: None like `ended`.
        above: of a page, the pass that the page before it ended with; "" for the first page.
    """

    request: Request
    began: int
    ended: int | None = None
    answer: Answer | Refused | None = None
    above: str = ""

    @property
    def settled(self) -> bool:
        """Whether the answer tells something."""
        answer = self.answer
        return answer is not None and not (
            isinstance(answer, Refused) and answer.reason in NOTHING_DONE
        )


class Item(NamedTuple):
    """One cancellation asked for, alone or in a batch, with its own answer."""

    request: service_pb.CancelRequest
    answer: service_pb.CancelResponse | Refused | None


def items(made: Made) -> Iterator[Item]:
    """The cancellations that a call asks for."""
    if isinstance(made.request, service_pb.CancelRequest):
        assert made.answer is None or isinstance(made.answer, service_pb.CancelResponse | Refused)
        yield Item(made.request, made.answer)
    elif isinstance(made.request, service_pb.BatchCancelRequest):
        for number, request in enumerate(made.request.requests):
            if not isinstance(made.answer, service_pb.BatchCancelResponse):
                assert made.answer is None or isinstance(made.answer, Refused)
                yield Item(request, made.answer)
                continue
            result = made.answer.results[number]
            if result.HasField("response"):
                yield Item(request, result.response)
            else:
                info = details_of(result.error)["ErrorInfo"]
                yield Item(request, Refused(info.reason, dict(info.metadata)))


def content(request: Request) -> tuple[str, bytes]:
    """What must be the same when a request_id comes again."""
    bare = type(request)()
    bare.CopyFrom(request)  # type: ignore[arg-type]
    bare.ClearField("request_id")  # type: ignore[arg-type]
    return type(request).__name__, bare.SerializeToString(deterministic=True)


def steps(calls: Sequence[Made], log: EventLog) -> dict[str, list[Step]]:
    """What the calls asked of each pass. The log tells only which pass a registration has made
    whose answer is missing.
    """
    found: dict[str, list[Step]] = defaultdict(list)
    for made in calls:
        for pass_id, asked, told in _asked(made):
            if told is None and (asked.kind == "see" or asked.dry):
                continue
            ended = made.ended if told is not None else None
            found[pass_id].append(Step(made.began, ended, asked, told))
    for pass_id, history in found.items():
        made_by = [step for step in history if step.asked.kind == "register"]
        if not any(step.told == Told() for step in made_by):
            history.extend(_unanswered_registration(pass_id, calls, log))
    return dict(found)


def _unanswered_registration(pass_id: str, calls: Sequence[Made], log: EventLog) -> Iterator[Step]:
    for event in log.events:
        if event.id_pass_id == pass_id and NAME[event.to_status] == "new":
            makers = [
                made
                for made in calls
                if isinstance(made.request, service_pb.RegisterRequest)
                and made.answer is None
                and made.request.request_id == event.request_id
            ]
            for made in makers[:1]:
                began = min(each.began for each in makers)
                asked = Asked("register", event.request_id, content(made.request))
                yield Step(began, None, asked, None)


def _asked(made: Made) -> Iterator[tuple[str, Asked, Told | None]]:
    request, answer = made.request, made.answer
    if isinstance(answer, Refused) and answer.reason in NOTHING_DONE:
        return
    for item in items(made):
        yield item.request.id, _cancel(item.request), _told(item.answer)
    if isinstance(request, service_pb.RegisterRequest):
        yield from _register(request, made)
    elif isinstance(request, service_pb.AdvanceRequest):
        told = (
            Told(replayed=answer.replayed)
            if isinstance(answer, service_pb.AdvanceResponse)
            else _told(answer)
        )
        kind = "advance"
        expected, to = NAME[request.expected_status], NAME[request.to_status]
        yield request.id, Asked(kind, request.request_id, content(request), to, expected), told
    elif isinstance(request, service_pb.GetRequest):
        yield request.id, Asked("see"), _told(answer)
    elif isinstance(answer, service_pb.ListResponse):
        for id_pass in answer.id_passes:
            yield id_pass.id, Asked("see"), _seen(id_pass)


def _cancel(request: service_pb.CancelRequest) -> Asked:
    return Asked(
        "cancel",
        request.request_id,
        content(request),
        "cancelled",
        NAME[request.expected_status],
        request.require_refund,
        request.validate_only,
    )


def _register(
    request: service_pb.RegisterRequest, made: Made
) -> Iterator[tuple[str, Asked, Told | None]]:
    answer = made.answer
    registered = isinstance(answer, service_pb.RegisterResponse)
    assert registered or answer is None or isinstance(answer, Refused)
    replayed = isinstance(answer, service_pb.RegisterResponse) and answer.replayed
    if request.supersedes and not (isinstance(answer, Refused) and "SLOT" in answer.reason):
        told = _told(answer)
        if isinstance(answer, service_pb.RegisterResponse):
            told = _told(answer.superseded)
            told = told and told._replace(replayed=replayed)
        asked = Asked("cancel", request.request_id, content(request), "cancelled")
        yield request.supersedes, asked, told
    asked = Asked("register", request.request_id, content(request))
    if isinstance(answer, service_pb.RegisterResponse):
        yield answer.id_pass.id, asked, Told(replayed=replayed)


def _told(answer: Answer | Refused | None) -> Told | None:
    if isinstance(answer, Refused):
        return Told(answer.reason, answer.metadata.get("status", ""))
    if isinstance(answer, service_pb.CancelResponse):
        return Told("", NAME[answer.previous_status], answer.fee_refunded, answer.replayed)
    if isinstance(answer, service_pb.GetResponse):
        return _seen(answer.id_pass)
    return None


def _seen(id_pass: pb.IdPass) -> Told:
    return Told("", NAME[id_pass.status], id_pass.fee_refunded)
