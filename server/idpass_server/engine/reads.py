"""All reads of the store, off the event loop, with one rule: overdue is expired.

A pass that a command changes expires in the transaction that touches it. Reads expire overdue
passes first, so that no list, count or watcher ever shows one.
"""

import asyncio
import itertools
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple, ParamSpec, TypeVar

import structlog

from idpass_server.engine.clock import Clock, shown
from idpass_server.engine.observing import NOBODY, EngineObserver
from idpass_server.engine.writes import Engine
from idpass_server.ids import new_uuid
from idpass_server.rules.commands import Expire
from idpass_server.rules.positions import Positions, skipped
from idpass_server.rules.records import Account, Event, Pass
from idpass_server.rules.refusals import Refusal, StoreUnavailable
from idpass_server.store import ListQuery, Page, Store, StoreBroken

CHUNK_PASSES: Final = 200
"""Number of passes that a sweep expires at a time."""

P = ParamSpec("P")
T = TypeVar("T")
log = structlog.get_logger()


class Stretch(NamedTuple):
    """Events that follow each other.

    Attributes:
        events: in order, without gaps but those of a restored backup.
        up_to: the position behind them.
    """

    events: list[Event]
    up_to: int


class PassEvents(NamedTuple):
    """Events of one pass.

    Attributes:
        id_pass: the pass.
        events: its events after the sequence asked for, in order.
        up_to: the sequence up to which all events of the account have been considered.
    """

    id_pass: Pass
    events: list[Event]
    up_to: int


class Reads:
    """Reads for callers, on threads.

    Each method raises StoreUnavailable when the store cannot be read now. Those that expire overdue
    passes first also raise the refusal, if the engine refuses that.

    Args:
        store: what to read.
        engine: expires overdue passes.
        clock: decides what is overdue.
        threads: number of reading threads.
        on_broken: called on the event loop when the store can no longer be trusted.
        observer: is told of reads.
    """

    def __init__(
        self,
        store: Store,
        engine: Engine,
        clock: Clock,
        *,
        threads: int,
        on_broken: Callable[[StoreBroken], None],
        observer: EngineObserver = NOBODY,
    ) -> None:
        self._store = store
        self._engine = engine
        self._clock = clock
        self._on_broken = on_broken
        self._observer = observer
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="reader")

    def close(self) -> None:
        """Finishes the reads that have begun, then ends the threads."""
        self._threads.shutdown()

    async def get_pass(self, account: str, pass_id: str) -> Pass | None:
        """A pass of the account, not overdue; None if it has none with this id."""
        id_pass = await self.run(self._store.get_pass, account, pass_id)
        if id_pass is not None and id_pass.overdue(self._clock.now().due_us):
            await self._expire([id_pass])
            id_pass = await self.run(self._store.get_pass, account, pass_id)
        return id_pass

    async def get_account(self, name: str) -> tuple[Account, Positions] | None:
        """An account, without overdue passes, and its positions; None if there is none such."""
        await self.sweep(name)

        def read() -> tuple[Account, Positions] | None:
            found = self._store.get_account(name)
            return (found, self._positions(name)) if found else None

        return await self.run(read)

    async def history(self) -> str:
        """Id of the history that the events belong to."""
        return await self.run(self._store.history)

    async def list_passes(self, query: ListQuery) -> tuple[Page, str]:
        """One page of an account's passes, none of them overdue, and the history's id."""
        await self.sweep(query.account)
        return await self.run(
            lambda: (self._store.list_passes(query), self._store.history()),
        )

    async def events(self, account: str, after_sequence: int, limit: int) -> Stretch:
        """Up to `limit` of the account's events after a sequence, in order.

        Raises:
            HistoryLost: the next ones were purged.
        """

        def read() -> Stretch:
            events = self._store.events(account, after_sequence, limit)
            up_to = after_sequence
            for event in events:
                if event.sequence != up_to + 1:
                    self._skip(account, up_to)
                up_to = event.sequence
            return Stretch(events, up_to if events else self._skip(account, up_to))

        return await self.run(read)

    def _skip(self, account: str, position: int) -> int:
        """The position behind the gap that begins at this one."""
        positions = self._positions(account)
        positions.check(position)
        return skipped(position, positions.gaps)

    def _positions(self, account: str) -> Positions:
        return Positions(self._store.history(), tuple(self._store.gaps(account)))

    async def pass_events(
        self, account: str, pass_id: str, after_sequence: int, limit: int
    ) -> PassEvents | None:
        """Up to `limit` events of one pass after a sequence; None if there is no such pass."""

        def pass_events() -> PassEvents | None:
            # One thread, hence one connection, and in this order: the events are not older than
            # `up_to`, even on a lagging standby.
            found = self._store.get_account(account)
            id_pass = self._store.get_pass(account, pass_id)
            if found is None or id_pass is None:
                return None
            events = self._store.events(account, after_sequence, limit, pass_id)
            return PassEvents(id_pass, events, found.last_sequence)

        return await self.run(pass_events)

    async def due(self, account: str | None = None) -> list[Pass]:
        """Up to CHUNK_PASSES passes whose timers are due, of one account or of all.

        They are overdue, or have ended in another way; then only their timers are left.
        """
        return await self.run(self._store.due, self._clock.now().due_us, CHUNK_PASSES, account)

    async def sweep(self, account: str | None = None) -> None:
        """Expires every overdue pass, of one account or of all."""
        count, oldest_us = 0, sys.maxsize
        try:
            while due := await self.due(account):
                await self._expire(due)
                in_flight = [p.expire_time_us for p in due if p.end_time_us is None]
                count += len(in_flight)
                oldest_us = min([oldest_us, *in_flight])
                if len(due) < CHUNK_PASSES:
                    break
        finally:
            if count:
                log.info("passes_expired", count=count, oldest_expire_time=shown(oldest_us))

    async def claim_sweep(self) -> bool:
        """Claims the sweep for the next seconds; false while another process has it."""
        return await self.run(self._store.claim_sweep, self._clock.now().us)

    async def run(self, read: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs a function that reads the store on a reading thread.

        Raises:
            StoreUnavailable: the store cannot be read now.
        """
        loop = asyncio.get_running_loop()
        asked_s = time.monotonic()
        try:
            return await loop.run_in_executor(self._threads, lambda: read(*args, **kwargs))
        except StoreUnavailable:
            self._observer.failed("unavailable")
            raise
        except StoreBroken as error:
            self._observer.failed("broken")
            log.critical("store_broken", error=str(error))
            self._on_broken(error)
            raise StoreUnavailable("the store has failed") from error
        finally:
            name = getattr(read, "__name__", "other")
            self._observer.read(name, time.monotonic() - asked_s)

    async def _expire(self, due: list[Pass]) -> None:
        reference = new_uuid()
        commands: defaultdict[str, list[Expire]] = defaultdict(list)
        for p in due:
            commands[p.account].append(Expire(p.account, reference, p.id))
        answers = await asyncio.gather(*map(self._engine.submit, commands.values()))
        for outcome in itertools.chain.from_iterable(answers):
            if isinstance(outcome, Refusal):
                raise outcome
