"""The one path of every write: commands wait in a queue and are committed in batches.

The writer thread takes whatever waits and gives it to the store as one transaction. While one batch
is committed the next one gathers; a lone call waits for nothing, and a crowd shares one fdatasync
(see `crowd`). The event loop never waits for the disk.

Until a call is taken into a batch it can be abandoned (its deadline has passed, or its caller has
left), and is then not started; once taken it is finished, even if its caller leaves. A call that
the store did not run because its account is busy counts as not taken.
"""

import asyncio
import math
import queue
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final, TypeVar

import structlog

from idpass_server.engine.busy import PAUSE_S, BusyAccounts
from idpass_server.engine.clock import Clock
from idpass_server.engine.crowd import Crowd
from idpass_server.engine.observing import NOBODY, EngineObserver
from idpass_server.engine.submissions import Check, Submission, Taken, Work, by_submission, count
from idpass_server.rules.commands import Command, Outcome
from idpass_server.rules.refusals import InternalFault, Overloaded, Refusal, StoreUnavailable
from idpass_server.store import Store, StoreBroken, cause_of

MAX_BATCH_COMMANDS: Final = 1_000
"""Number of commands from which a batch takes no further call."""
RECENT_S: Final = 1.0
"""Largest age of a commit that still proves that changes can be stored, seconds."""

T = TypeVar("T")
Waiting = list[Submission] | Check | Work | None
"""What the writer thread takes from its queue; None asks it to end."""
log = structlog.get_logger()


