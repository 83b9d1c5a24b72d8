"""Callers of one account who call at once, and remember all that they see.

They have few passes, so that they meet. Calls go over many connections; some have a deadline of
1 to 30 ms, some are cancelled by their own callers, and of those that got no answer half are made
again. Whoever has changed something mostly looks at once, over another connection, at what it is
now. Between bursts of calls there is rest, in which every watcher must get what there is.
"""

import asyncio
import functools
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, cast

import grpc

from idpass.v1 import id_pass_pb2 as pb
from idpass.v1 import id_pass_service_pb2 as service_pb
from idpass.v1.id_pass_service_pb2_grpc import IdPassServiceStub
from kit.account_order import Delivery, Stream, problems
from kit.event_log import NAME, EventLog
from kit.history_asks import Asking
from kit.linear import Step, search
from kit.pass_rules import ENDED
from kit.recorded import Answer, Made, Refused, Request, items, steps
from kit.support import RPC_OF, bearer, told

PATIENCE_S: Final = 20.0
"""Deadline of a call whose caller is in no hurry, seconds."""
HASTY: Final = 0.15
"""Share of calls with a deadline of 1 to 30 ms."""
CANCELLED: Final = 0.07
"""Share of calls that their own callers cancel, within 15 ms."""
LOOK_S: Final = 0.002
"""Pause between two looks whether a watcher has got its events, seconds."""
LOOKS_AFTER_A_FAULT: Final = 3_000
"""As Surroundings.looks, after a fault."""
NO_ANSWER: Final = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
    }
)


class Shape(NamedTuple):
    """How a group calls.

    Attributes:
        callers: at once.
        bursts: of calls.
        calls: of each caller in a burst.
        pause_s: longest pause of a caller between two calls, seconds.
        passes: number of passes from which no more are registered.
        hurried: whether some calls have a short deadline or are cancelled.
    """

    callers: int = 10
    bursts: int = 3
    calls: int = 5
    pause_s: float = 0.0
    passes: int = 11
    hurried: bool = True


class Surroundings(NamedTuple):
    """What all groups share.

    Attributes:
        links: connections.
        up: set while there is a server.
        faults: a number that changes when a fault begins, when it is over, and with each look while
            news may be late because of it.
        looks: number of calls answered by a watcher's own server, one after the other, by which it
            must have got what had been stored before them.
        least_s: shortest time of those calls, seconds: a watcher's reads may wait for a moment
            while there are calls.
    """

    links: Sequence[IdPassServiceStub]
    up: asyncio.Event
    faults: Callable[[], int]
    looks: int
    least_s: float


@dataclass(eq=False)
class Watch:
    """One watcher; it resumes where a stream breaks.

    Attributes:
        request: of its first stream.
        link: its connection.
        streams: one after the other.
        over: whether it has ended.
    """

    request: service_pb.WatchRequest
    link: IdPassServiceStub
    streams: list[Stream] = field(default_factory=list)
    over: bool = False

    def missing(self, events: Sequence[pb.IdPassEvent]) -> int:
        """How many of the events it has yet to get, and the end of a pass's stream among them."""
        if self.over:
            return 0
        own = [event for event in events if self.request.id in ("", event.id_pass_id)]
        wanted = sum(event.sequence > self.request.after_sequence for event in own)
        ends = bool(self.request.id and own) and NAME[own[-1].to_status] in ENDED
        return wanted + ends - len(self.got)

    @property
    def got(self) -> list[Delivery]:
        """What it has got, on all its streams."""
        return [each for stream in self.streams for each in stream.got]

    def next_request(self) -> service_pb.WatchRequest:
        """The request that resumes it."""
        after = self.got[-1].event.sequence if self.got else self.request.after_sequence
        return service_pb.WatchRequest(id=self.request.id, after_sequence=after)


class Seen(NamedTuple):
    """What a group's histories are like.

    Attributes:
        wrong: what no order explains.
        histories: steps of each pass.
        calls: number of calls.
        unknown: of those that got no answer.
        delivered: number of events that watchers got.
        latest_ms: the longest time from an answer, or a stream's begin, to the watcher's event.
    """

    wrong: list[str]
    histories: list[list[Step]]
    calls: int
    unknown: int
    delivered: int
    latest_ms: float


