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
import random
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any, Final, NamedTuple

import structlog

from idpass_server.delivery.endpoint import Endpoint, Item
from idpass_server.delivery.figures import Figures, Lag
from idpass_server.delivery.outbox import Message, Outbox, encoded
from idpass_server.delivery.sending import TOTAL_S, Sender
from idpass_server.delivery.signing import Secrets
from idpass_server.engine.clock import Clock, shown
from idpass_server.engine.reads import Reads
from idpass_server.engine.writes import Engine
from idpass_server.ids import new_uuid
from idpass_server.rules import webhooks as rules
from idpass_server.rules.refusals import Overloaded, Refusal
from idpass_server.rules.webhooks import Attempt, Next, Webhook
from idpass_server.store import DELIVERY_LEASE, LEASE_US, Store
from idpass_server.store.webhooks import Progress

MAX_REQUESTS: Final = 256
"""Number of requests under way to all endpoints together."""
MAX_TESTS: Final = 16
"""Number of test events under way; more are refused as Overloaded."""
REQUESTS_PER_S_WHILE_BUSY: Final = 100
"""Rate limit of requests while calls are in flight, requests per second."""
IDLE_LOOK_S: Final = 0.01
"""Interval between two looks whether calls are still in flight, seconds."""
SAVE_S: Final = 0.1
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
TELL_S: Final = 60.0
"""Shortest interval between two log lines about failures of one endpoint, seconds."""

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
        sender: sends requests; closed with this.
        secrets: signs them.
        figures: counts what happens.
        busy: returns whether unary calls are in flight.
    """

    def __init__(
        self,
        behind: Behind,
        *,
        outbox: Outbox,
        sender: Sender,
        secrets: Secrets,
        figures: Figures,
        busy: Callable[[], bool],
    ) -> None:
        self._store, self._engine, self._reads, self._clock = behind
        self._outbox = outbox
        self._sender = sender
        self._secrets = secrets
        self._busy = busy
        self._figures = figures
        self._term: int | None = None
        self._held_until_s = 0.0
        self._endpoints: dict[str, Endpoint] = {}
        self._paused: set[str] = set()
        self._stamp: object = None
        self._by_account: dict[str, list[Endpoint]] = {}
        self._latest: dict[str, int] = {}
        self._woken: dict[str, Endpoint] = {}
        self._timers: list[tuple[float, str]] = []
        self._in_flight = 0
        self._tests = 0
        self._next_turn_s = 0.0
        self._told_s: dict[str, float] = {}
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

    def changed(self) -> None:
        """Has endpoints looked at again: a caller has changed one."""
        self._stale.set()

    async def test(self, webhook: Webhook) -> Attempt:
        """Sends a test event to an endpoint, once, whichever process delivers.

        Raises:
            Overloaded: MAX_TESTS are under way.
        """
        if self._tests >= MAX_TESTS or self._stopping:
            raise Overloaded("too many test events are under way")
        self._tests += 1
        try:
            now_us = self._clock.now().us
            payload = {
                "type": rules.TEST_TYPE,
                "timestamp": shown(now_us).replace("+00:00", "Z"),
                "data": {"history": await self._reads.history(), "webhook_id": webhook.id},
            }
            message_id = f"msg_test_{new_uuid()}"
            return (await self._post(webhook, message_id, encoded(payload), 1))[0]
        finally:
            self._tests -= 1

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
        await self._sender.close()

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
        if term is not None:
            self._held_until_s = began_s + LEASE_US / 1e6 - LEASE_MARGIN_S
            self._stale.clear()
            await self._look()
        lags = [self._lag(each) for each in self._endpoints.values()]
        self._figures.lags = lags + [Lag(0, 0.0, paused=True)] * len(self._paused)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stale.wait(), KEEP_S)

    def _lag(self, endpoint: Endpoint) -> Lag:
        oldest_us = endpoint.oldest_event_us
        seconds = 0.0 if oldest_us is None else (self._clock.now().us - oldest_us) / 1e6
        newest = self._latest.get(endpoint.webhook.account, 0)
        return Lag(max(0, newest - endpoint.settled), max(0.0, seconds), endpoint.webhook.paused)

    @property
    def _holds(self) -> bool:
        return self._term is not None and time.monotonic() < self._held_until_s

    async def _look(self) -> None:
        """Takes over what callers have changed, here or in another process."""
        stamp = await self._reads.run(self._store.webhooks.stamp)
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
        self._stamp = stamp

    async def _enabled(self) -> list[tuple[Webhook, int]]:
        return await self._reads.run(self._store.webhooks.enabled)

    async def _take_up(self, webhook: Webhook, newest: int) -> None:
        account = webhook.account
        pending = await self._reads.run(self._store.webhooks.pending, account, webhook.id)
        endpoint = Endpoint(webhook, pending, self._clock.now().us, time.monotonic())
        self._endpoints[webhook.id] = endpoint
        self._by_account.setdefault(account, []).append(endpoint)
        self._latest[account] = max(self._latest.get(account, 0), newest)
        self._awaken(endpoint)

    def _drop(self, endpoint: Endpoint) -> None:
        webhook = endpoint.webhook
        endpoint.closed = True
        self._endpoints.pop(webhook.id, None)
        self._woken.pop(webhook.id, None)
        self._told_s.pop(webhook.id, None)
        rest = [each for each in self._by_account.get(webhook.account, ()) if each is not endpoint]
        if rest:
            self._by_account[webhook.account] = rest
        else:
            self._by_account.pop(webhook.account, None)
            self._latest.pop(webhook.account, None)

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
            item = None
            if not endpoint.webhook.paused and endpoint.unsaved < MAX_UNSAVED:
                item = endpoint.take(now_s)
            if item is None:
                next_s = endpoint.next_s()
                if next_s is not None and not endpoint.webhook.paused:
                    heapq.heappush(self._timers, (max(next_s, now_s), endpoint.webhook.id))
                continue
            self._next_turn_s = now_s + 1 / REQUESTS_PER_S_WHILE_BUSY
            self._woken[endpoint.webhook.id] = endpoint  # behind the others
            self._in_flight += 1
            self._spawn(self._attempt(endpoint, item))
        return KEEP_S

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
        if not messages:
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
        attempt, retry_after_us = await self._post(webhook, message_id, body, item.attempts + 1)
        if endpoint.closed:
            return
        decision = rules.after(attempt, retry_after_us, random.random())  # noqa: S311
        now_us = self._clock.now().us
        endpoint.settle(item, attempt, decision, now_us, time.monotonic())
        self._saving.set()
        if not attempt.succeeded:
            self._tell(endpoint, item, attempt, decision.next)

    async def _post(
        self, webhook: Webhook, message_id: str, body: bytes, number: int
    ) -> tuple[Attempt, int]:
        now_us = self._clock.now().us
        headers = self._secrets.headers(webhook, message_id, body, now_us)
        sent = await self._sender.post(webhook.url, headers, body)
        attempt = Attempt(number, now_us, *sent[:4])
        self._figures.attempt(attempt)
        return attempt, sent.retry_after_us

    def _tell(self, endpoint: Endpoint, item: Item, attempt: Attempt, then: Next) -> None:
        """Logs a failure: each pause and event given up, of the others some."""
        webhook = endpoint.webhook
        what = {
            "webhook": webhook.id,
            "account": webhook.account,
            "sequence": item.sequence,
            "attempt": attempt.number,
            "code": attempt.status_code,
            "error": attempt.error or None,
        }
        now_s = time.monotonic()
        if webhook.paused:
            log.warning("webhook_paused", reason=str(webhook.paused_reason), **what)
        elif then is Next.GIVE_UP:
            log.warning("webhook_event_given_up", **what)
        elif now_s - self._told_s.get(webhook.id, -TELL_S) >= TELL_S:
            self._told_s[webhook.id] = now_s
            log.info("webhook_failing", **what)

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
            if endpoint.webhook.paused and not endpoint.closed:
                self._drop(endpoint)
                self._paused.add(endpoint.webhook.id)
            elif endpoint.pruned_after >= PRUNE_AFTER:
                endpoint.pruned_after = 0
                await self._prune(endpoint.webhook)
            if not endpoint.closed:
                self._awaken(endpoint)

    async def _prune(self, webhook: Webhook) -> None:
        await self._engine.run(lambda store: store.webhooks.prune(webhook.account, webhook.id))
