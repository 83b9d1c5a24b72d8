"""Watching an account's events: each one once, in order, however slow the watcher.

A watcher is a position in the account's sequence and reads on from there. The store is its queue,
so a slow watcher holds no memory and delays nobody. Watchers at the same position share one read. A
position only moves past events that were read: an empty read, as from a lagging standby, is
repeated.

While unary calls are in flight, the reads of all watchers together are rate-limited, so that a
watcher that catches up from far behind leaves the event loop to the calls.
"""

import asyncio
import functools
import time
from collections import Counter, OrderedDict
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Final, NamedTuple

from idpass.v1.id_pass_pb2 import IdPassEvent
from idpass_server.api import responses
from idpass_server.engine.reads import PassEvents, Reads
from idpass_server.rules import domain
from idpass_server.rules.positions import Gap, numbers_between
from idpass_server.rules.refusals import InvalidRequest, Overloaded, StoreUnavailable, Violation

CHUNK_EVENTS: Final = 64
"""Number of events in one read."""
SHARED_CHUNKS: Final = 256
"""Number of chunks kept for watchers at the same position."""
EVENTS_READ_PER_S_WHILE_BUSY: Final = 5_000
"""Rate limit of all watchers' reads while calls are in flight, events per second; more than calls
can produce."""
IDLE_LOOK_S: Final = 0.01
"""Interval between two looks whether calls are still in flight, seconds."""
LAG_RETRY_S: Final = 0.2
"""Delay before known events that could not be read yet are read again, seconds."""

IN_FLIGHT: Final = frozenset(responses.status(status) for status in domain.TRANSITIONS)


class Chunk(NamedTuple):
    """What one read found.

    Attributes:
        events: in order.
        up_to: the position behind them.
    """

    events: list[IdPassEvent]
    up_to: int


class _Stream:
    """One watcher.

    Args:
        account: whose events it gets.
        position: the sequence up to which it has every event.
        gaps: in the account's numbers, which are no lag.
    """

    __slots__ = ("account", "gaps", "position")

    def __init__(self, account: str, position: int, gaps: Sequence[Gap]) -> None:
        self.account = account
        self.position = position
        self.gaps = gaps

    def lag(self, latest: int) -> int:
        """How many events up to the latest it has yet to get."""
        if not self.gaps:
            return latest - self.position
        return numbers_between(self.position, latest, self.gaps)


