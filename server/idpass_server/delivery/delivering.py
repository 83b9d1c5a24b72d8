"""The part of a server that delivers events to webhooks.

One process delivers at a time: the one that has the lease. It keeps every endpoint in memory, wakes
at news of commits and when something is due, and saves what has become of events each SAVE_S, all
endpoints in one transaction. A process that dies in between has its successor send those events
again, under the same `webhook-id`.

While calls are in flight the requests are rate-limited, so that a receiver that catches up from far
behind leaves the event loop to the calls.
"""

import asyncio
import heapq
import math
import random
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any, Final, NamedTuple

import structlog

from idpass_server.delivery.endpoint import Endpoint, Item
from idpass_server.delivery.figures import Figures, Lag
from idpass_server.delivery.outbox import Message, Outbox
from idpass_server.delivery.posting import Posts, Telling
from idpass_server.delivery.sending import TOTAL_S
from idpass_server.engine.clock import Clock
from idpass_server.engine.reads import Reads
from idpass_server.engine.writes import Engine
from idpass_server.rules import webhooks as rules
from idpass_server.rules.positions import Gap, numbers_between, skipped
from idpass_server.rules.refusals import Refusal
from idpass_server.rules.webhooks import Attempt, Webhook
from idpass_server.store import DELIVERY_LEASE, LEASE_US, Store
from idpass_server.store.webhooks import Progress

MAX_REQUESTS: Final = 256
"""Number of requests under way to all endpoints together."""
REQUESTS_PER_S_WHILE_BUSY: Final = 50
"""Rate limit of requests while calls are in flight, requests per second."""
IDLE_LOOK_S: Final = 0.01
"""Interval between two looks whether calls are still in flight, seconds."""
SAVE_S: Final = 0.25
"""Interval between two saves while there is something to save, seconds."""
SAVED_AT_ONCE: Final = 100
"""Number of endpoints in one save."""
MAX_UNSAVED: Final = 1_000
"""Number of an endpoint's attempts that are not saved yet from which it gets no more requests."""
KEEP_S: Final = 1.0
"""Interval between two claims of the lease, and two looks for changed endpoints, seconds."""
LEASE_MARGIN_S: Final = 0.5
"""Time before the end of the lease from which nothing is sent any more, seconds."""
LAG_RETRY_S: Final = 0.2
"""Delay before something that could not be read yet is read again, seconds."""
PRUNE_AFTER: Final = 100
"""Number of an endpoint's events after which its old deliveries are deleted."""
log = structlog.get_logger()


class Behind(NamedTuple):
    """What delivery stands on.

    Attributes:
        store: has events and endpoints.
        engine: saves.
        reads: reads.
        clock: tells the time.
    """

    store: Store
    engine: Engine
    reads: Reads
    clock: Clock


