"""The judges of `prove/test_histories.py`, on histories made by hand: good ones and bad ones."""

from dataclasses import replace
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from idpass.v1 import id_pass_pb2 as pb
from idpass.v1 import id_pass_service_pb2 as service_pb
from kit.account_order import Delivery, Stream, problems
from kit.event_log import FEE, EventLog
from kit.linear import Step, search
from kit.pass_rules import Asked, State, Told
from kit.recorded import Made, Refused
from kit.support import STATUS

NEW = State("new")
OPENED, REFUNDED = Told("", "opened", refunded=False), Told("", "new", refunded=True)
CANCELLED = Told("", "cancelled", refunded=True)


def cancel(began: int, ended: int | None, told: Told | None, request_id: str = "") -> Step:
    return Step(began, ended, Asked("cancel", request_id, "a cancellation", "cancelled"), told)


def advance(began: int, ended: int | None, told: Told | None, to: str = "opened") -> Step:
    return Step(began, ended, Asked("advance", to=to), told)


def see(began: int, ended: int, status: str, *, refunded: bool = False) -> Step:
    return Step(began, ended, Asked("see"), Told("", status, refunded))


AGAIN = REFUNDED._replace(replayed=True)
TOO_LATE = Told("PASS_ALREADY_CANCELLED", "cancelled")
GOOD = {
    "one after the other": [
        see(1, 2, "new"),
        advance(3, 4, Told()),
        see(5, 6, "opened"),
        cancel(7, 8, Told("", "opened", refunded=True)),
        see(9, 10, "cancelled", refunded=True),
    ],
    "at once, in either order": [
        advance(1, 9, Told()),
        cancel(2, 8, OPENED._replace(refunded=True)),
    ],
    "at once, the refusal second": [advance(1, 9, TOO_LATE), cancel(2, 8, REFUNDED)],
    "no answer, and done": [
        cancel(1, None, None),
        see(2, 3, "new"),
        see(4, 5, "cancelled", refunded=True),
    ],
    "no answer, and never done": [cancel(1, None, None), see(2, 3, "new"), see(90, 91, "new")],
    "no answer, and done late": [
        cancel(1, None, None),
        advance(5, 6, Told()),
        see(7, 8, "opened"),
        see(9, 10, "cancelled", refunded=True),
    ],
    "a retry": [cancel(1, 2, REFUNDED, "r"), cancel(3, 4, AGAIN, "r"), cancel(5, 6, TOO_LATE, "s")],
    "a retry of what got no answer": [cancel(1, None, None, "r"), cancel(3, 4, AGAIN, "r")],
    "a retry that overtakes": [cancel(1, 9, AGAIN, "r"), cancel(2, 8, REFUNDED, "r")],
    "a reader on either side": [
        cancel(1, 9, REFUNDED),
        see(2, 3, "new"),
        see(4, 5, "cancelled", refunded=True),
    ],
}
BAD = {
    "two commits": [cancel(1, 9, REFUNDED), cancel(2, 8, REFUNDED)],
    "a refund of a fee that was earned": [
        advance(1, 2, Told()),
        advance(3, 4, Told(), "in_progress"),
        cancel(5, 6, Told("", "in_progress", refunded=True)),
    ],
    "a lost change": [cancel(1, 2, REFUNDED), see(3, 4, "new")],
    "a change seen and then not": [
        cancel(1, 9, REFUNDED),
        see(2, 3, "cancelled", refunded=True),
        see(4, 5, "new"),
    ],
    "a change before it was asked for": [see(1, 2, "opened"), advance(3, 4, Told())],
    "a change that nobody asked for": [see(1, 2, "opened")],
    "a retry decided anew": [cancel(1, 2, REFUNDED, "r"), cancel(3, 4, TOO_LATE, "r")],
    "a retry with another answer": [
        cancel(1, 2, REFUNDED, "r"),
        cancel(3, 4, AGAIN._replace(refunded=False), "r"),
    ],
    "a retry of nothing": [cancel(1, 2, AGAIN, "r")],
    "a transition that is none": [advance(1, 2, Told(), "complete")],
    "leaving what has ended": [cancel(1, 2, REFUNDED), advance(3, 4, Told())],
    "a refusal for what is not so": [cancel(1, 2, TOO_LATE)],
}


@pytest.mark.parametrize("name", GOOD)
def test_an_order_is_found(name: str) -> None:
    assert search(GOOD[name], NEW) is None


@pytest.mark.parametrize("name", BAD)
def test_no_order_is_found(name: str) -> None:
    stuck = search(BAD[name], NEW)
    assert stuck
    assert stuck.left


def test_the_search_is_quick_where_much_is_under_way_at_once() -> None:
    """Thirty calls at once, half of them without an answer, and one that no order explains."""
    steps = [cancel(1, None, None, f"r{n}") for n in range(15)]
    steps += [see(2, 99, "new") for _ in range(10)] + [advance(2, None, None) for _ in range(5)]
    assert search(steps, NEW) is None
    assert search([*steps, see(2, 99, "complete")], NEW)


def event(sequence: int, pass_id: str, before: str, after: str, **fields: Any) -> pb.IdPassEvent:
    fields = {"reference": f"call-{sequence}"} | fields
    return pb.IdPassEvent(
        sequence=sequence,
        id_pass_id=pass_id,
        from_status=STATUS[before] if before else pb.ID_PASS_STATUS_UNSPECIFIED,
        to_status=STATUS[after],
        event_time=Timestamp(seconds=sequence),
        **fields,
    )


