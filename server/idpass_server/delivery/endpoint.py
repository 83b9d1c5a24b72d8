"""What is on its way to one endpoint: in order for each pass, passes side by side.

A lane has the events of one pass, in order; only its first one is sent. What has failed becomes a
pending row of the database, and what stands behind it in its lane with it, so that the endpoint's
cursor passes them and one event that is always refused holds up nothing but its own pass.

An endpoint that fails gets one request at a time; one that is down (DOWN_FAILURES in a row) gets
only what is due again, and one new event each PROBE_S. No I/O and no clock in here.
"""

import heapq
import math
from collections import deque
from collections.abc import Iterable
from typing import Final

from idpass_server.delivery.outbox import Message
from idpass_server.rules import webhooks as rules
from idpass_server.rules.webhooks import (
    DOWN_FAILURES,
    MAX_WAITING,
    WINDOW,
    Attempt,
    Decision,
    DeliveryState,
    Next,
    PausedReason,
    Webhook,
)
from idpass_server.store.webhooks import KEPT_DELIVERED, Done, Pending, Progress

FRESH: Final = 32
"""Number of events that were read and not begun from which no more are read."""
PROBE_S: Final = 300.0
"""Interval at which an endpoint that is down gets a new event, seconds."""


class Item:
    """One event on its way.

    Attributes:
        body: the payload's bytes; None if it must be read again.
        attempts: number of attempts so far.
        stored: whether it is a pending row, or will be with the next save.
        due_s: when it may be sent, on time.monotonic().
        outage: whether its latest failure was the receiver's as a whole.
    """

    __slots__ = (
        *("sequence", "id_pass_id", "event_type", "event_time_us"),
        *("body", "attempts", "stored", "due_s", "outage"),
    )

    def __init__(self, pending: Pending, *, body: bytes | None, stored: bool, due_s: float) -> None:
        self.sequence = pending.sequence
        self.id_pass_id = pending.id_pass_id
        self.event_type = pending.event_type
        self.event_time_us = pending.event_time_us
        self.attempts = pending.attempts
        self.body = body
        self.stored = stored
        self.due_s = due_s
        self.outage = False

    def done(self, state: DeliveryState, next_time_us: int) -> Done:
        """What is stored of it."""
        return Done(
            *(self.sequence, self.id_pass_id, self.event_type, self.event_time_us),
            *(state, self.attempts, next_time_us),
        )


