"""The commands `erase` and `purge`: old passes, and what they say of applicants.

Both work beside a running server, in the transactions that `pacing` paces, and keep no state of
their own: run again, they find what is left.
"""

import functools
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any, Final

import click

from idpass_server import logs
from idpass_server.cli import asking
from idpass_server.cli.base import Command, main, option
from idpass_server.cli.pacing import Interrupted, Pace, interruptible, patiently, progress
from idpass_server.engine.clock import SECOND_US, Clock, shown
from idpass_server.failures import OperatorError
from idpass_server.ids import new_uuid
from idpass_server.options import parse_duration
from idpass_server.rules.commands import Erase
from idpass_server.rules.erasure import count_erased
from idpass_server.store import Store, opening
from idpass_server.store.retention import Wanted

PAGE_PASSES: Final = 1_000
"""Largest number of passes that are looked up at a time."""


class _Age(click.ParamType[int]):
    name = "age"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        try:
            return value if isinstance(value, int) else parse_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class _PassId(click.ParamType[str]):
    name = "id"

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        try:
            return str(uuid.UUID(value))
        except ValueError:
            self.fail(f"{value!r} is no UUID", param, ctx)


def _ended_before(*, required: bool = False) -> Callable[[Command], Command]:
    return click.option(
        "--ended-before",
        "age_s",
        type=_Age(),
        metavar="AGE",
        required=required,
        help="Passes that ended longer ago than this, such as 400d or 36h.",
    )


@main.command("erase")
@click.option("--account", required=True, metavar="NAME", help="Account that owns the passes.")
@click.option("--applicant", metavar="REF", help="Passes with this applicant reference.")
@click.option("--id", "pass_id", type=_PassId(), metavar="ID", help="One pass.")
@_ended_before()
@asking.dry_run
@asking.yes
@asking.as_operator
@option("accept_clock")
@option("db")
def erase_command(
    account: str,
    applicant: str | None,
    pass_id: str | None,
    age_s: int | None,
    *,
    who: str,
    db: str,
    dry_run: bool,
    yes: bool,
    accept_clock: bool,
) -> None:
    """Erase the applicant reference and the note of passes, also while a server is running.

    Give --applicant or --id, for passes in any status, or --ended-before. Status, money and times
    stay; an event records each erasure. Backups keep what they hold. If the command is interrupted,
    what is done is done: run it again to go on.
    """
    if [applicant, pass_id, age_s].count(None) != 2:  # noqa: PLR2004 one of three is given
        raise click.UsageError("give one of --applicant, --id and --ended-before")
    if applicant == "":
        raise click.UsageError("--applicant is empty, and so is every reference that was erased")
    with _opened(db, accept_clock=accept_clock or age_s is None) as (store, now_us):
        _must_exist(store, account)
        before_us = None if age_s is None else now_us() - age_s * SECOND_US
        wanted = Wanted(account, before_us, applicant, pass_id, personal=True)
        if pass_id is not None and store.get_pass(account, pass_id) is None:
            raise OperatorError(f"account {account} has no pass {pass_id}")
        work = _Work(store, [wanted])
        told = f"applicant reference and note of {_passes(work.total)} of {account}"
        if dry_run or not work.total:
            click.echo(f"{told} would be erased" if work.total else "nothing to erase")
            return
        asking.confirm(f"Erase {told}?", given=yes)
        store.record(who, "erase", account, _facts(work.total, before_us))
        done = work.do("erased", lambda account, ids: _erase(store, account, ids, now_us()))
    click.echo(f"applicant reference and note of {_passes(done)} of {account} erased")


def _erase(store: Store, account: str, ids: Sequence[str], now_us: int) -> int:
    """Erases passes in one transaction. Returns the number of those that had something to erase.

    Raises:
        Refusal: nothing was changed.
    """
    reference = new_uuid()
    commands = [Erase(account, reference, pass_id) for pass_id in ids]
    return count_erased(store.commit(commands, now_us).outcomes)