MADE = event(1, "p", "", "new")
ENDED = event(2, "p", "new", "cancelled", refund=FEE)
EVENTS = [MADE, ENDED, event(3, "q", "", "new")]
REGISTER = Made(
    service_pb.RegisterRequest(),
    10,
    20,
    service_pb.RegisterResponse(id_pass=EventLog([MADE]).view("p", 1), reference="call-1"),
)
CANCEL = Made(
    service_pb.CancelRequest(id="p"),
    30,
    40,
    service_pb.CancelResponse(
        status=STATUS["cancelled"],
        previous_status=STATUS["new"],
        fee_refunded=True,
        refund=FEE,
        reference="call-2",
        cancel_time=Timestamp(seconds=2),
    ),
)
OTHER = Made(service_pb.RegisterRequest(), 35, None)


def get(began: int, position: int) -> Made:
    view = EventLog(EVENTS).view("p", position)
    return Made(
        service_pb.GetRequest(id="p"), began, began + 5, service_pb.GetResponse(id_pass=view)
    )


def account(began: int, position: int, **changes: Any) -> Made:
    slots, charged, refunded = EventLog(EVENTS).totals[position]
    answer = pb.Account(last_sequence=position, slots_in_use=slots)
    for money, amount in ((answer.fees_charged, charged), (answer.fees_refunded, refunded)):
        money.units, money.nanos = amount // 1_000_000, amount % 1_000_000 * 1_000
    for name, value in changes.items():
        setattr(answer, name, value)
    return Made(service_pb.GetAccountRequest(), began, began + 5, answer)


def page(began: int, *ids: str, position: int = 3) -> Made:
    log = EventLog(EVENTS)
    views = [view for each in ids if (view := log.view(each, position))]
    answer = service_pb.ListResponse(id_passes=views)
    return Made(service_pb.ListRequest(), began, began + 5, answer)


def stream(*events: pb.IdPassEvent, at: int = 50, **request: Any) -> Stream:
    got = [Delivery(at, each) for each in events]
    return Stream(service_pb.WatchRequest(**request), 5, got)


def judge(*more: Made, log: list[pb.IdPassEvent] = EVENTS, streams: Any = ()) -> list[str]:
    return problems(EventLog(log), [REGISTER, CANCEL, OTHER, *more], streams)


def test_what_fits_the_order_of_an_account_is_no_problem() -> None:
    complete = replace(stream(*EVENTS[:2], id="p"), complete=True)
    good = [get(21, 1), get(36, 1), get(36, 2), get(41, 2), account(21, 1), account(41, 3)]
    good += [page(41, "q", "p"), page(36, "p", position=2), account(36, 1), account(41, 2)]
    assert (
        judge(*good, streams=[stream(*EVENTS), stream(EVENTS[2], after_sequence=2), complete]) == []
    )


def refusal(reason: str, began: int = 45, **metadata: str) -> Made:
    request = service_pb.CancelRequest(id="p")
    return Made(request, began, began + 5, Refused(reason, metadata))


WRONG = {
    "an answer that is old": [get(41, 1)],
    "totals that are old": [account(41, 1)],
    "totals of two positions": [account(41, 2, slots_in_use=1)],
    "a page without what is there": [page(41, "q")],
    "a page of two moments": [page(60, "q", "p"), page(70, "p", position=2)],
    "news that a later reader has not": [account(41, 3), account(50, 2)],
    "a refusal that was never true": [refusal("PASS_COMPLETE", status="complete")],
    "an answer without its event": [
        replace(CANCEL, answer=service_pb.CancelResponse(reference="none"))
    ],
    "a refusal from before": [refusal("PASS_NOT_FOUND")],
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_the_order_of_an_account_is_told(name: str) -> None:
    assert len(judge(*WRONG[name])) == 1


BROKEN = {
    "an event twice": [*EVENTS, EVENTS[2]],
    "an event too few": [EVENTS[0], EVENTS[2]],
    "a refund too much": [MADE, event(2, "p", "new", "opened", refund=FEE), EVENTS[2]],
    "no refund": [MADE, event(2, "p", "new", "cancelled"), EVENTS[2]],
    "an event that nobody asked for": [*EVENTS, event(4, "p", "cancelled", "opened")],
}


@pytest.mark.parametrize("name", BROKEN)
def test_events_that_cannot_be_are_told(name: str) -> None:
    assert judge(log=BROKEN[name])


STREAMS = {
    "a gap": stream(EVENTS[0], EVENTS[2]),
    "an event twice": stream(EVENTS[0], EVENTS[0]),
    "an event that was not asked for": stream(EVENTS[0], after_sequence=1),
    "another pass's event": stream(EVENTS[2], id="p"),
    "an event before its call": stream(EVENTS[0], EVENTS[1], at=25),
    "an end too soon": replace(stream(EVENTS[0], id="p"), complete=True),
}


@pytest.mark.parametrize("name", STREAMS)
def test_streams_that_cannot_be_are_told(name: str) -> None:
    assert judge(streams=[STREAMS[name]])


def test_half_of_a_change_is_seen_by_nobody() -> None:
    """A pass that supersedes another: both events are of one call."""
    log = [MADE, event(2, "p", "new", "cancelled", refund=FEE), event(3, "q", "", "new")]
    log[2].reference = log[1].reference = "both"
    request = service_pb.RegisterRequest(supersedes="p")
    calls = [REGISTER, Made(request, 30, None)]
    assert problems(EventLog(log), [*calls, account(35, 1), account(36, 3)], []) == []
    (wrong,) = problems(EventLog(log), [*calls, account(35, 2)], [])
    assert "the half of a change" in wrong
