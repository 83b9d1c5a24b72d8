"""Watching an account's events: every one, once, in order, however slow the watcher.

A watcher is a position in the account's sequence, and reads on from there; the store is its
queue, so that a slow watcher holds no memory and delays nobody. Watchers at the same position
share what was read. While unary calls are in flight all watchers together send at a limited
rate: they fall behind for that time rather than slow the calls down, and then catch up.
"""

import asyncio
import time
from collections import Counter, OrderedDict
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from typing import Any, Final

from idpass.v1.id_pass_pb2 import IdPassEvent
from idpass_server import domain, responses
from idpass_server.records import Event
from idpass_server.refusals import InvalidRequest, Overloaded, StoreUnavailable, Violation
from idpass_server.store import Store

CHUNK_EVENTS: Final = 64
SHARED_CHUNKS: Final = 256
EVENTS_PER_S_WHILE_BUSY: Final = 1_000

Chunk = list[IdPassEvent]
IN_FLIGHT: Final = frozenset(responses.status(status) for status in domain.TRANSITIONS)


class Watchers:
    """
    Args:
        store: where events are read from.
        read: runs one of the store's reading methods off the event loop.
        max_watchers: how many streams may be open; one more is refused as Overloaded.
        max_per_account: how many of them on one account.
        busy: whether unary calls are in flight.
    """

    def __init__(
        self,
        store: Store,
        read: Callable[..., Coroutine[Any, Any, list[Event]]],
        *,
        max_watchers: int,
        max_per_account: int,
        busy: Callable[[], bool],
    ) -> None:
        self._store = store
        self._read = read
        self._max_watchers = max_watchers
        self._max_per_account = max_per_account
        self._busy = busy
        self._open: Counter[str] = Counter()
        self._closing = False
        self._news: dict[str, asyncio.Future[None]] = {}
        self._latest: dict[str, int] = {}
        self._chunks: OrderedDict[tuple[str, int], asyncio.Task[Chunk]] = OrderedDict()
        self._next_turn_s = 0.0

    @property
    def open(self) -> int:
        """How many streams are open now."""
        return self._open.total()

    def accounts(self) -> list[str]:
        """The accounts that are being watched."""
        return list(self._news)

    def notify(self, last_sequences: Mapping[str, int]) -> None:
        """Wakes the watchers of the accounts that have new events; news may come twice."""
        for account, sequence in last_sequences.items():
            if sequence > self._latest.get(account, 0):
                self._latest[account] = sequence
                self._wake(account)

    def close(self) -> None:
        """Ends every stream with StoreUnavailable; each can be resumed elsewhere."""
        self._closing = True
        self.recheck()

    def recheck(self) -> None:
        """Has every stream look whether it may go on."""
        for account in list(self._news):
            self._wake(account)

    async def follow(
        self,
        account: str,
        after_sequence: int,
        latest_sequence: int,
        pass_id: str | None,
        still_admitted: Callable[[], None],
    ) -> AsyncGenerator[IdPassEvent]:
        """The account's events after a sequence, without end; those of one pass until its last.

        Args:
            latest_sequence: the account's newest event, as just read from the store.
            still_admitted: raises what ends the stream when its caller may no longer watch.

        Raises:
            InvalidRequest: the sequence is ahead of the account's newest.
            Overloaded: too many streams are open.
            StoreUnavailable: the server is stopping.
        """
        self._enter(account, after_sequence, latest_sequence)
        try:
            self._latest[account] = max(latest_sequence, self._latest.get(account, 0))
            position = after_sequence
            while True:
                if self._closing:
                    raise StoreUnavailable(f"the server is stopping; resume after {position}")
                still_admitted()
                news = self._news.get(account)
                if news is None:
                    news = self._news[account] = asyncio.get_running_loop().create_future()
                target = self._latest[account]
                if position < target:
                    chunk = await self._chunk(account, position, pass_id)
                    await self._turn(len(chunk))
                    for event in chunk:
                        still_admitted()
                        yield event
                        position = event.sequence
                        if pass_id and event.to_status not in IN_FLIGHT:
                            return
                    if chunk:
                        continue
                    # Only a single pass's watcher finds nothing: none of the news is its own.
                    position = target
                await asyncio.shield(news)
        finally:
            self._open[account] -= 1

    def _enter(self, account: str, after_sequence: int, latest_sequence: int) -> None:
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

    def _wake(self, account: str) -> None:
        news = self._news.pop(account, None)
        if news is not None and not news.done():
            news.set_result(None)

    async def _chunk(self, account: str, position: int, pass_id: str | None) -> Chunk:
        if pass_id is not None:
            return await self._read_chunk(account, position, pass_id)
        key = (account, position)
        task = self._chunks.get(key)
        if task is None:
            # All watchers wake at once; the first one's read serves them all. It may have ended
            # before what is newest by now, but it starts where it should.
            task = self._chunks[key] = asyncio.create_task(self._read_chunk(*key, None))
            if len(self._chunks) > SHARED_CHUNKS:
                self._chunks.popitem(last=False)
        try:
            return await asyncio.shield(task)
        except Exception:
            self._chunks.pop(key, None)
            raise

    async def _read_chunk(self, account: str, position: int, pass_id: str | None) -> Chunk:
        events = await self._read(self._store.events, account, position, CHUNK_EVENTS, pass_id)
        return [responses.event(event) for event in events]

    async def _turn(self, events: int) -> None:
        """Waits until so many events may be sent."""
        now_s = time.monotonic()
        if not self._busy():
            self._next_turn_s = now_s
            return
        self._next_turn_s = max(self._next_turn_s, now_s) + events / EVENTS_PER_S_WHILE_BUSY
        await asyncio.sleep(self._next_turn_s - now_s)