@main.command("purge")
@_ended_before(required=True)
@click.option("--account", metavar="NAME", help="Only passes of this account.")
@asking.dry_run
@asking.yes
@asking.as_operator
@option("accept_clock")
@option("db")
def purge_command(
    age_s: int,
    account: str | None,
    *,
    who: str,
    db: str,
    dry_run: bool,
    yes: bool,
    accept_clock: bool,
) -> None:
    """Remove passes that ended long ago, with their events, also while a server is running.

    Accounts keep their totals. The receipts go too: a request_id of theirs can be used again, so
    give an age beyond any retry. A watcher that has yet to get such an event is told HISTORY_LOST.
    Backups keep what they hold. If the command is interrupted, what is done is done: run it again
    to go on.
    """
    with _opened(db, accept_clock=accept_clock) as (store, now_us):
        if account is not None:
            _must_exist(store, account)
        names = store.account_names() if account is None else [account]
        before_us = now_us() - age_s * SECOND_US
        work = _Work(store, [Wanted(name, before_us) for name in names])
        of_whom = "all accounts" if account is None else account
        told = f"{_passes(work.total)} of {of_whom} that ended before {shown(before_us)}"
        if dry_run or not work.total:
            click.echo(f"{told} would be purged" if work.total else "nothing to purge")
            return
        asking.confirm(f"Purge {told}, with their events?", given=yes)
        store.record(who, "purge", account, _facts(work.total, before_us))
        done = work.do("purged", lambda name, ids: store.purge(name, ids, before_us))
    click.echo(f"{_passes(done)} of {of_whom} that ended before {shown(before_us)} purged")


class _Work:
    """Passes to work on, which are looked up once to count them and once more to do it.

    Args:
        store: where they are.
        wanted: which ones, account by account.

    Attributes:
        total: number of passes found.
    """

    def __init__(self, store: Store, wanted: Sequence[Wanted]) -> None:
        self._store = store
        self._wanted = wanted
        self.total = sum(len(ids) for _, ids in self._pages())

    def do(self, done_word: str, step: Callable[[str, Sequence[str]], int]) -> int:
        """Does it, in short transactions.

        Args:
            done_word: what happens to them, such as "erased".
            step: called with an account and some of its passes; returns how many it changed.

        Returns:
            the number of passes changed.

        Raises:
            OperatorError: the operator has interrupted it; the message says how far it is.
            StoreUnavailable: the database cannot be changed now.
        """
        done = 0
        try:
            with interruptible() as interrupted, progress(done_word, self.total) as moved:
                pace = Pace(interrupted)
                for account, ids in self._pages():
                    for chunk in pace.chunks(ids):
                        done += patiently(functools.partial(step, account, chunk))
                        moved(len(chunk))
        except Interrupted:
            raise OperatorError(
                f"interrupted: {_passes(done)} {done_word}; to go on, run it again"
            ) from None
        return done

    def _pages(self) -> Iterator[tuple[str, list[str]]]:
        for wanted in self._wanted:
            after_id: str | None = None
            while True:
                ids, after_id = self._store.find_passes(wanted, after_id, PAGE_PASSES)
                yield wanted.account, ids
                if after_id is None:
                    break


@contextmanager
def _opened(db: str, *, accept_clock: bool) -> Iterator[tuple[Store, Callable[[], int]]]:
    """Opens a store that a server may be using. Yields it, and a clock, microseconds.

    Raises:
        ClockWrong: by a clock that is ahead more would be gone, for good.
    """
    logs.configure("warning")
    with closing(opening.open_store(db, exclusive=False)) as store:
        clock = Clock()
        clock.begin(store.newest_event_time_us(), accept=accept_clock)
        yield store, lambda: clock.now().us


def _must_exist(store: Store, account: str) -> None:
    if store.get_account(account) is None:
        raise OperatorError(f"there is no account {account}; see: idpass-server account list")


def _passes(count: int) -> str:
    return f"{count:,} pass{'' if count == 1 else 'es'}"


def _facts(passes: int, before_us: int | None) -> dict[str, object]:
    """What the admin log says: how many passes, and by which age if by age."""
    facts: dict[str, object] = {"passes": passes}
    if before_us is not None:
        facts["ended_before"] = shown(before_us)
    return facts
