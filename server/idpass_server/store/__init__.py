"""What the engine asks of a store, whatever the database.

A store is synchronous: the engine's one writer thread calls `commit` and `check`, any thread calls
the reads. It keeps records and runs transactions; every rule is in `rules`.

In here: a Protocol and two implementations, and what works on databases of either kind. May import
`rules`, `config` and what stands below.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, NamedTuple, Protocol

from idpass_server.failures import OperatorError
from idpass_server.rules.batch import Batch
from idpass_server.rules.commands import Command, Outcome
from idpass_server.rules.positions import Gap
from idpass_server.rules.records import Account, Event, Money, Pass
from idpass_server.store.admin_log import State
from idpass_server.store.observing import Disk
from idpass_server.store.retention import Found, Wanted
from idpass_server.store.webhooks import WebhookTables

LIST_SCAN_ROWS: Final = 20_000
"""Number of passes that one page of a list may look at: a rare status must not cost a long scan."""
PROGRAM: Final = "idpass-server"
"""Who made a change that no operator asked for, such as the sandbox's."""

LEASE_US: Final = 3_000_000
"""How long a process keeps a lease after claiming it, microseconds."""
DELIVERY_LEASE: Final = "webhooks"
"""Name of the lease of the process that delivers webhooks."""

Tell = Callable[[Mapping[str, int]], None]
"""Receives the newest sequence of each account that has new events."""


class Committed(NamedTuple):
    """What became of a batch.

    Attributes:
        outcomes: one for each command, in order.
        last_sequences: sequence of the newest event, for each account with new events.
        busy: accounts that another process keeps locked. None of their commands was run; their
            outcomes are refusals, for calls that are not worth another try.
        events: the new events, in order.
    """

    outcomes: list[Outcome]
    last_sequences: Mapping[str, int]
    busy: Collection[str] = frozenset()
    events: Sequence[Event] = ()

    @classmethod
    def of(
        cls, batch: Batch, outcomes: list[Outcome], busy: Collection[str] = frozenset()
    ) -> "Committed":
        """Reports on a batch that has run."""
        last_sequences = {each.name: each.last_sequence for each in batch.changed_accounts()}
        return cls(outcomes, last_sequences, busy, batch.events)


class Software(NamedTuple):
    """What a database is.

    Attributes:
        database: such as "SQLite 3.53.4".
        schema: name of the newest migration that this program knows, and that the database has.
    """

    database: str
    schema: str


class ListQuery(NamedTuple):
    """Which passes to list, newest id first.

    Attributes:
        account: name of the account that owns them.
        limit: largest number of passes in a page.
        before_id: only ids smaller than this; None for all.
        statuses: only these; empty for all.
        idle_before_us: only passes whose status last changed before this, microseconds since the
            epoch; None for all.
        applicant_reference: only passes with exactly this one; "" for all.
    """

    account: str
    limit: int
    before_id: str | None = None
    statuses: tuple[str, ...] = ()
    idle_before_us: int | None = None
    applicant_reference: str = ""


class Page(NamedTuple):
    """Part of a list.

    Attributes:
        passes: newest id first; fewer than asked for, or none, where the scan limit was reached.
        next_before_id: `before_id` of the next page; None after the last.
    """

    passes: list[Pass]
    next_before_id: str | None


class CannotOpen(OperatorError):
    """The database cannot be served; the message says why and what to do."""


class StoreBroken(OperatorError):
    """The store can no longer be trusted, and the process must go down rather than guess.

    Args:
        outcome_unknown: whether a COMMIT failed in a way that may have left it on disk.
    """

    def __init__(self, message: str, *, outcome_unknown: bool = False) -> None:
        super().__init__(message)
        self.outcome_unknown = outcome_unknown


def cause_of(error: BaseException) -> str | None:
    """The database's own reason behind an error, on one line, with its SQLSTATE if it has one."""
    cause = error.__cause__
    if cause is None:
        return None
    reason = " ".join(str(cause).split()) or type(cause).__name__
    sqlstate = getattr(cause, "sqlstate", None)
    return f"{reason} (SQLSTATE {sqlstate})" if sqlstate else reason


