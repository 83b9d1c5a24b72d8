"""A server that breaks one promise in each account whose name says which; else idpass-server.

An account named `torn-7` has the fault `torn`. All others are served as they should be, so that
one server has every control beside what must not be found fault with.
"""

import asyncio
import itertools
import random
import threading
import time
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from idpass.v1.id_pass_pb2 import IdPassEvent
from idpass_server.api.watch import Watchers
from idpass_server.cli import main
from idpass_server.hosting import wiring
from idpass_server.rules import domain
from idpass_server.rules.batch import Batch
from idpass_server.rules.commands import Cancel, Command, Outcome
from idpass_server.rules.domain import Decision
from idpass_server.rules.records import Account, Event, Pass, Status
from idpass_server.rules.refusals import Refusal
from idpass_server.store import Committed, opening
from idpass_server.store.sqlite import store as sqlite_store
from idpass_server.store.sqlite.store import SqliteStore

STALE_S: Final = {"stale25": 0.025, "stale3": 0.003}
TEAR_S: Final = 0.004
"""Time between the two halves of what should be one, seconds."""
UNSTORED_S: Final = 0.005
"""Time from an answer that comes early to its commit, seconds."""
_chance = random.Random(1)


def fault_of(account: str) -> str:
    return account.partition("-")[0]


class Before(NamedTuple):
    """What an account was like until a moment.

    Attributes:
        until_s: of its next commit, on time.monotonic().
    """

    until_s: float
    account: Account | None
    passes: dict[str, Pass]


class UntrueStore(SqliteStore):
    """SQLite, with faults of what it stores and reads."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._before: dict[str, deque[Before]] = defaultdict(lambda: deque(maxlen=64))
        self._committing = threading.Lock()
        self._unstored: threading.Timer | None = None
        self._early = False

    # -- writing

    def commit(
        self, commands: Sequence[Command], now_us: int, due_us: int | None = None
    ) -> Committed:
        self._store_now()
        accounts = {command.account for command in commands}
        stale = [account for account in accounts if fault_of(account) in STALE_S]
        was = {account: self._as_it_is(account) for account in stale}
        self._early = any(fault_of(account) == "early" for account in accounts)
        first, second = _halves(commands)
        committed = super().commit(first, now_us, due_us)
        if second:
            time.sleep(TEAR_S)
            rest = super().commit(second, now_us, due_us)
            committed = Committed(
                [*committed.outcomes, *rest.outcomes],
                {**committed.last_sequences, **rest.last_sequences},
                committed.busy,
                [*committed.events, *rest.events],
            )
        for account, before in was.items():
            self._before[account].append(before._replace(until_s=time.monotonic()))
        return committed

    def _as_it_is(self, account: str) -> Before:
        passes = {}
        for event in super().events(account, 0, 1_000):
            if found := super().get_pass(account, event.id_pass_id):
                passes[found.id] = found
        return Before(0.0, super().get_account(account), passes)

    def _commit(self) -> None:
        if not self._early:
            super()._commit()
            return
        # Answers go out, and the transaction stays open.
        self._unstored = threading.Timer(UNSTORED_S, self._store_now)
        self._unstored.start()

    def _store_now(self) -> None:
        with self._committing:
            if self._unstored is not None:
                self._unstored.cancel()
                self._unstored = None
                super()._commit()

    def check(self) -> None:
        self._store_now()
        super().check()

    # -- reading

    def _earlier(self, account: str) -> Before | None:
        """What an account was like a moment ago, if it has changed since."""
        moment_s = time.monotonic() - STALE_S.get(fault_of(account), 0.0)
        return next(
            (each for each in self._before.get(account, ()) if each.until_s > moment_s), None
        )

    def get_pass(self, account: str, pass_id: str) -> Pass | None:
        before = self._earlier(account)
        return before.passes.get(pass_id) if before else super().get_pass(account, pass_id)

    def get_account(self, name: str) -> Account | None:
        if before := self._earlier(name):
            return before.account
        found = super().get_account(name)
        if fault_of(name) == "torn" and found is not None:
            time.sleep(TEAR_S)
            newer = super().get_account(name)
            assert newer is not None
            return newer._replace(refunded_micros=found.refunded_micros)
        return found

    def events(
        self, account: str, after_sequence: int, limit: int, pass_id: str | None = None
    ) -> list[Event]:
        found = super().events(account, after_sequence, limit, pass_id)
        if fault_of(account) == "gap" and len(found) > 1 and _chance.random() < 0.1:
            del found[0]
        return found


def _halves(commands: Sequence[Command]) -> tuple[Sequence[Command], Sequence[Command]]:
    """Splits the first call of an account `split` that brings many commands."""
    for at, (one, next_one) in enumerate(itertools.pairwise(commands), start=1):
        if fault_of(one.account) == "split" and one.reference == next_one.reference:
            return commands[:at], commands[at:]
    return commands, ()


class UntrueBatch(Batch):
    """The rules, with faults of what is looked at before a decision."""

    def _run_one(self, command: Command, now_us: int, due_us: int) -> Outcome:
        if fault_of(command.account) != "receipt":
            return super()._run_one(command, now_us, due_us)
        receipts, self._receipts = self._receipts, {}
        try:
            return super()._run_one(command, now_us, due_us)
        finally:
            self._receipts = receipts | self._receipts


def untrue_decide(
    account: Account, id_pass: Pass | None, command: Any, now_us: int
) -> Decision | Refusal:
    fault = fault_of(account.name)
    if id_pass is None:
        return domain_decide(account, id_pass, command, now_us)
    if fault == "terminal" and id_pass.end_time_us is not None and isinstance(command, Cancel):
        revived = id_pass._replace(status=Status.OPENED, end_time_us=None)
        decision = domain_decide(account, revived, command, now_us)
        if isinstance(decision, Decision):
            # The database would not have it a second time: the caller is told so all the same.
            return decision._replace(account=account, changes=())
        return decision
    if fault == "refund" and isinstance(command, Cancel) and id_pass.status == Status.IN_PROGRESS:
        return domain_decide(account, id_pass._replace(status=Status.OPENED), command, now_us)
    return domain_decide(account, id_pass, command, now_us)


class UntrueWatchers(Watchers):
    """Watchers that some news do not wake, and streams of one pass that do not end."""

    def notify(self, last_sequences: Mapping[str, int]) -> None:
        heard = {
            account: sequence
            for account, sequence in last_sequences.items()
            if fault_of(account) != "asleep" or _chance.random() < 0.5
        }
        super().notify(heard)

    async def follow(self, account: str, *args: Any, **more: Any) -> AsyncGenerator[IdPassEvent]:
        async for event in super().follow(account, *args, **more):
            yield event
        if fault_of(account) == "endless":
            await asyncio.Event().wait()


domain_decide = domain.decide


def run() -> None:
    """Is idpass-server, with the faults."""
    opening.SqliteStore = UntrueStore  # type: ignore[attr-defined]
    sqlite_store.Batch = UntrueBatch  # type: ignore[attr-defined]
    domain.decide = untrue_decide
    wiring.Watchers = UntrueWatchers  # type: ignore[attr-defined]
    main(prog_name="idpass-server")
