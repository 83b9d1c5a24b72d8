"""What the engine and the servicer ask of a store, whatever database is behind it.

A store is synchronous: `commit` is called by the engine's one writer thread, the reads by any
thread. It keeps records and makes transactions; every rule is in `domain` and `batch`.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, NamedTuple, Protocol

from idpass_server.failures import OperatorError
from idpass_server.rules.commands import Command, Outcome
from idpass_server.rules.records import Account, Event, Money, Pass

LIST_SCAN_ROWS: Final = 20_000
"""How many passes one page of a list may look at, so that a rare status costs no long scan."""

Tell = Callable[[Mapping[str, int]], None]
"""Takes the newest sequence of each account that has new events."""


class Committed(NamedTuple):
    outcomes: list[Outcome]
    """One for each command, in order."""
    last_sequences: Mapping[str, int]
    """The newest event of each account that has new ones."""
    busy: Collection[str] = frozenset()
    """Accounts that somebody else keeps locked: nothing of their commands was done, and their
    outcomes are refusals for those that are not to be given again."""


class ListQuery(NamedTuple):
    """Which passes, newest id first.

    Args:
        before_id: only ids smaller than this.
        statuses: any of these; empty means any.
        idle_before_us: only passes whose status has not changed since.
    """

    account: str
    limit: int
    before_id: str | None = None
    statuses: tuple[str, ...] = ()
    idle_before_us: int | None = None


class Page(NamedTuple):
    passes: list[Pass]
    next_before_id: str | None
    """Where the next page begins; None after the last."""


class CannotOpen(OperatorError):
    """The database cannot be served; the message says why and what to do."""


class StoreBroken(OperatorError):
    """The store can no longer be trusted, and the process must go down rather than guess.

    Args:
        outcome_unknown: true when a COMMIT failed in a way that leaves open whether it is on disk.
    """

    def __init__(self, message: str, *, outcome_unknown: bool = False) -> None:
        super().__init__(message)
        self.outcome_unknown = outcome_unknown


def cause_of(error: BaseException) -> str | None:
    """The database's own reason behind an error, on one line and with its SQLSTATE, if any."""
    cause = error.__cause__
    if cause is None:
        return None
    reason = " ".join(str(cause).split()) or type(cause).__name__
    sqlstate = getattr(cause, "sqlstate", None)
    return f"{reason} (SQLSTATE {sqlstate})" if sqlstate else reason


class Store(Protocol):
    """
    Attributes:
        failed_checkpoints: how often what was committed could not be folded into the database's
            own file; none where the database looks after that itself.
    """

    failed_checkpoints: int

    def commit(
        self, commands: Sequence[Command], now_us: int, due_us: int | None = None
    ) -> Committed:
        """Decides and stores all commands in one transaction; on disk when it returns.

        Args:
            commands, now_us, due_us: as Batch.run.

        Raises:
            StoreUnavailable: nothing was stored; the same commands may be given again.
            StoreBroken: see there.
        """

    def check(self) -> None:
        """Proves that a change could be stored now; called by the thread that commits.

        Raises:
            StoreUnavailable: it could not; the cause has the database's own reason.
            StoreBroken: see there.
        """

    def get_pass(self, account: str, pass_id: str) -> Pass | None: ...

    def get_account(self, name: str) -> Account | None: ...

    def list_passes(self, query: ListQuery) -> Page: ...

    def events(
        self, account: str, after_sequence: int, limit: int, pass_id: str | None = None
    ) -> list[Event]:
        """The account's events after a sequence, in order; those of one pass if it is given."""

    def newest_event_time_us(self) -> int | None:
        """When the newest event took place; None without events."""

    def due(self, due_us: int, limit: int, account: str | None = None) -> list[Pass]:
        """Passes with an expire_time up to `due_us` that no `Expire` has been committed for; of
        one account or of all. Some of them may have ended in another way."""

    def claim_sweep(self, now_us: int) -> bool:
        """Whether this process is the one to expire overdue passes, for the next seconds."""

    def listen(self, watched: Callable[[], Collection[str]], tell: Tell) -> None:
        """Begins to tell of events that other processes commit, from another thread.

        Args:
            watched: gives the accounts of interest.
        """

    def create_account(self, account: Account) -> bool:
        """Stores a new account; false when the name is taken."""

    def set_account(self, name: str, *, slot_limit: int | None, fee: Money | None) -> bool:
        """Changes what is given; false when the account has events in another currency."""

    def close(self) -> None: ...
