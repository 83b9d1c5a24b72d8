"""The commands of one transaction, decided in order on the same state in memory.

A store loads what `Needs` lists, then what `Replays` and `short_of_slots` ask for beyond that, runs
the batch, and writes what it changed. Pure like `domain`: changing the store moves no rule.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from idpass_server.rules import domain, erasure
from idpass_server.rules.commands import (
    Advanced,
    Cancel,
    Cancelled,
    Command,
    Erase,
    Expire,
    Outcome,
    Register,
    Registered,
)
from idpass_server.rules.domain import Decision
from idpass_server.rules.records import Account, Event, Pass, Status
from idpass_server.rules.refusals import (
    AccountDisabled,
    NoFreeSlot,
    PassNotFound,
    Refusal,
    RequestIdReused,
)

Key = tuple[str, str]
"""An account and a name within it: a pass id or a request_id."""

EventKey = tuple[str, int]
"""An account and a sequence number within it."""


class Needs(NamedTuple):
    """What a store must load before the commands can be decided.

    Attributes:
        accounts: names, sorted: the order in which to lock them.
        passes: the passes that commands name.
        receipts: the request_ids that commands carry.
    """

    accounts: list[str]
    passes: list[Key]
    receipts: list[Key]

    @classmethod
    def of(cls, commands: Iterable[Command]) -> "Needs":
        """Collects the needs of all commands, each once."""
        accounts: set[str] = set()
        passes: dict[Key, None] = {}
        receipts: dict[Key, None] = {}
        for command in commands:
            accounts.add(command.account)
            if command.subject:
                passes[command.account, command.subject] = None
            if command.request_id:
                receipts[command.account, command.request_id] = None
        return cls(sorted(accounts), list(passes), list(receipts))


class Replays(NamedTuple):
    """What a store must load beyond `Needs` to replay the receipts it found.

    Attributes:
        passes: the passes that the receipts are about.
        preceding: the events just before the receipts. A registration that superseded a pass
            wrote that pass's cancellation there.
    """

    passes: list[Key]
    preceding: list[EventKey]

    @classmethod
    def of(cls, receipts: Iterable[Event]) -> "Replays":
        """Collects what the receipts refer to."""
        found = list(receipts)
        return cls(
            [(receipt.account, receipt.id_pass_id) for receipt in found],
            [(receipt.account, receipt.sequence - 1) for receipt in found],
        )


def short_of_slots(accounts: Iterable[Account], commands: Iterable[Command]) -> dict[str, int]:
    """Finds the accounts that may need the slots of overdue passes.

    Returns:
        number of slots wanted, by account.
    """
    wanted = Counter(
        command.account
        for command in commands
        if isinstance(command, Register) and not command.supersedes
    )
    return {
        account.name: wanted[account.name]
        for account in accounts
        if account.name in wanted
        and account.slots_in_use + wanted[account.name] > account.slot_limit
    }


class Batch:
    """The state of one transaction, from loading to saving.

    Args:
        accounts: the commands' accounts, where they exist.
        passes: the passes that commands and receipts name, where they exist.
        receipts: events that carry one of the commands' request_ids.
        preceding: the events just before the receipts; see `Replays`.
        overdue: passes that may expire to free slots, in accounts short of them.

    Attributes:
        accounts: current state of each account, by name.
        events: new events, in order.
        created: new passes.
        changed: passes that existed before and have changed.
        timers_done: passes that ended or had ended, and whose timers have served their purpose.
        erased: passes that were erased; their receipts are to be erased as well.
    """

    def __init__(
        self,
        accounts: Iterable[Account],
        passes: Iterable[Pass],
        receipts: Iterable[Event] = (),
        preceding: Iterable[Event] = (),
        overdue: Iterable[Pass] = (),
    ) -> None:
        self.accounts = {account.name: account for account in accounts}
        self.events: list[Event] = []
        self.created: dict[Key, Pass] = {}
        self.changed: dict[Key, Pass] = {}
        self.timers_done: list[Pass] = []
        self.erased: dict[Key, Pass] = {}
        self._passes = {(p.account, p.id): p for p in passes}
        self._receipts = {(e.account, str(e.request_id)): e for e in receipts}
        self._preceding = {(e.account, e.sequence): e for e in preceding}
        self._overdue: dict[str, list[Key]] = {}
        for id_pass in overdue:
            key = (id_pass.account, id_pass.id)
            self._passes.setdefault(key, id_pass)
            self._overdue.setdefault(id_pass.account, []).append(key)

    def run(
        self, commands: Sequence[Command], now_us: int, due_us: int | None = None
    ) -> list[Outcome]:
        """Decides every command in order.

        Args:
            commands: what to decide.
            now_us: time of the decisions, microseconds since the epoch. Raised to the newest
                update_time of the passes, as another host's clock may have been ahead.
            due_us: passes with an expire_time up to this are overdue, microseconds since the
                epoch; None means `now_us`.

        Returns:
            one outcome for each command.
        """
        due_us = now_us if due_us is None else due_us
        now_us = max([now_us, *(p.update_time_us for p in self._passes.values())])
        return [
            self._run_one(command, now_us, due_us)
            if command.account in self.accounts
            else AccountDisabled(command.account)
            for command in commands
        ]

    def changed_accounts(self) -> list[Account]:
        """Accounts with new events, as they are to be stored."""
        return [self.accounts[name] for name in dict.fromkeys(e.account for e in self.events)]

    def _run_one(self, command: Command, now_us: int, due_us: int) -> Outcome:
        id_pass = None
        if command.subject:
            id_pass = self._passes.get((command.account, command.subject))
            if id_pass is None:
                return PassNotFound(command.subject)
        receipt = self._receipts.get((command.account, command.request_id or ""))
        if receipt is not None:
            return self._replay(receipt, command)
        account = self.accounts[command.account]
        dry_run = isinstance(command, Cancel) and command.validate_only
        if id_pass is not None and id_pass.overdue(due_us):
            expired = domain.expire(account, id_pass, command.reference, now_us)
            if not dry_run:
                self._apply(expired)
            account, id_pass = expired.account, expired.changes[0].id_pass
        decision = _decide(account, id_pass, command, now_us)
        if isinstance(decision, NoFreeSlot) and self._make_room(account, command, now_us, due_us):
            decision = _decide(self.accounts[account.name], id_pass, command, now_us)
        if isinstance(decision, Refusal):
            return decision
        if not dry_run:
            self._apply(decision)
        if isinstance(command, Expire) and id_pass is not None and id_pass.end_time_us is not None:
            self.timers_done.append(id_pass)
        return decision.answer

    def _make_room(self, account: Account, command: Command, now_us: int, due_us: int) -> bool:
        """Expires one overdue pass that the sweeper has not reached; false if there is none."""
        waiting = self._overdue.get(account.name, [])
        while waiting:
            id_pass = self._passes[waiting.pop()]
            if id_pass.overdue(due_us):
                self._apply(domain.expire(account, id_pass, command.reference, now_us))
                return True
        return False

    def _apply(self, decision: Decision) -> None:
        self.accounts[decision.account.name] = decision.account
        for id_pass, event in decision.changes:
            key = (id_pass.account, id_pass.id)
            self._passes[key] = id_pass
            if event.from_status is None or key in self.created:
                self.created[key] = id_pass
            else:
                self.changed[key] = id_pass
            if event.erased:
                self.erased[key] = id_pass
            self.events.append(event)
            if event.request_id:
                self._receipts[event.account, event.request_id] = event
            self._preceding[event.account, event.sequence] = event

    def _replay(self, receipt: Event, command: Command) -> Outcome:
        """Rebuilds the first answer from its receipt."""
        current = self._passes[receipt.account, receipt.id_pass_id]
        if not _same(command, receipt, current):
            return RequestIdReused(str(receipt.request_id))
        if isinstance(command, Cancel):
            return Cancelled(receipt, replayed=True)
        id_pass = _as_of(receipt, current)
        if not isinstance(command, Register):
            return Advanced(id_pass, receipt.reference, replayed=True)
        superseded = None
        if id_pass.supersedes:
            superseded = Cancelled(self._preceding[receipt.account, receipt.sequence - 1])
        return Registered(id_pass, superseded, receipt.reference, replayed=True)


def _decide(
    account: Account, id_pass: Pass | None, command: Command, now_us: int
) -> Decision | Refusal:
    if isinstance(command, Erase):
        return erasure.erase(account, id_pass, command, now_us)
    return domain.decide(account, id_pass, command, now_us)


def _same(command: Command, receipt: Event, id_pass: Pass) -> bool:
    """Whether a command has the content of the one that has the receipt."""
    if isinstance(command, Expire | Erase):
        return False
    if receipt.request_digest == erasure.ERASED:
        return erasure.repeats(command, receipt, id_pass)
    return command.digest() == receipt.request_digest


def _as_of(event: Event, id_pass: Pass) -> Pass:
    """Rebuilds the pass as it was right after `event` from the pass as it is now.

    That needs no other event: no status is entered twice, so either nothing has happened since, or
    the event holds everything that changes with the status.
    """
    if id_pass.status == event.to_status:
        return id_pass
    in_progress = event.to_status == Status.IN_PROGRESS
    return id_pass._replace(
        status=event.to_status,
        fee_refunded=0,
        superseded_by=None,
        update_time_us=event.event_time_us,
        consent_time_us=event.event_time_us if in_progress else None,
        end_time_us=None,
        cancel_reason=None,
        cancel_note=None,
        caller=event.caller,
    )
