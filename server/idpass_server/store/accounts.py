"""Operators' changes to accounts, in databases of either kind.

Each function works in a transaction that its caller has begun, and writes what it changes to the
admin log.
"""

from typing import Any, Final, NamedTuple

from idpass_server.rules.money import show_money
from idpass_server.rules.positions import PURGED
from idpass_server.rules.records import Account, Money
from idpass_server.store import admin_log, either, history
from idpass_server.store.rows import columns

_SELECT: Final = f"SELECT {columns(Account)} FROM accounts"
_INSERT: Final = (
    f"INSERT INTO accounts ({columns(Account)}) "
    f"VALUES ({', '.join(f':{name}' for name in Account._fields)}) ON CONFLICT DO NOTHING"
)
_SET: Final = ("slot_limit", "currency", "fee_micros", "registrations_per_day", "disabled")
_UPDATE: Final = (
    f"UPDATE accounts SET {', '.join(f'{name} = :{name}' for name in _SET)} WHERE name = :name"
)
_DELETE: Final = (
    "DELETE FROM webhook_attempts WHERE account = :name",
    "DELETE FROM webhook_deliveries WHERE account = :name",
    "DELETE FROM webhooks WHERE account = :name",
    "DELETE FROM accounts WHERE name = :name",
)
_BEGIN: Final = "INSERT INTO history_gaps VALUES (:name, 0, :base)"
_FORGET: Final = "DELETE FROM history_gaps WHERE account = :name"
_USED: Final = f"""
    SELECT EXISTS (SELECT 1 FROM events WHERE account = :name) OR EXISTS (
        SELECT 1 FROM history_gaps WHERE account = :name AND after_sequence = {PURGED})"""


class Settings(NamedTuple):
    """What operators set of an account; None leaves something as it is.

    Attributes:
        slot_limit: as Account.
        fee: what registering a pass costs from now on.
        registrations_per_day: as Account.
        disabled: whether its passes may only expire.
    """

    slot_limit: int | None = None
    fee: Money | None = None
    registrations_per_day: int | None = None
    disabled: bool | None = None

    def put(self, account: Account) -> Account:
        """The account with these settings."""
        given: dict[str, Any] = {
            "slot_limit": self.slot_limit,
            "currency": self.fee and self.fee.currency,
            "fee_micros": self.fee and self.fee.micros,
            "registrations_per_day": self.registrations_per_day,
            "disabled": None if self.disabled is None else int(self.disabled),
        }
        return account._replace(
            **{name: value for name, value in given.items() if value is not None}
        )


def every(connection: Any) -> list[Account]:
    """All accounts, by name."""
    rows = either.run(connection, f"{_SELECT} ORDER BY name")
    return list(map(Account._make, rows))


def create(connection: Any, account: Account, who: str) -> bool:
    """Creates an account; false if the name is taken."""
    account = account._replace(last_sequence=history.base_sequence(connection))
    if not either.run(connection, _INSERT, **account._asdict()).rowcount:
        return False
    if account.last_sequence:
        either.run(connection, _BEGIN, name=account.name, base=account.last_sequence)
    admin_log.record(
        connection, who, "account create", account.name, before=None, after=_shown(account)
    )
    return True


def change(connection: Any, name: str, settings: Settings, who: str) -> bool:
    """Changes an account; result as Store.set_account. A change to what is so already is none."""
    before = _locked(connection, name)
    if before is None:
        return False
    after = settings.put(before)
    if after.currency != before.currency and _was_used(connection, name):
        return False
    if after != before:
        values = {field: getattr(after, field) for field in ("name", *_SET)}
        either.run(connection, _UPDATE, **values)
        what = {True: "disable", False: "enable", None: "set"}[settings.disabled]
        was, now = _shown(before), _shown(after)
        changed = [field for field in now if now[field] != was[field]]
        admin_log.record(
            connection,
            who,
            f"account {what}",
            name,
            before={field: was[field] for field in changed},
            after={field: now[field] for field in changed},
        )
    return True


def delete(connection: Any, name: str, who: str) -> bool:
    """Deletes an account that was never used; arguments and result as Store.delete_account."""
    before = _locked(connection, name)
    if before is None or _was_used(connection, name):
        return False
    either.run(connection, _FORGET, name=name)
    for statement in _DELETE:
        either.run(connection, statement, name=name)
    admin_log.record(connection, who, "account delete", name, before=_shown(before), after=None)
    return True


def _locked(connection: Any, name: str) -> Account | None:
    statement = f"{_SELECT} WHERE name = :name{either.for_update(connection)}"
    row = either.run(connection, statement, name=name).fetchone()
    return Account._make(row) if row else None


def _was_used(connection: Any, name: str) -> bool:
    """Whether an account has events, or had some before a purge."""
    (used,) = either.run(connection, _USED, name=name).fetchone()
    return bool(used)


def _shown(account: Account) -> dict[str, object]:
    return {
        "slots": account.slot_limit,
        "fee": show_money(Money(account.currency, account.fee_micros)),
        "registrations_per_day": account.registrations_per_day,
        "disabled": bool(account.disabled),
    }
