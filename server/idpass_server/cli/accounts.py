"""Commands about accounts; they also work while a server is running."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import click

from idpass_server import logs
from idpass_server.cli import asking
from idpass_server.cli.base import main, option
from idpass_server.cli.showing import table
from idpass_server.config import NAME
from idpass_server.rules.money import parse_money, show_amount, show_money
from idpass_server.rules.records import Account, Money
from idpass_server.store import Store, accounts, opening

MAX_SLOTS: Final = 2**31 - 1
"""Largest slot limit of an account; the API has it as a 32-bit number."""
MAX_QUOTA: Final = 2**31 - 1
"""Largest quota of registrations a day."""


class _Money(click.ParamType[Money]):
    name = "money"

    def convert(self, value: Any, param: Any, ctx: Any) -> Money:
        try:
            return value if isinstance(value, Money) else parse_money(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class _Quota(click.IntRange):
    name = "quota"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        return 0 if value == "none" else int(super().convert(value, param, ctx))


_quota: Final = click.option(
    "--registrations-per-day",
    "quota",
    type=_Quota(0, MAX_QUOTA),
    metavar="N",
    help="Passes that may be registered in a day, which begins at 00:00 UTC; none: any number.",
)


def _account_name(_context: Any, _parameter: Any, value: str) -> str:
    if not NAME.fullmatch(value):
        raise click.BadParameter(
            f"{value!r} is not 1 to 63 of a-z, 0-9 and -, with a letter or digit at both ends"
        )
    return value


@main.group()
def account() -> None:
    """Create, show and change accounts, also while a server is running.

    Every change is written to the admin log; see: idpass-server admin-log
    """


@account.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
@option("db")
def list_accounts(db: str, *, as_json: bool) -> None:
    """List all accounts."""
    logs.configure("warning")
    with opening.reading_store(db) as connection:
        found = accounts.every(connection)
    if as_json:
        click.echo(json.dumps([_facts(each) for each in found], indent=2))
        return
    rows = [
        (
            each.name,
            _state(each),
            f"{each.slots_in_use}/{each.slot_limit}",
            show_money(Money(each.currency, each.fee_micros)),
            show_money(Money(each.currency, each.charged_micros)),
            show_money(Money(each.currency, each.refunded_micros)),
        )
        for each in found
    ]
    click.echo(table(("account", "state", "slots", "fee", "fees charged", "fees refunded"), rows))


@account.command()
@click.argument("name", callback=_account_name)
@click.option("--slots", type=click.IntRange(0, MAX_SLOTS), required=True, help="Slot limit.")
@click.option("--fee", type=_Money(), required=True, help="Fee for a pass, such as 'AUD 4.50'.")
@_quota
@asking.as_operator
@option("db")
def create(name: str, *, slots: int, fee: Money, quota: int | None, who: str, db: str) -> None:
    """Create an account."""
    with _opened(db) as store:
        if not store.create_account(Account(name, slots, 0, *fee, 0, 0, 0, quota or 0), who=who):
            raise click.ClickException(
                f"account {name} exists; change it with: idpass-server account set {name}"
            )
        _show(store, name)


@account.command()
@click.argument("name")
@option("db")
def show(name: str, db: str) -> None:
    """Show an account."""
    with _opened(db) as store:
        _show(store, name)


@account.command("set")
@click.argument("name")
@click.option("--slots", type=click.IntRange(0, MAX_SLOTS), help="Slot limit.")
@click.option("--fee", type=_Money(), help="Fee for passes registered from now on.")
@_quota
@asking.as_operator
@option("db")
def set_account(
    name: str, *, slots: int | None, fee: Money | None, quota: int | None, who: str, db: str
) -> None:
    """Change an account. Passes keep the fee they were registered with."""
    if slots is None and fee is None and quota is None:
        raise click.UsageError("nothing to change; give --slots, --fee or --registrations-per-day")
    with _opened(db) as store:
        before = _account(store, name)
        if not store.set_account(
            name, slot_limit=slots, fee=fee, registrations_per_day=quota, who=who
        ):
            raise click.ClickException(
                f"account {name} has charged fees in {before.currency} and keeps that currency"
            )
        _show(store, name)


@account.command()
@click.argument("name")
@asking.as_operator
@option("db")
def disable(name: str, who: str, db: str) -> None:
    """Refuse every change that an account's callers ask for, from the next call on.

    Its passes can still be read and watched, and expire in time. To keep a caller out, remove it
    from the callers file.
    """
    with _opened(db) as store:
        _account(store, name)
        store.set_account(name, disabled=True, who=who)
        _show(store, name)


@account.command()
@click.argument("name")
@asking.as_operator
@option("db")
def enable(name: str, who: str, db: str) -> None:
    """Let an account's callers change passes again, from the next call on."""
    with _opened(db) as store:
        _account(store, name)
        store.set_account(name, disabled=False, who=who)
        _show(store, name)


@account.command()
@click.argument("name")
@asking.yes
@asking.as_operator
@option("db")
def delete(name: str, who: str, db: str, *, yes: bool) -> None:
    """Delete an account that has never registered a pass.

    Any other stays, since its events are the record of money: disable it instead. Remove its
    callers from the callers file first; a server does not start with callers of no account.
    """
    with _opened(db) as store:
        _account(store, name)
        asking.confirm(f"Delete account {name}?", given=yes)
        if not store.delete_account(name, who=who):
            raise click.ClickException(
                f"account {name} has registered passes, and its events are the record of its "
                f"fees; keep it, and disable it with: idpass-server account disable {name}"
            )
    click.echo(f"account {name} is deleted")


@contextmanager
def _opened(db: str) -> Iterator[Store]:
    """Opens a store that a server may be using."""
    logs.configure("warning")
    store = opening.open_store(db, exclusive=False)
    try:
        yield store
    finally:
        store.close()


def _account(store: Store, name: str) -> Account:
    found = store.get_account(name)
    if found is None:
        raise click.ClickException(
            f"there is no account {name}; create it with: "
            f"idpass-server account create {name} --slots 100 --fee 'AUD 4.50'"
        )
    return found


def _show(store: Store, name: str) -> None:
    found = _account(store, name)
    click.echo(f"account        {found.name}")
    click.echo(f"state          {_state(found)}")
    click.echo(f"fee            {show_money(Money(found.currency, found.fee_micros))}")
    click.echo(f"slots          {found.slots_in_use} of {found.slot_limit} in use")
    quota = f"{found.registrations_per_day} a day" if found.registrations_per_day else "no quota"
    click.echo(f"registrations  {quota}")
    click.echo(f"fees charged   {show_money(Money(found.currency, found.charged_micros))}")
    click.echo(f"fees refunded  {show_money(Money(found.currency, found.refunded_micros))}")
    click.echo(f"last event     {found.last_sequence}")


def _state(account: Account) -> str:
    return "disabled" if account.disabled else "enabled"


def _facts(account: Account) -> dict[str, object]:
    """An account for programs; amounts as decimals."""
    return {
        "account": account.name,
        "state": _state(account),
        "slots_in_use": account.slots_in_use,
        "slot_limit": account.slot_limit,
        "registrations_per_day": account.registrations_per_day,
        "currency": account.currency,
        "fee": show_amount(Money(account.currency, account.fee_micros)),
        "fees_charged": show_amount(Money(account.currency, account.charged_micros)),
        "fees_refunded": show_amount(Money(account.currency, account.refunded_micros)),
        "last_sequence": account.last_sequence,
    }