class Group:
    """
    Args:
        account: whose token is its name with -token behind it.
        seed: of what they do.
    """

    def __init__(self, around: Surroundings, account: str, seed: str, shape: Shape) -> None:
        self._around = around
        self._metadata = bearer(f"{account}-token")
        self._draw = random.Random(seed)
        self._shape = shape
        self._account = account
        self._calls: list[Made] = []
        self._watches: list[Watch] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._ask = Asking(self._draw, shape.passes)
        self._wrong: list[str] = []

    async def run(self) -> Seen:
        """Calls to the end. Returns what was seen, judged."""
        events: list[pb.IdPassEvent] = []
        self._watch(service_pb.WatchRequest())
        try:
            for _ in range(self._shape.bursts):
                faults = self._around.faults()
                await asyncio.gather(*(self._caller() for _ in range(self._shape.callers)))
                events = await self._events(faults)
                await self._rest(events, faults)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        return self._judged(EventLog(events))

    def _judged(self, log: EventLog) -> Seen:
        streams = [stream for watch in self._watches for stream in watch.streams]
        wrong = self._wrong + problems(log, self._calls, streams)
        histories = steps(self._calls, log)
        for pass_id, history in histories.items():
            if stuck := search(history):
                wrong.append(f"no order for pass {pass_id}: {stuck}")
        return Seen(
            [f"{self._account}: {each}" for each in wrong],
            list(histories.values()),
            len(self._calls),
            sum(made.answer is None for made in self._calls),
            sum(len(stream.got) for stream in streams),
            _latest_ms(log, self._calls, streams),
        )

    # -- calls

    async def _caller(self) -> None:
        for _ in range(self._shape.calls):
            await asyncio.sleep(self._draw.random() * self._shape.pause_s)
            if self._draw.random() < 0.06:
                self._watch(self._ask.watch_request())
            made = await self._make(self._ask.request())
            while made.answer is None and self._draw.random() < 0.5:
                made = await self._make(made.request)
            if isinstance(made.answer, service_pb.ListResponse):
                await self._turn_pages(made)
            elif _changes(made) and self._draw.random() < 0.7:
                await self._make(self._ask.look_after(made))

    async def _make(self, request: Request, above: str = "") -> Made:
        await self._around.up.wait()
        hurry = self._draw.random() if self._shape.hurried else 1.0
        timeout_s = self._draw.uniform(0.001, 0.03) if hurry < HASTY else PATIENCE_S
        method = getattr(self._draw.choice(self._around.links), RPC_OF[type(request)])
        made = Made(request, time.monotonic_ns(), above=above)
        call = method(request, timeout=timeout_s, metadata=self._metadata)
        cancels = HASTY <= hurry < HASTY + CANCELLED
        if cancels:
            after_s = self._draw.uniform(0, 0.015)
            asyncio.get_running_loop().call_later(after_s, call.cancel)
        try:
            answer: Answer | Refused | None = await call
        except grpc.aio.AioRpcError as error:
            answer = self._refused(error)
            if error.code() is grpc.StatusCode.UNAVAILABLE:
                await asyncio.sleep(0.02)
        except asyncio.CancelledError:
            if not cancels:
                raise
            answer = None
        if answer is not None and not _is_unknown(answer):
            made.answer, made.ended = answer, time.monotonic_ns()
        self._calls.append(made)
        self._ask.learn(made)
        return made

    def _refused(self, error: grpc.aio.AioRpcError) -> Refused | None:
        trailing: Any = error.trailing_metadata() or ()
        if "grpc-status-details-bin" not in dict(trailing):
            if error.code() not in NO_ANSWER:
                self._wrong.append(f"an error without details: {error}")
            return None
        refused = told(cast("grpc.RpcError", error))
        if refused.reason == "INTERNAL":
            self._wrong.append(f"an error of the server's own: {error}")
        if refused.code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return None
        return Refused(refused.reason, refused.metadata)

    async def _turn_pages(self, made: Made) -> None:
        while isinstance(made.answer, service_pb.ListResponse) and made.answer.next_page_token:
            assert isinstance(made.request, service_pb.ListRequest)
            request = service_pb.ListRequest()
            request.CopyFrom(made.request)
            request.page_token = made.answer.next_page_token
            made = await self._make(request, above=made.answer.id_passes[-1].id)

    # -- watchers

    def _watch(self, request: service_pb.WatchRequest) -> Watch:
        watch = Watch(request, self._any_link())
        self._watches.append(watch)
        self._tasks.append(asyncio.create_task(self._follow(watch)))
        return watch

    async def _follow(self, watch: Watch) -> None:
        while not watch.over:
            await self._around.up.wait()
            stream = Stream(watch.next_request(), time.monotonic_ns(), [])
            watch.streams.append(stream)
            call: Any = watch.link.WatchIdPasses(stream.request, metadata=self._metadata)
            try:
                async for event in call:
                    stream.got.append(Delivery(time.monotonic_ns(), event))
                stream.complete = watch.over = True
            except grpc.aio.AioRpcError as error:
                refused = self._refused(error)
                if refused is not None and refused.reason != "STORE_UNAVAILABLE":
                    watch.over = True
                    self._wrong.append(f"a watcher with {stream.request} was told {refused}")
                await asyncio.sleep(0.02)

    async def _events(self, faults: int) -> list[pb.IdPassEvent]:
        """All events so far, as a new watcher gets them."""
        while not isinstance(answer := (await self._calmly(self._any_link())), pb.Account):
            pass
        newest = answer.last_sequence
        watch = self._watch(service_pb.WatchRequest())
        await self._wait(watch, lambda: newest - len(watch.got), faults)
        return [each.event for each in watch.got]

    def _any_link(self) -> IdPassServiceStub:
        return self._draw.choice(self._around.links)

    async def _calmly(self, link: IdPassServiceStub) -> Answer | Refused | None:
        """Reads the account, over a connection of one's choice."""
        await self._around.up.wait()
        request = service_pb.GetAccountRequest()
        made = Made(request, time.monotonic_ns())
        call: Any = link.GetAccount(request, timeout=PATIENCE_S, metadata=self._metadata)
        try:
            made.answer = await call
            made.ended = time.monotonic_ns()
        except grpc.aio.AioRpcError:
            await asyncio.sleep(LOOK_S)
        self._calls.append(made)
        return made.answer

    async def _rest(self, events: Sequence[pb.IdPassEvent], faults: int) -> None:
        """Nobody calls; every watcher must get all events that there are."""
        for watch in self._watches:
            await self._wait(watch, functools.partial(watch.missing, events), faults)

    async def _wait(self, watch: Watch, missing: Callable[[], int], faults: int) -> None:
        """Waits until a watcher has what there is; it is late if its server has answered other
        calls meanwhile, more than might overtake it.
        """
        looks, begun_s = 0, time.monotonic()
        while missing() > 0:
            caused = faults != self._around.faults()
            enough = LOOKS_AFTER_A_FAULT if caused else self._around.looks
            if looks >= enough and time.monotonic() - begun_s >= self._around.least_s:
                what = f"{watch.request}, {len(watch.streams)} streams"
                self._wrong.append(f"a watcher is late by {missing()} events: {what}")
                return
            await self._calmly(watch.link)
            await asyncio.sleep(LOOK_S)
            looks += 1


