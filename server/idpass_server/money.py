"""Amounts of money as people write and read them."""

import re
from typing import Final

from idpass_server.config import BadSetting
from idpass_server.records import Money

MICROS: Final = 1_000_000
_MONEY: Final = re.compile(r"([A-Z]{3}) (\d{1,9})(?:\.(\d{1,6}))?")


def parse_money(text: str) -> Money:
    """ "AUD 4.50" as money. Raises: BadSetting."""
    match = _MONEY.fullmatch(text)
    if not match:
        raise BadSetting(f"{text!r} is no amount of money such as 'AUD 4.50'")
    currency, units, fraction = match.groups()
    return Money(currency, int(units) * MICROS + int((fraction or "").ljust(6, "0")))


def show_money(money: Money) -> str:
    """Money as "AUD 4.50": two decimals, more where they are needed."""
    units, micros = divmod(money.micros, MICROS)
    fraction = f"{micros:06}".rstrip("0").ljust(2, "0")
    return f"{money.currency} {units}.{fraction}"