class Watchers:
    """All watchers of a server.

    Args:
        reads: reads events.
        max_watchers: largest number of open streams; more are refused as Overloaded.
        max_per_account: largest number of open streams per account.
        busy: returns whether unary calls are in flight.
    """

    def __init__(
        self,
        reads: Reads,
        *,
        max_watchers: int,
        max_per_account: int,
        busy: Callable[[], bool],
    ) -> None:
        self._reads = reads
        self._max_watchers = max_watchers
        self._max_per_account = max_per_account
        self._busy = busy
        self._open: Counter[str] = Counter()
        self._streams: set[_Stream] = set()
        self._closing = False
        self._news: dict[str, asyncio.Future[None]] = {}
        self._latest: dict[str, int] = {}
        self._chunks: OrderedDict[tuple[str, int], asyncio.Task[Chunk]] = OrderedDict()
        self._next_turn_s = 0.0

    @property
    def open(self) -> int:
        """Number of open streams."""
        return self._open.total()

    @property
    def lag_events_max(self) -> int:
        """Number of events that the watcher furthest behind has yet to get."""
        streams = list(self._streams)  # a copy, as the metrics thread may call this
        return max((s.lag(self._latest.get(s.account, 0)) for s in streams), default=0)

    def accounts(self) -> list[str]:
        """Names of the accounts being watched."""
        return list({stream.account for stream in list(self._streams)})

    def notify(self, last_sequences: Mapping[str, int]) -> None:
        """Wakes the watchers of accounts with new events. Repeating a notification is a no-op.

        Args:
            last_sequences: sequence of the newest event, by account.
        """
        for account, sequence in last_sequences.items():
            if sequence > self._latest.get(account, 0):
                self._latest[account] = sequence
                self._wake(account)

    def close(self) -> None:
        """Ends every stream with StoreUnavailable; its caller can resume it elsewhere."""
        self._closing = True
        self.recheck()

    def recheck(self) -> None:
        """Makes every stream check whether it may continue."""
        for account in list(self._news):
            self._wake(account)

    async def follow(
        self,
        account: str,
        after_sequence: int,
        latest_sequence: int,
        pass_id: str | None,
        still_admitted: Callable[[], None],
        *,
        gaps: Sequence[Gap] = (),
    ) -> AsyncGenerator[IdPassEvent]:
        """Yields an account's events after a sequence, without end, or one pass's until its last.

        Args:
            account: name of the account.
            after_sequence: the sequence to start after.
            latest_sequence: of the account's newest event, as just read from the store.
            pass_id: only events of this pass; None for all.
            still_admitted: raises the error that ends the stream once its caller may not watch.
            gaps: in the account's numbers.

        Raises:
            HistoryLost: events that the watcher has yet to get were purged.
            InvalidRequest: `after_sequence` is ahead of the account's newest event.
            Overloaded: too many streams are open.
            StoreUnavailable: the server is stopping, or events cannot be read.
        """
        stream = self._enter(account, after_sequence, latest_sequence, gaps)
        try:
            # Other watchers may not have heard of this event, and might not until the next.
            self.notify({account: latest_sequence})
            if pass_id is not None:
                found = await self._pass_events(stream, pass_id)
                ended = found.id_pass.end_time_us is not None
                for event in map(responses.event, found.events):
                    yield event
                    # The pass may have ended after it was read and before its events were.
                    ended = ended or event.to_status not in IN_FLIGHT
                if ended:
                    return
                stream.position = max([found.up_to, *(e.sequence for e in found.events)])
            while True:
                self._check_open(stream)
                still_admitted()
                news = self._next_news(account)
                if stream.position >= self._latest.get(account, 0):
                    await asyncio.shield(news)
                    continue
                chunk = await self._chunk(account, stream.position)
                if chunk.up_to == stream.position:
                    await asyncio.wait((news,), timeout=LAG_RETRY_S)
                for event in chunk.events:
                    if pass_id is None or event.id_pass_id == pass_id:
                        still_admitted()
                        yield event
                        if pass_id is not None and event.to_status not in IN_FLIGHT:
                            return
                    stream.position = event.sequence
                stream.position = chunk.up_to
        finally:
            self._streams.discard(stream)
            self._open[account] -= 1

    async def _pass_events(self, stream: _Stream, pass_id: str) -> PassEvents:
        """Reads one pass's events; repeats a read that lags behind the watcher's position."""
        while True:
            self._check_open(stream)
            news = self._next_news(stream.account)
            found = await self._reads.pass_events(
                stream.account, pass_id, stream.position, CHUNK_EVENTS
            )
            if found is not None and found.up_to >= stream.position:
                return found
            await asyncio.wait((news,), timeout=LAG_RETRY_S)

    def _check_open(self, stream: _Stream) -> None:
        if self._closing:
            raise StoreUnavailable(f"the server is stopping; resume after {stream.position}")

    def _next_news(self, account: str) -> asyncio.Future[None]:
        """A future that is done at the account's next news."""
        news = self._news.get(account)
        if news is None:
            news = self._news[account] = asyncio.get_running_loop().create_future()
        return news

    def _enter(
        self, account: str, after_sequence: int, latest_sequence: int, gaps: Sequence[Gap]
    ) -> _Stream:
        if after_sequence > max(latest_sequence, self._latest.get(account, 0)):
            description = f"{after_sequence} is ahead of the newest event, {latest_sequence}"
            raise InvalidRequest([Violation("after_sequence", description)])
        if self.open >= self._max_watchers:
            raise Overloaded("too many streams are open")
        if self._open[account] >= self._max_per_account:
            raise Overloaded(
                f"the account has {self._max_per_account} streams open, as many as it may"
            )
        self._open[account] += 1
        stream = _Stream(account, after_sequence, gaps)
        self._streams.add(stream)
        return stream

    def _wake(self, account: str) -> None:
        news = self._news.pop(account, None)
        if news is not None and not news.done():
            news.set_result(None)

    async def _chunk(self, account: str, position: int) -> Chunk:
        """Reads the events after a position; none if they are known but cannot be read yet."""
        key = (account, position)
        task = self._chunks.get(key)
        if task is None:
            # All watchers wake at once, and the first one's read serves them all. It may miss the
            # newest events, but it starts at the right position.
            task = self._chunks[key] = asyncio.create_task(self._read_chunk(*key))
            task.add_done_callback(functools.partial(self._keep, key))
            if len(self._chunks) > SHARED_CHUNKS:
                self._chunks.popitem(last=False)
        return await asyncio.shield(task)

    def _keep(self, key: tuple[str, int], task: asyncio.Task[Chunk]) -> None:
        """Drops a read that failed or found nothing, so that the next watcher reads again."""
        found = not task.cancelled() and task.exception() is None and task.result().events
        if not found and self._chunks.get(key) is task:
            del self._chunks[key]

    async def _read_chunk(self, account: str, position: int) -> Chunk:
        events, up_to = await self._reads.events(account, position, CHUNK_EVENTS)
        await self._turn(len(events))
        return Chunk([responses.event(event) for event in events], up_to)

    async def _turn(self, events: int) -> None:
        """Delays a read of a number of events to keep the rate, as long as calls are in flight."""
        turn_s = max(self._next_turn_s, time.monotonic())
        self._next_turn_s = turn_s + events / EVENTS_READ_PER_S_WHILE_BUSY
        while (wait_s := turn_s - time.monotonic()) > 0:
            if self._closing or not self._busy():
                self._next_turn_s = 0.0
                return
            await asyncio.sleep(min(wait_s, IDLE_LOOK_S))
