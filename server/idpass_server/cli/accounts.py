"""Commands about accounts; they also work while a server is running."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import click

from idpass_server import logs
from idpass_server.cli.base import main, option
from idpass_server.config import NAME
from idpass_server.rules.money import parse_money, show_money
from idpass_server.rules.records import Account, Money
from idpass_server.store import Store, opening

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
    """Create, show and change accounts, also while a server is running."""


@account.command()
@click.argument("name", callback=_account_name)
@click.option("--slots", type=click.IntRange(0, MAX_SLOTS), required=True, help="Slot limit.")
@click.option("--fee", type=_Money(), required=True, help="Fee for a pass, such as 'AUD 4.50'.")
@_quota
@option("db")
def create(name: str, slots: int, fee: Money, quota: int | None, db: str) -> None:
    """Create an account."""
    with _opened(db) as store:
        if not store.create_account(Account(name, slots, 0, *fee, 0, 0, 0, quota or 0)):
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
@option("db")
def set_account(
    name: str, slots: int | None, fee: Money | None, quota: int | None, db: str
) -> None:
    """Change an account. Passes keep the fee they were registered with."""
    if slots is None and fee is None and quota is None:
        raise click.UsageError("nothing to change; give --slots, --fee or --registrations-per-day")
    with _opened(db) as store:
        before = _account(store, name)
        if not store.set_account(name, slot_limit=slots, fee=fee, registrations_per_day=quota):
            raise click.ClickException(
                f"account {name} has charged fees in {before.currency} and keeps that currency"
            )
        _show(store, name)


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
    click.echo(f"fee            {show_money(Money(found.currency, found.fee_micros))}")
    click.echo(f"slots          {found.slots_in_use} of {found.slot_limit} in use")
    quota = f"{found.registrations_per_day} a day" if found.registrations_per_day else "no quota"
    click.echo(f"registrations  {quota}")
    click.echo(f"fees charged   {show_money(Money(found.currency, found.charged_micros))}")
    click.echo(f"fees refunded  {show_money(Money(found.currency, found.refunded_micros))}")
    click.echo(f"last event     {found.last_sequence}")