class Endpoint:
    """One endpoint, as the process that delivers knows it.

    Args:
        webhook: as stored.
        pending: its pending events, in order.
        now_us: the time, microseconds since the epoch.
        now_s: the same on time.monotonic().

    Attributes:
        webhook: as it is now.
        position: sequence up to which events were read.
        reading: whether the next events are being read.
        in_flight: number of requests under way.
        closed: whether it has been replaced or dropped; what is under way is then ignored.
        pruned_after: number of events finished since old ones were deleted.
        timer_s: when it will be woken at the latest, on time.monotonic(); kept by who wakes it.
    """

    def __init__(
        self, webhook: Webhook, pending: Iterable[Pending], now_us: int, now_s: float
    ) -> None:
        self.webhook = webhook
        self.position = webhook.cursor
        self.reading = False
        self.in_flight = 0
        self.closed = False
        self.pruned_after = 0
        self.timer_s = math.inf
        self._lanes: dict[str, deque[Item]] = {}
        self._count = 0
        self._fresh: dict[int, Item] = {}
        self._ready: deque[Item] = deque()
        self._waiting: list[tuple[float, int, Item]] = []
        self._failures = 0
        self._rest_until_s = 0.0
        self._next_probe_s = 0.0
        self._done: dict[int, Done] = {}
        self._tried: list[tuple[int, Attempt]] = []
        self._passed: list[int] = []
        self._changed = False
        for each in pending:
            longest_us = rules.longest_delay_us(each.attempts)
            delay_us = min(max(0, each.next_time_us - now_us), longest_us)
            self._add(Item(each, body=None, stored=True, due_s=now_s + delay_us / 1e6), now_s)

    # -- events in

    def wants_events(self, newest: int) -> bool:
        """Whether the next events should be read.

        Args:
            newest: sequence of the account's newest event.
        """
        return (
            not self.reading
            and self.position < newest
            and len(self._fresh) < FRESH
            and self._count < MAX_WAITING
        )

    def add(self, messages: Iterable[Message], now_s: float) -> None:
        """Takes the events that follow its position."""
        for event, body in messages:
            self.position = event.sequence
            self._changed = True
            if not self.webhook.wants(event):
                continue
            pending = Pending(
                *(event.sequence, event.id_pass_id, rules.event_type(event)),
                *(event.event_time_us, 0, 0),
            )
            self._add(Item(pending, body=body, stored=False, due_s=now_s), now_s)

    def _add(self, item: Item, now_s: float) -> None:
        lane = self._lanes.setdefault(item.id_pass_id, deque())
        lane.append(item)
        self._count += 1
        if not item.stored:
            if lane[0].stored:
                self._store(item)
            else:
                self._fresh[item.sequence] = item
        if lane[0] is item:
            self._queue(item, now_s)

    def _queue(self, item: Item, now_s: float) -> None:
        if item.due_s <= now_s:
            self._ready.append(item)
        else:
            heapq.heappush(self._waiting, (item.due_s, item.sequence, item))

    def _store(self, item: Item) -> None:
        """Makes an event that has not been tried a pending row."""
        item.stored = True
        item.body = None
        self._fresh.pop(item.sequence, None)
        self._done[item.sequence] = item.done(DeliveryState.PENDING, 0)

    # -- requests out

    def take(self, now_s: float) -> Item | None:
        """The next event to send now; None if there is none, or the endpoint has enough."""
        while self._waiting and self._waiting[0][0] <= now_s:
            self._ready.append(heapq.heappop(self._waiting)[2])
        if self._is_full() or now_s < self._rest_until_s or not self._ready:
            return None
        item = self._ready.popleft() if not self._is_down() else self._take_down(now_s)
        if item is not None:
            self.in_flight += 1
        return item

    def _is_full(self) -> bool:
        return self.in_flight >= (1 if self._failures else WINDOW)

    def _is_down(self) -> bool:
        return self._failures >= DOWN_FAILURES

    def _take_down(self, now_s: float) -> Item | None:
        again = next((item for item in self._ready if item.attempts), None)
        if again is None and now_s >= self._next_probe_s:
            self._next_probe_s = now_s + PROBE_S
            again = self._ready[0]
        if again is not None:
            self._ready.remove(again)
        return again

    def next_s(self) -> float | None:
        """When something may be sent that may not be now, on time.monotonic().

        None if nothing may, or not before the end of a request.
        """
        if self._is_full():
            return None
        times = [self._waiting[0][0]] if self._waiting else []
        if self._ready and self._is_down():
            times.append(self._next_probe_s)
        if not times:
            return self._rest_until_s if self._ready else None
        return max(min(times), self._rest_until_s)

    # -- what came of them

    def put_back(self, item: Item, due_s: float) -> None:
        """Takes back an event that could not be sent, which says nothing about the endpoint."""
        self.in_flight -= 1
        item.due_s = due_s
        heapq.heappush(self._waiting, (due_s, item.sequence, item))

    def drop(self, item: Item) -> None:
        """Gives up an event that is no longer there."""
        self.in_flight -= 1
        self._finish(item, DeliveryState.GIVEN_UP, item.due_s)

    def settle(
        self, item: Item, attempt: Attempt, decision: Decision, now_us: int, now_s: float
    ) -> None:
        """Takes note of an attempt.

        Args:
            item: the event that `take` returned.
            attempt: what came of it.
            decision: what follows.
            now_us: the time, microseconds since the epoch.
            now_s: the same on time.monotonic().
        """
        self.in_flight -= 1
        item.attempts = attempt.number
        self._changed = True
        self._tried.append((item.sequence, attempt))
        if decision.next is Next.DELIVERED:
            was_down = self._is_down()
            self._failures = 0
            self.webhook = self.webhook._replace(last_success_us=now_us, failing_since_us=None)
            self._finish(item, DeliveryState.DELIVERED, now_s)
            if was_down:
                self._hurry(now_s)
            return
        self._fail(item, attempt, decision, now_us, now_s)

    def _fail(
        self, item: Item, attempt: Attempt, decision: Decision, now_us: int, now_s: float
    ) -> None:
        self._failures += 1
        self._rest_until_s = max(self._rest_until_s, now_s + decision.rest_us / 1e6)
        if self._is_down():
            self._next_probe_s = max(self._next_probe_s, now_s + PROBE_S)
        since_us = self.webhook.failing_since_us
        # A clock set back must not make it look young for ever.
        since_us = now_us if since_us is None else min(since_us, now_us)
        self.webhook = self.webhook._replace(failing_since_us=since_us)
        if decision.next is Next.GIVE_UP:
            self._finish(item, DeliveryState.GIVEN_UP, now_s)
        else:
            item.outage = rules.says_down(attempt)
            item.due_s = now_s + decision.delay_us / 1e6
            self._wait(item, now_us + decision.delay_us)
        if decision.next is Next.PAUSE:
            self.webhook = rules.paused(self.webhook, PausedReason.GONE)
        elif rules.is_failing(self.webhook, now_us):
            self.webhook = rules.paused(self.webhook, PausedReason.FAILING)

    def _wait(self, item: Item, next_time_us: int) -> None:
        for behind in self._lanes[item.id_pass_id]:
            if not behind.stored:
                self._store(behind)
        item.body = None
        self._done[item.sequence] = item.done(DeliveryState.PENDING, next_time_us)
        heapq.heappush(self._waiting, (item.due_s, item.sequence, item))

    def _finish(self, item: Item, state: DeliveryState, now_s: float) -> None:
        self._changed = True
        self.pruned_after += 1
        self._fresh.pop(item.sequence, None)
        self._done[item.sequence] = item.done(state, 0)
        if not item.stored:
            self._passed.append(item.sequence)
        lane = self._lanes[item.id_pass_id]
        lane.popleft()
        self._count -= 1
        if lane:
            self._queue(lane[0], now_s)
        else:
            del self._lanes[item.id_pass_id]

    def _hurry(self, now_s: float) -> None:
        """Makes due at once what failed only because the receiver was down."""
        later = []
        for due_s, sequence, item in self._waiting:
            if item.outage:
                item.due_s = now_s
                self._ready.append(item)
            else:
                later.append((due_s, sequence, item))
        heapq.heapify(later)
        self._waiting = later

    # -- what is stored

    @property
    def dirty(self) -> bool:
        """Whether there is anything to save."""
        return self._changed

    @property
    def unsaved(self) -> int:
        """Number of attempts that are to be saved."""
        return len(self._tried)

    @property
    def settled(self) -> int:
        """The sequence up to which nothing is left to do."""
        oldest = min((lane[0].sequence for lane in self._lanes.values()), default=None)
        return self.position if oldest is None else oldest - 1

    @property
    def oldest_event_us(self) -> int | None:
        """When the oldest event was decided that is not delivered yet; None without one."""
        return min((lane[0].event_time_us for lane in self._lanes.values()), default=None)

    def progress(self) -> Progress:
        """What is to be saved, which is then counted as saved; `unsave` takes it back."""
        oldest = next(iter(self._fresh), None)
        cursor = self.position if oldest is None else oldest - 1
        self.webhook = self.webhook._replace(cursor=cursor)
        # Of events that were delivered at once only the newest are worth a row.
        passed = set(self._passed[:-KEPT_DELIVERED])
        done = [each for sequence, each in self._done.items() if sequence not in passed]
        tried = [each for each in self._tried if each[0] not in passed]
        self._done, self._tried, self._passed, self._changed = {}, [], [], False
        return Progress(self.webhook, done, tried)

    def unsave(self, progress: Progress) -> None:
        """Puts back what could not be saved, behind what has become of it since."""
        self._done = {each.sequence: each for each in progress.done} | self._done
        self._tried = [*progress.attempts, *self._tried]
        self._changed = True
