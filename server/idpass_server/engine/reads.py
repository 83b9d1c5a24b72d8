"""Everything that is read from the store, off the event loop, with one rule: overdue is expired.

A pass that a caller changes expires in the transaction that touches it; what is read here is
made to expire first, so that no list, count or watcher ever tells of an overdue pass.
"""

import asyncio
import itertools
import sys
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple, ParamSpec, TypeVar

import structlog

from idpass_server.engine.clock import Clock, shown
from idpass_server.engine.writes import Engine
from idpass_server.ids import new_uuid
from idpass_server.rules.commands import Expire
from idpass_server.rules.records import Account, Event, Pass
from idpass_server.rules.refusals import Refusal, StoreUnavailable
from idpass_server.store import ListQuery, Page, Store, StoreBroken

CHUNK_PASSES: Final = 200
"""Number of passes that a sweep expires in one transaction."""

P = ParamSpec("P")
T = TypeVar("T")
log = structlog.get_logger()


class History(NamedTuple):
    """Events of one pass.

    Args:
        id_pass: the pass.
        events: its events after the sequence asked for, in order.
        up_to: every event of the account up to this sequence has been looked at.
    """

    id_pass: Pass
    events: list[Event]
    up_to: int


class Reads:
    """
    Args:
        store: is read from.
        engine: makes overdue passes expire.
        clock: says what is overdue.
        threads: number of threads that read.
        on_broken: told on the event loop when the store can no longer be trusted.

    Each method raises StoreUnavailable when the store cannot be read now; those that let passes
    expire raise what the engine refuses that for.
    """

    def __init__(
        self,
        store: Store,
        engine: Engine,
        clock: Clock,
        *,
        threads: int,
        on_broken: Callable[[StoreBroken], None],
    ) -> None:
        self._store = store
        self._engine = engine
        self._clock = clock
        self._on_broken = on_broken
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="reader")

    def close(self) -> None:
        """Ends the threads when what was begun is read."""
        self._threads.shutdown()

    async def get_pass(self, account: str, pass_id: str) -> Pass | None:
        id_pass = await self.run(self._store.get_pass, account, pass_id)
        if id_pass is not None and id_pass.overdue(self._clock.now().due_us):
            await self._expire([id_pass])
            id_pass = await self.run(self._store.get_pass, account, pass_id)
        return id_pass

    async def get_account(self, name: str) -> Account | None:
        await self.sweep(name)
        return await self.run(self._store.get_account, name)

    async def list_passes(self, query: ListQuery) -> Page:
        await self.sweep(query.account)
        return await self.run(self._store.list_passes, query)

    async def events(self, account: str, after_sequence: int, limit: int) -> list[Event]:
        """The account's events after a sequence, in order."""
        return await self.run(self._store.events, account, after_sequence, limit)

    async def history(
        self, account: str, pass_id: str, after_sequence: int, limit: int
    ) -> History | None:
        """The events of one pass after a sequence; None where there is no such pass."""

        def read() -> History | None:
            # In this order and by one thread, hence one connection: the events are read no
            # earlier than `up_to`, also from a standby that lags.
            found = self._store.get_account(account)
            id_pass = self._store.get_pass(account, pass_id)
            if found is None or id_pass is None:
                return None
            events = self._store.events(account, after_sequence, limit, pass_id)
            return History(id_pass, events, found.last_sequence)

        return await self.run(read)

    async def due(self, account: str | None = None) -> list[Pass]:
        """Overdue passes, of one account or of all: up to CHUNK_PASSES; some may have ended."""
        return await self.run(self._store.due, self._clock.now().due_us, CHUNK_PASSES, account)

    async def sweep(self, account: str | None = None) -> None:
        """Expires every overdue pass, of one account or of all."""
        count, oldest_us = 0, sys.maxsize
        try:
            while late := await self.due(account):
                await self._expire(late)
                in_flight = [p.expire_time_us for p in late if p.end_time_us is None]
                count += len(in_flight)
                oldest_us = min([oldest_us, *in_flight])
                if len(late) < CHUNK_PASSES:
                    break
        finally:
            if count:
                log.info("passes_expired", count=count, oldest_expire_time=shown(oldest_us))

    async def claim_sweep(self) -> bool:
        """Whether this process is the one to sweep, for the next seconds."""
        return await self.run(self._store.claim_sweep, self._clock.now().us)

    async def run(self, read: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs something that reads the store on a thread for that.

        Raises:
            StoreUnavailable: it cannot be read.
        """
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._threads, lambda: read(*args, **kwargs))
        except StoreBroken as error:
            log.critical("store_broken", error=str(error))
            self._on_broken(error)
            raise StoreUnavailable("the store has failed") from error

    async def _expire(self, late: list[Pass]) -> None:
        reference = new_uuid()
        commands: defaultdict[str, list[Expire]] = defaultdict(list)
        for p in late:
            commands[p.account].append(Expire(p.account, reference, p.id))
        answers = await asyncio.gather(*map(self._engine.submit, commands.values()))
        for outcome in itertools.chain.from_iterable(answers):
            if isinstance(outcome, Refusal):
                raise outcome