class Delivering:
    """Delivers events. Create it on the event loop.

    Args:
        behind: what it stands on.
        outbox: reads events.
        posts: sends requests; closed with this.
        figures: is told how far behind endpoints are.
        busy: returns whether unary calls are in flight.
    """

    def __init__(
        self,
        behind: Behind,
        *,
        outbox: Outbox,
        posts: Posts,
        figures: Figures,
        busy: Callable[[], bool],
    ) -> None:
        self._store, self._engine, self._reads, self._clock = behind
        self._outbox = outbox
        self._posts = posts
        self._busy = busy
        self._figures = figures
        self._term: int | None = None
        self._held_until_s = 0.0
        self._endpoints: dict[str, Endpoint] = {}
        self._paused: set[str] = set()
        self._stamp: object = None
        self._changes = 0
        self._by_account: dict[str, list[Endpoint]] = {}
        self._latest: dict[str, int] = {}
        self._gaps: dict[str, tuple[Gap, ...]] = {}
        self._woken: dict[str, Endpoint] = {}
        self._timers: list[tuple[float, str]] = []
        self._in_flight = 0
        self._next_turn_s = 0.0
        self._telling = Telling()
        self._stopping = False
        self._wake = asyncio.Event()
        self._stale = asyncio.Event()
        self._saving = asyncio.Event()
        self._save_lock = asyncio.Lock()
        self._requests: set[asyncio.Task[None]] = set()

    # -- what others tell and ask

    def accounts(self) -> list[str]:
        """Names of the accounts whose events are of interest."""
        return list(self._by_account)

    def notify(self, last_sequences: Mapping[str, int]) -> None:
        """Wakes the endpoints of accounts with new events.

        Args:
            last_sequences: sequence of the newest event, by account.
        """
        for account in last_sequences.keys() & self._by_account.keys():
            if last_sequences[account] > self._latest.get(account, 0):
                self._latest[account] = last_sequences[account]
                for endpoint in self._by_account[account]:
                    self._awaken(endpoint)

    def changed(self, webhook_id: str) -> None:
        """Has an endpoint looked at again: a caller has changed it.

        Nothing more is begun for it as it was, so that a leaked secret signs nothing from now on;
        in another process, once that has looked too.
        """
        endpoint = self._endpoints.get(webhook_id)
        if endpoint is not None:
            self._drop(endpoint)
        self._changes += 1
        self._stale.set()

    async def test(self, webhook: Webhook) -> Attempt:
        """Sends a test event to an endpoint, once, whichever process delivers.

        Raises:
            Overloaded: too many are under way.
        """
        return await self._posts.test(webhook, await self._reads.history())

    # -- its life

    async def run(self) -> None:
        """Delivers until cancelled."""
        async with asyncio.TaskGroup() as group:
            for work in (self._keep_once, self._pump_once, self._save_once):
                group.create_task(self._again(work))

    async def close(self, patience_s: float) -> None:
        """Begins nothing more, lets requests finish, and saves.

        Args:
            patience_s: how long requests under way may take, seconds; TOTAL_S at most.
        """
        self._stopping = True
        if self._requests:
            await asyncio.wait(self._requests, timeout=min(patience_s, TOTAL_S))
        for request in self._requests:
            request.cancel()
        with suppress(Refusal):
            await self.save()
            if self._term is not None:
                await self._reads.run(self._store.release_lease, DELIVERY_LEASE)
        await self._posts.close()

    async def _again(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Does a piece of work again and again; after a failure from what is stored."""
        while True:
            try:
                await work()
            except Refusal as refusal:
                log.warning("webhooks_postponed", error=str(refusal))
                await asyncio.sleep(KEEP_S)
            except Exception:
                log.exception("webhooks_failed")
                self._drop_all()
                await asyncio.sleep(KEEP_S)

    # -- the lease, and which endpoints there are

    async def _keep_once(self) -> None:
        if self._stopping:  # the lease is given back
            await asyncio.sleep(KEEP_S)
            return
        began_s = time.monotonic()
        now_us = self._clock.now().us
        term = await self._reads.run(self._store.claim_lease, DELIVERY_LEASE, now_us)
        if term != self._term:
            self._drop_all()
            self._outbox.history = await self._reads.history()
        self._term = term
        self._stale.clear()
        if term is not None:
            self._held_until_s = began_s + LEASE_US / 1e6 - LEASE_MARGIN_S
            await self._look(began_s + KEEP_S)
        lags = [self._lag(each) for each in self._endpoints.values()]
        self._figures.lags = lags + [Lag(0, 0.0, paused=True)] * len(self._paused)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stale.wait(), KEEP_S)

    def _lag(self, endpoint: Endpoint) -> Lag:
        oldest_us = endpoint.oldest_event_us
        seconds = 0.0 if oldest_us is None else (self._clock.now().us - oldest_us) / 1e6
        newest = self._latest.get(endpoint.webhook.account, 0)
        gaps = self._gaps.get(endpoint.webhook.account, ())
        events = numbers_between(endpoint.settled, newest, gaps)
        return Lag(max(0, events), max(0.0, seconds), endpoint.webhook.paused)

    @property
    def _holds(self) -> bool:
        return self._term is not None and time.monotonic() < self._held_until_s

    async def _look(self, until_s: float) -> None:
        """Takes over what callers have changed, here or in another process.

        Args:
            until_s: when to go on another time, since the lease must be kept.
        """
        # Counted too: an endpoint may be dropped after it was read as it is now.
        changes = self._changes
        stamp = changes, await self._reads.run(self._store.webhooks.stamp)
        if stamp == self._stamp:
            return
        found = {each.id: (each, newest) for each, newest in await self._enabled()}
        for endpoint in list(self._endpoints.values()):
            stored, _ = found.get(endpoint.webhook.id, (None, 0))
            if stored is None or stored.version != endpoint.webhook.version:
                self._drop(endpoint)
        self._paused = {each.id for each, _ in found.values() if each.paused}
        for webhook, newest in found.values():
            if webhook.id not in self._endpoints and not webhook.paused:
                await self._take_up(webhook, newest)
                if time.monotonic() > until_s:
                    self._stale.set()
                    return
        self._stamp = stamp

    async def _enabled(self) -> list[tuple[Webhook, int]]:
        return await self._reads.run(self._store.webhooks.enabled)

    async def _take_up(self, webhook: Webhook, newest: int) -> None:
        account = webhook.account
        pending = await self._reads.run(self._store.webhooks.pending, account, webhook.id)
        self._gaps[account] = tuple(await self._reads.run(self._store.gaps, account))
        endpoint = Endpoint(webhook, pending, self._clock.now().us, time.monotonic())
        self._skip(endpoint)
        self._endpoints[webhook.id] = endpoint
        self._by_account.setdefault(account, []).append(endpoint)
        self._latest[account] = max(self._latest.get(account, 0), newest)
        self._awaken(endpoint)

    def _skip(self, endpoint: Endpoint) -> None:
        """Moves its position over numbers that no event has, since a backup was restored."""
        gaps = self._gaps.get(endpoint.webhook.account, ())
        endpoint.position = skipped(endpoint.position, gaps)

    def _drop(self, endpoint: Endpoint) -> None:
        webhook = endpoint.webhook
        endpoint.closed = True
        self._endpoints.pop(webhook.id, None)
        self._woken.pop(webhook.id, None)
        self._telling.forget(webhook)
        rest = [each for each in self._by_account.get(webhook.account, ()) if each is not endpoint]
        if rest:
            self._by_account[webhook.account] = rest
        else:
            self._by_account.pop(webhook.account, None)
            self._latest.pop(webhook.account, None)
            self._gaps.pop(webhook.account, None)

    def _drop_all(self) -> None:
        for endpoint in list(self._endpoints.values()):
            self._drop(endpoint)
        self._paused = set()
        self._stamp = None
        self._timers = []

    # -- reading and sending

    def _awaken(self, endpoint: Endpoint) -> None:
        self._woken[endpoint.webhook.id] = endpoint
        self._wake.set()

    async def _pump_once(self) -> None:
        self._wake.clear()
        now_s = time.monotonic()
        while self._timers and self._timers[0][0] <= now_s:
            endpoint = self._endpoints.get(heapq.heappop(self._timers)[1])
            if endpoint is not None:
                endpoint.timer_s = math.inf
                self._woken[endpoint.webhook.id] = endpoint
        again_s = self._start(now_s) if self._holds and not self._stopping else KEEP_S
        if self._timers:
            again_s = min(again_s, max(0.0, self._timers[0][0] - time.monotonic()))
        with suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), again_s)

    def _start(self, now_s: float) -> float:
        """Starts what may be started, in turns. Returns when to look again, seconds from now."""
        while self._woken:
            if self._in_flight >= MAX_REQUESTS:
                return KEEP_S  # the end of a request wakes it
            if now_s < self._next_turn_s and self._busy():
                return IDLE_LOOK_S
            endpoint = self._woken.pop(next(iter(self._woken)))
            self._read_on(endpoint)
            if endpoint.webhook.paused or endpoint.unsaved >= MAX_UNSAVED:
                continue  # the next save drops it, or wakes it
            item = endpoint.take(now_s)
            if item is None:
                self._set_timer(endpoint)
                continue
            self._next_turn_s = now_s + 1 / REQUESTS_PER_S_WHILE_BUSY
            self._woken[endpoint.webhook.id] = endpoint  # behind the others
            self._in_flight += 1
            self._spawn(self._attempt(endpoint, item))
        return KEEP_S

    def _set_timer(self, endpoint: Endpoint) -> None:
        next_s = endpoint.next_s()
        if next_s is not None and next_s < endpoint.timer_s:
            endpoint.timer_s = next_s
            heapq.heappush(self._timers, (next_s, endpoint.webhook.id))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._requests.add(task)
        task.add_done_callback(self._requests.discard)

    def _read_on(self, endpoint: Endpoint) -> None:
        if endpoint.wants_events(self._latest.get(endpoint.webhook.account, 0)):
            endpoint.reading = True
            self._spawn(self._read(endpoint))

    async def _read(self, endpoint: Endpoint) -> None:
        messages: list[Message] = []
        try:
            messages = await self._outbox.after(endpoint.webhook.account, endpoint.position)
        except Refusal as refusal:
            log.warning("webhooks_postponed", error=str(refusal))
        except Exception:
            log.exception("webhooks_failed")
        if not messages:
            self._skip(endpoint)
            await asyncio.sleep(LAG_RETRY_S)
        endpoint.reading = False
        if not endpoint.closed:
            endpoint.add(messages, time.monotonic())
            self._saving.set()
            self._awaken(endpoint)

    async def _attempt(self, endpoint: Endpoint, item: Item) -> None:
        try:
            await self._try(endpoint, item)
        except Refusal as refusal:
            log.warning("webhooks_postponed", error=str(refusal))
            endpoint.put_back(item, time.monotonic() + KEEP_S)
        except Exception:
            log.exception("webhooks_failed")
            endpoint.put_back(item, time.monotonic() + KEEP_S)
        finally:
            self._in_flight -= 1
            if not endpoint.closed:
                self._awaken(endpoint)
            self._wake.set()

    async def _try(self, endpoint: Endpoint, item: Item) -> None:
        webhook = endpoint.webhook
        body = item.body
        if body is None:
            message = await self._outbox.one(webhook.account, item.sequence)
            if message is None:
                endpoint.drop(item)
                return
            body = message.body
        message_id = rules.message_id(
            self._outbox.history, webhook.account, item.sequence, webhook.id
        )
        attempt, retry_after_us = await self._posts.post(
            webhook, message_id, body, item.attempts + 1
        )
        if endpoint.closed:
            return
        decision = rules.after(attempt, retry_after_us, random.random())  # noqa: S311
        now_us = self._clock.now().us
        endpoint.settle(item, attempt, decision, now_us, time.monotonic())
        self._saving.set()
        if not attempt.succeeded:
            self._telling.failed(endpoint.webhook, item.sequence, attempt, decision.next)

    # -- saving

    async def _save_once(self) -> None:
        await self._saving.wait()
        await self.save()
        await asyncio.sleep(SAVE_S)

    async def save(self) -> None:
        """Saves what has become of events; drops everything if the lease is another process's."""
        async with self._save_lock:
            self._saving.clear()
            dirty = [each for each in self._endpoints.values() if each.dirty]
            for start in range(0, len(dirty), SAVED_AT_ONCE):
                await self._save_some(dirty[start : start + SAVED_AT_ONCE])

    async def _save_some(self, endpoints: list[Endpoint]) -> None:
        term = self._term
        if term is None:
            return
        saved = [(each, each.progress()) for each in endpoints]
        progress: list[Progress] = [each for _, each in saved]
        try:
            kept = await self._engine.run(lambda store: store.webhooks.save(progress, term))
        except BaseException:
            for endpoint, unsaved in saved:
                endpoint.unsave(unsaved)
            self._saving.set()
            raise
        if not kept:
            log.warning("webhooks_lease_lost")
            self._term = None
            self._drop_all()
            return
        for endpoint in endpoints:
            if not endpoint.closed:
                await self._saved(endpoint)

    async def _saved(self, endpoint: Endpoint) -> None:
        webhook = endpoint.webhook
        if webhook.paused:
            if not endpoint.dirty:  # or the pause itself is still to be saved
                self._drop(endpoint)
                self._paused.add(webhook.id)
            return
        self._awaken(endpoint)
        if endpoint.pruned_after >= PRUNE_AFTER:
            endpoint.pruned_after = 0
            await self._engine.run(lambda it: it.webhooks.prune(webhook.account, webhook.id))
