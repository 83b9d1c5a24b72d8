"""Amounts of money, parsed and formatted as text."""

import re
from typing import Final

from idpass_server.rules.records import Money

MICROS: Final = 1_000_000
_MICRO_DIGITS: Final = 6
_MONEY: Final = re.compile(r"([A-Z]{3}) (\d{1,9})(?:\.(\d{1,6}))?")

# Decimals by ISO 4217, list one, as of 2026; all other currencies have two. The list changes once
# in several years. Libraries that have it add megabytes, or give the decimals in daily use (CLDR).
_EXCEPTIONS: Final = {
    0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
    3: "BHD IQD JOD KWD LYD OMR TND",
    4: "CLF UYW",
    # Metals, units of account, and codes for tests: ISO 4217 gives them no minor unit.
    _MICRO_DIGITS: "XAG XAU XPD XPT XBA XBB XBC XBD XDR XSU XUA XTS XXX",
}
_MINOR_DIGITS: Final = {
    currency: digits
    for digits, currencies in _EXCEPTIONS.items()
    for currency in currencies.split()
}


def parse_money(text: str) -> Money:
    """Parses an amount such as "AUD 4.50".

    Raises:
        ValueError: the text has another form, or more decimals than the currency.
    """
    match = _MONEY.fullmatch(text)
    if not match:
        raise ValueError(f"{text!r} is no amount of money such as 'AUD 4.50'")
    currency, units, fraction = match[1], match[2], match[3] or ""
    digits = _minor_digits(currency)
    if len(fraction.rstrip("0")) > digits:
        allowed = f"{digits} decimals" if digits else "no decimals"
        raise ValueError(f"{text!r} cannot be paid: {currency} has {allowed}")
    return Money(currency, int(units) * MICROS + int(fraction.ljust(_MICRO_DIGITS, "0")))


def show_money(money: Money) -> str:
    """Formats an amount as "AUD 4.50", with at least the currency's decimals."""
    return f"{money.currency} {show_amount(money)}"


def show_amount(money: Money) -> str:
    """Formats an amount as "4.50", without its currency but with at least its decimals."""
    units, micros = divmod(money.micros, MICROS)
    digits = _minor_digits(money.currency) % _MICRO_DIGITS  # without a minor unit, no padding
    fraction = f"{micros:06}".rstrip("0").ljust(digits, "0")
    return f"{units}{'.' if fraction else ''}{fraction}"


def _minor_digits(currency: str) -> int:
    return _MINOR_DIGITS.get(currency, 2)
