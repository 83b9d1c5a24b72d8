"""Whether all that an account's callers saw fits the order of its events and real time.

Every call has a position in that order: a change the one of its own event, everything else one at
which its answer was true. Whoever calls after an answer came must not be told of an earlier
position than that answer had. The earliest position that a call may have is as good as any other:
it leaves the most to those that follow. So one pass through time, each call given the earliest,
decides it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from idpass.v1 import id_pass_pb2 as pb
from idpass.v1 import id_pass_service_pb2 as service_pb
from kit.answer_positions import Answers, Placed, told
from kit.event_log import NAME, EventLog
from kit.pass_rules import ENDED
from kit.recorded import Made, items


class Delivery(NamedTuple):
    """An event as a watcher got it.

    Attributes:
        at: nanoseconds on the clock of all callers.
    """

    at: int
    event: pb.IdPassEvent


@dataclass
class Stream:
    """One stream of a watcher.

    Attributes:
        request: how it was opened.
        began: when.
        got: in order.
        complete: whether the server ended it with OK.
    """

    request: service_pb.WatchRequest
    began: int
    got: list[Delivery]
    complete: bool = False


def problems(log: EventLog, calls: Sequence[Made], streams: Iterable[Stream]) -> list[str]:
    """What does not fit.

    Args:
        log: of the account, as long as it got.
        calls: all that were made.
        streams: of all watchers.
    """
    return _Order(log, calls, list(streams)).check()


class _Order:
    def __init__(self, log: EventLog, calls: Sequence[Made], streams: list[Stream]) -> None:
        self._log = log
        self._calls = calls
        self._streams = streams
        self._wrong = list(log.wrong)
        self._answers = Answers(log)

    def check(self) -> list[str]:
        placed = [self._answers.place(made) for made in self._calls if made.settled]
        placed += self._unanswered()
        for stream in self._streams:
            self._check_stream(stream)
        self._check_time(placed)
        return self._wrong + self._answers.wrong

    # -- what nobody was told

    def _unanswered(self) -> list[Placed]:
        """Events whose calls got no answer, each with the first call that may have made it."""
        found = []
        for sequence, event in enumerate(self._log.events, start=1):
            if sequence in self._answers.owned or sequence in self._log.inner:
                continue
            first = self._log.calls[event.reference][0]
            makers = [made for made in self._calls if not made.ended and _may_make(made, event)]
            if makers:
                maker = min(makers, key=lambda made: made.began)
                found.append(Placed(maker, first, sequence))
            else:
                self._wrong.append(f"nobody has asked for event {sequence}: {event}")
        return found

    # -- watchers

    def _check_stream(self, stream: Stream) -> None:
        asked = stream.request
        expected = [
            event
            for event in self._log.events[asked.after_sequence :]
            if not asked.id or event.id_pass_id == asked.id
        ]
        got = [each.event for each in stream.got]
        if got != expected[: len(got)]:
            sequences = [event.sequence for event in got]
            self._wrong.append(f"a watcher after {asked} got {sequences}")
        ended = bool(asked.id) and self._log.status(asked.id, self._log.newest) in ENDED
        if stream.complete and not (ended and len(got) == len(expected)):
            self._wrong.append(f"a stream after {asked} ended after {len(got)} events")

    # -- real time

    def _check_time(self, placed: list[Placed]) -> None:
        """Goes through time with the position that everyone must be beyond by then."""
        moments: list[tuple[int, int, int, Placed | None]] = []
        for number, each in enumerate(placed):
            moments.append((each.made.began, 0, number, each))
            if each.made.ended is not None:
                moments.append((each.made.ended, 1, number, each))
        for stream in self._streams:
            moments += [(each.at, 2, each.event.sequence, None) for each in stream.got]
        moments.sort(key=lambda moment: moment[:3])
        reached = 0
        floors: dict[int, int] = {}
        for _, kind, number, place in moments:
            if place is None:
                reached = max(reached, number)
            elif kind == 0:
                floors[number] = reached
                if place.first and reached >= place.first:
                    self._wrong.append(
                        told(place.made, f"made event {place.first} after {reached} was seen")
                    )
            else:
                reached = max(reached, self._earliest(place, floors[number]))

    def _earliest(self, placed: Placed, floor: int) -> int:
        if placed.fits is None:
            return placed.last
        for position in range(floor, self._log.newest + 1):
            if position not in self._log.inner and placed.fits(position):
                return position
        before = [
            position
            for position in range(floor)
            if position not in self._log.inner and placed.fits(position)
        ]
        inner = [position for position in self._log.inner if placed.fits(position)]
        why = "fits no position"
        if inner:
            why = f"saw the half of a change, at {inner}"
        elif before:
            why = f"was true at {before[-1]} and came after {floor} was seen"
        self._wrong.append(told(placed.made, why))
        return floor


def _may_make(made: Made, event: pb.IdPassEvent) -> bool:
    """Whether a call that got no answer may have made an event."""
    request = made.request
    if isinstance(request, service_pb.RegisterRequest):
        return request.request_id == event.request_id and NAME[event.to_status] == "new"
    if isinstance(request, service_pb.AdvanceRequest):
        moves = request.id == event.id_pass_id and request.to_status == event.to_status
        return moves and request.request_id == event.request_id
    return NAME[event.to_status] == "cancelled" and any(
        (item.request.id, item.request.request_id) == (event.id_pass_id, event.request_id)
        for item in items(made)
    )