def _is_unknown(answer: Answer | Refused) -> bool:
    """Whether an answer says that the outcome is not known."""
    if isinstance(answer, service_pb.BatchCancelResponse):
        request = service_pb.BatchCancelRequest(
            requests=[service_pb.CancelRequest() for _ in answer.results]
        )
        refused = [item.answer for item in items(Made(request, 0, 0, answer))]
        return any(isinstance(each, Refused) and "STORE" in each.reason for each in refused)
    return isinstance(answer, Refused) and answer.metadata.get("outcome") == "unknown"


def _changes(made: Made) -> bool:
    """Whether a call was answered that changes something."""
    kinds = service_pb.CancelResponse | service_pb.AdvanceResponse
    others = service_pb.RegisterResponse | service_pb.BatchCancelResponse
    return isinstance(made.answer, kinds | others)


def _latest_ms(log: EventLog, calls: Sequence[Made], streams: Sequence[Stream]) -> float:
    answered = {
        sequence: made.ended
        for made in calls
        if made.ended
        for sequence in log.calls.get(getattr(made.answer, "reference", ""), ())
        if not getattr(made.answer, "replayed", False)
    }
    late_ns = [
        each.at - max(stream.began, answered[each.event.sequence])
        for stream in streams
        for each in stream.got
        if each.event.sequence in answered
    ]
    return max(late_ns, default=0) / 1e6