class Store(Protocol):
    """A database, open to be served."""

    @property
    def software(self) -> Software:
        """What the database is."""

    @property
    def failed_checkpoints(self) -> int:
        """Number of checkpoints that failed; 0 where the database takes care of them itself."""

    def disk(self) -> Disk | None:
        """What the database's files take; None if it has none here.

        Raises:
            OSError: they cannot be looked at.
        """

    def commit(
        self, commands: Sequence[Command], now_us: int, due_us: int | None = None
    ) -> Committed:
        """Decides all commands and stores the changes in one transaction, on disk on return.

        Args:
            commands: as Batch.run.
            now_us: as Batch.run.
            due_us: as Batch.run.

        Raises:
            StoreUnavailable: nothing was stored; the same commands may be tried again.
            StoreBroken: the process must go down.
        """

    def check(self) -> None:
        """Proves that a change could be stored now; for the thread that commits.

        Raises:
            StoreUnavailable: it could not; the cause has the database's own reason.
            StoreBroken: the process must go down.
        """

    # Every read raises StoreUnavailable when the database cannot be read now, and StoreBroken when
    # the process must go down.

    def get_pass(self, account: str, pass_id: str) -> Pass | None:
        """A pass of the account; None if it has none with this id."""

    def get_passes(self, account: str, pass_ids: Collection[str]) -> list[Pass]:
        """Those passes of the account that there are, in any order."""

    def get_account(self, name: str) -> Account | None:
        """An account; None if there is none of that name."""

    def fullest_accounts(self, limit: int) -> list[Account]:
        """Accounts that use the largest share of their slots, the fullest first."""

    def list_passes(self, query: ListQuery) -> Page:
        """One page of an account's passes."""

    def events(
        self, account: str, after_sequence: int, limit: int, pass_id: str | None = None
    ) -> list[Event]:
        """Up to `limit` of the account's events after a sequence, in order.

        Args:
            account: name of the account.
            after_sequence: the sequence to start after; 0 for all.
            limit: largest number of events.
            pass_id: only events of this pass; None for all.
        """

    def history(self) -> str:
        """Id of the history that the events belong to, a UUID; see `rules.positions`."""

    def gaps(self, account: str) -> list[Gap]:
        """The gaps in the numbers of an account's events, in order."""

    def newest_event_time_us(self) -> int | None:
        """Time of the newest event, microseconds since the epoch; None without events."""

    def due(self, due_us: int, limit: int, account: str | None = None) -> list[Pass]:
        """Passes with a timer up to `due_us`: overdue ones, and some that have ended otherwise.

        Args:
            due_us: largest expire_time, microseconds since the epoch.
            limit: largest number of passes.
            account: only passes of this account; None for all.
        """

    def find_passes(self, wanted: Wanted, after_id: str | None, limit: int) -> Found:
        """One page of the ids of an account's passes; arguments as `retention.find`."""

    def account_names(self) -> list[str]:
        """Names of all accounts, in order."""

    def claim_sweep(self, now_us: int) -> bool:
        """Claims the sweep for the next seconds; false while another process has it.

        Args:
            now_us: the time, microseconds since the epoch.
        """

    @property
    def webhooks(self) -> WebhookTables:
        """Endpoints of webhooks, and what has become of their events."""

    def claim_lease(self, name: str, now_us: int) -> int | None:
        """Claims a lease, or keeps it, for the next LEASE_US; None while another process has it.

        Args:
            name: of the lease, one of those in the table `leases`.
            now_us: the time, microseconds since the epoch.

        Returns:
            its term, another one whenever it may have been another process's meanwhile.
        """

    def release_lease(self, name: str) -> None:
        """Lets another process have the lease at once; a no-op if this process does not have it."""

    def listen(self, watched: Callable[[], Collection[str]], tell: Tell) -> None:
        """Starts to report events that other processes commit.

        Args:
            watched: returns the accounts of interest.
            tell: called with their newest sequences, on a thread of the store's.
        """

    # What operators change, each with its entry in the admin log. `who` is the operator.

    def create_account(self, account: Account, *, who: str = PROGRAM) -> bool:
        """Creates an account; false if the name is taken.

        Its events begin where those of this history do: the former one may have had an account of
        the same name.
        """

    def set_account(
        self,
        name: str,
        *,
        slot_limit: int | None = None,
        fee: Money | None = None,
        registrations_per_day: int | None = None,
        disabled: bool | None = None,
        who: str = PROGRAM,
    ) -> bool:
        """Changes an account.

        Args:
            name: of the account.
            slot_limit: number of passes that may be in flight; None to leave it.
            fee: what registering a pass costs from now on; None to leave it.
            registrations_per_day: number of passes that may be registered in a UTC day, 0 for no
                quota; None to leave it.
            disabled: whether its passes may only expire; None to leave it.
            who: the operator.

        Returns:
            false, and changes nothing, if there is no such account, or it has events in another
            currency.
        """

    def record(self, who: str, what: str, account: str | None, facts: State) -> None:
        """Writes an entry in the admin log before work of many transactions.

        Args:
            who: the operator.
            what: the command.
            account: name of the account concerned; None for all.
            facts: what will be done.
        """

    def purge(self, account: str, ids: Sequence[str], ended_before_us: int) -> int:
        """Removes passes that ended before a time; arguments and result as `purging.purge`."""

    def delete_account(self, name: str, *, who: str = PROGRAM) -> bool:
        """Deletes an account that was never used; false, and changes nothing, for any other."""

    def close(self) -> None:
        """Closes all connections; the store cannot be used afterwards."""