class Engine:
    """Commits commands in batches, on its writer thread.

    Create it on the event loop.

    Args:
        store: commits the batches.
        clock: read once per batch, and kept from going below what is stored.
        max_pending: largest number of commands that wait; more are refused as Overloaded.
        on_commit: called on the event loop with the newest sequence of each account that has new
            events.
        on_broken: called on the event loop, once, when the store can no longer be trusted.
        observer: is told of batches and failures.
        on_batch: called on the event loop with each batch before its calls get their outcomes; None
            for nobody.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        *,
        max_pending: int,
        on_commit: Callable[[Mapping[str, int]], None],
        on_broken: Callable[[StoreBroken], None],
        observer: EngineObserver = NOBODY,
        on_batch: Callable[[Taken], None] | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._max_pending = max_pending
        self._on_commit = on_commit
        self._on_broken = on_broken
        self._observer = observer
        self._on_batch = on_batch
        self._pending = 0
        self._broken: StoreBroken | None = None
        self._loop = asyncio.get_running_loop()
        self._busy = BusyAccounts()
        self._crowd = Crowd()
        self._gathered: list[Submission] = []
        self._checking: asyncio.Future[StoreUnavailable | None] | None = None
        self._stored_s = -math.inf  # on time.monotonic()
        self._queue: queue.SimpleQueue[Waiting] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._thread.start()

    @property
    def pending(self) -> int:
        """Number of commands that wait or are being committed."""
        return self._pending

    def submit(
        self, commands: Sequence[Command], deadline_s: float = float("inf")
    ) -> "asyncio.Future[list[Outcome]]":
        """Queues the commands of one call, to be committed in order in one transaction.

        Args:
            commands: at least one, all of one account.
            deadline_s: on time.monotonic(); commands not taken by then are not started.

        Returns:
            a future of one outcome for each command. Cancelling it abandons commands that have not
            been taken; TimeoutError says that they were not started.

        Raises:
            Overloaded: too many commands are waiting.
            StoreUnavailable: the store can no longer be trusted.
        """
        if self._broken is not None:
            raise StoreUnavailable("the store has failed; nothing was changed")
        if self._pending + len(commands) > self._max_pending:
            raise Overloaded("too many changes are waiting to be stored")
        self._pending += len(commands)
        self._crowd.came()
        answer: asyncio.Future[list[Outcome]] = self._loop.create_future()
        if not self._gathered:
            self._loop.call_soon(self._hand_over)
        self._gathered.append(Submission(commands, deadline_s, time.monotonic(), answer))
        return answer

    async def check(self, timeout_s: float) -> None:
        """Proves that a change could be stored now.

        Args:
            timeout_s: time for the store to answer, including commits that come first, seconds.

        Raises:
            StoreUnavailable: it could not.
            TimeoutError: there is no answer yet; the next check waits for the same answer.
        """
        if time.monotonic() - self._stored_s < RECENT_S:
            return
        if self._checking is None:
            self._checking = self._loop.create_future()
            self._queue.put(Check(self._checking))
        refusal = await asyncio.wait_for(asyncio.shield(self._checking), timeout_s)
        if refusal is not None:
            raise refusal

    async def run(self, work: Callable[[Store], T]) -> T:
        """Does something short with the store on the writer thread, between two batches.

        It is finished even if nobody waits for it any more.

        Args:
            work: uses the store, in a transaction of its own if it changes something.

        Raises:
            StoreUnavailable: the store cannot be used now.
            Exception: what `work` raises.
        """
        if self._broken is not None:
            raise StoreUnavailable("the store has failed; nothing was changed")
        answer: asyncio.Future[T] = self._loop.create_future()
        self._queue.put(Work(work, answer))
        return await answer

    async def stop(self) -> None:
        """Finishes everything that was submitted, then ends the writer thread."""
        self._hand_over()
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def _hand_over(self) -> None:
        """Passes what came in this turn of the event loop to the writer, waking it once."""
        if self._gathered:
            self._queue.put(self._gathered)
            self._gathered = []

    def _run(self) -> None:
        try:
            self._write()
        except BaseException as error:
            # Without the writer thread no call would ever be answered.
            log.critical("fault", thread="writer", exc_info=error)
            self._break(StoreBroken("the writer has failed", outcome_unknown=True))

    def _write(self) -> None:
        while True:
            following: Waiting = self._queue.get()
            if isinstance(following, list):
                self._crowd.wait()
            submissions: list[Submission] = []
            commands = 0
            while following is not None:
                if isinstance(following, Check):
                    self._answer(following)
                elif isinstance(following, Work):
                    self._do(following)
                else:
                    submissions += following
                    commands += count(following)
                if commands >= MAX_BATCH_COMMANDS:
                    break
                try:
                    following = self._queue.get_nowait()
                except queue.Empty:
                    break
            if submissions:
                self._take(submissions)
            if following is None and self._is_done():
                return

    def _is_done(self) -> bool:
        """Whether the queue has been emptied, after the last submission."""
        if self._queue.empty():
            return True
        self._queue.put(None)
        return False

    def _answer(self, check: Check) -> None:
        refusal: StoreUnavailable | None = None
        try:
            if self._broken is not None:
                raise StoreUnavailable("the store has failed") from self._broken
            self._store.check()
        except StoreBroken as error:
            refusal = self._break(error)
        except StoreUnavailable as error:
            self._observer.failed("unavailable")
            refusal = error
        except Exception as error:
            self._observer.failed("fault")
            log.exception("check_failed")
            refusal = StoreUnavailable("the check has failed")
            refusal.__cause__ = error
        self._loop.call_soon_threadsafe(self._checked, check, refusal)

    def _checked(self, check: Check, refusal: StoreUnavailable | None) -> None:
        self._checking = None
        if not check.answer.done():
            check.answer.set_result(refusal)

    def _do(self, work: Work) -> None:
        settle: Callable[[Any], None] = work.answer.set_result
        outcome: Any
        try:
            if self._broken is not None:
                raise StoreUnavailable("the store has failed; nothing was changed")
            outcome = work.work(self._store)
        except StoreBroken as error:
            settle, outcome = work.answer.set_exception, self._break(error)
        except Exception as error:  # noqa: BLE001 raised where it is awaited
            settle, outcome = work.answer.set_exception, error
        self._loop.call_soon_threadsafe(self._done, work, settle, outcome)

    def _done(self, work: Work, settle: Callable[[Any], None], outcome: object) -> None:
        if not work.answer.done():
            settle(outcome)

    def _take(self, submissions: list[Submission]) -> None:
        self._crowd.taken(len(submissions))
        taken: list[Submission] = []
        abandoned: list[Submission] = []
        for submission in submissions:
            (abandoned if submission.abandoned() else taken).append(submission)
        if abandoned:
            self._loop.call_soon_threadsafe(self._drop, abandoned)
        if taken:
            self._commit(taken)

    def _commit(self, submissions: list[Submission]) -> None:
        taken_s, stored = time.monotonic(), False
        commands = [command for submission in submissions for command in submission.commands]
        sequences: Mapping[str, int] = {}
        outcomes: list[Outcome]
        waited_s = taken_s - submissions[0].submitted_s
        try:
            if self._broken is not None:
                raise StoreUnavailable("the store has failed; nothing was changed")
            now = self._clock.now()
            outcomes, sequences, busy, events = self._store.commit(commands, now.us, now.due_us)
            stored = True
            self._observer.batch(waited_s, len(commands), events)
            if sequences:
                self._stored_s = time.monotonic()
                self._clock.keep(now.us)
            self._busy.update((submission.account for submission in submissions), busy)
            if busy:
                submissions, outcomes = self._put_back(submissions, outcomes, busy)
        except StoreBroken as error:
            outcomes = [self._break(error)] * len(commands)
        except Refusal as refusal:
            unknown = isinstance(refusal, StoreUnavailable) and refusal.outcome_unknown
            self._observer.failed("outcome_unknown" if unknown else "unavailable")
            log.error("store_unavailable", error=str(refusal), cause=cause_of(refusal))
            outcomes = [refusal] * len(commands)
        except Exception:
            if len(submissions) > 1:
                # A bug met by one command must not fail its neighbours: run each call by itself.
                for submission in submissions:
                    self._commit([submission])
                return
            self._observer.failed("fault")
            log.exception("commit_failed")
            outcomes = [InternalFault()] * len(commands)
        taken = Taken(submissions, taken_s, time.monotonic(), stored)
        self._loop.call_soon_threadsafe(self._deliver, taken, outcomes, sequences)

    def _put_back(
        self, submissions: list[Submission], outcomes: list[Outcome], busy: Collection[str]
    ) -> tuple[list[Submission], list[Outcome]]:
        """Queues calls of busy accounts again, as long as waiting is worthwhile.

        Returns:
            the other calls, with their outcomes.
        """
        waiting: list[Submission] = []
        answered: list[Submission] = []
        answers: list[Outcome] = []
        for submission, own in by_submission(submissions, outcomes):
            if submission.account in busy and self._busy.worth_waiting(
                submission.account, submission.deadline_s
            ):
                waiting.append(submission)
            else:
                answered.append(submission)
                answers += own
        if waiting:
            if self._queue.empty():
                time.sleep(PAUSE_S)
            self._crowd.put_back(len(waiting))
            self._queue.put(waiting)
        return answered, answers

    def _break(self, error: StoreBroken) -> StoreUnavailable:
        self._broken = error
        self._observer.failed("outcome_unknown" if error.outcome_unknown else "broken")
        log.critical("store_broken", error=str(error), outcome_unknown=error.outcome_unknown)
        self._loop.call_soon_threadsafe(self._on_broken, error)
        if error.outcome_unknown:
            return StoreUnavailable(
                "the store has failed; whether the change was stored is not known",
                outcome_unknown=True,
            )
        return StoreUnavailable("the store has failed; nothing was changed")

    def _deliver(self, taken: Taken, outcomes: list[Outcome], sequences: Mapping[str, int]) -> None:
        self._pending -= len(outcomes)
        if self._on_batch is not None:
            self._on_batch(taken)
        for submission, own in by_submission(taken.submissions, outcomes):
            if not submission.answer.done():
                submission.answer.set_result(own)
        if sequences:
            self._on_commit(sequences)

    def _drop(self, submissions: list[Submission]) -> None:
        for submission in submissions:
            self._pending -= len(submission.commands)
            if not submission.answer.done():
                submission.answer.set_exception(
                    TimeoutError("the deadline passed before it was started")
                )
