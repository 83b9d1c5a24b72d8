"""Parses JSON bodies from strangers within bounds of time and memory."""

import json
import re
from typing import Any, Final

from idpass_server.gateway.messages import MAX_ITEMS, kind

MAX_VALUES: Final = 20 * MAX_ITEMS
"""Limit of names and values in a body; an item has at most 15."""
MAX_DIGITS: Final = 32
"""Limit of a number's length; parsing time grows with its square."""


class Unreadable(Exception):
    """A body is not a JSON object; the message says why."""


def load(body: bytes) -> dict[str, Any]:
    """Parses a body.

    Raises:
        Unreadable: it is not a JSON object, or exceeds a limit.
    """
    _check_number(body)
    try:
        value = json.loads(
            body.decode(),
            object_pairs_hook=_without_duplicates,
            parse_constant=_no_constant,
            parse_int=lambda digits: int(_short(digits)),
            parse_float=lambda digits: float(_short(digits)),
        )
    except UnicodeDecodeError as error:
        raise Unreadable(f"the body is not UTF-8: {error.reason} at byte {error.start}") from error
    except RecursionError as error:
        raise Unreadable("the body is nested too deeply") from error
    except json.JSONDecodeError as error:
        raise Unreadable(
            f"the body is not JSON: {error.msg} at line {error.lineno} column {error.colno}"
            if body
            else "the body is empty; send a JSON object, {} at least"
        ) from error
    except ValueError as error:
        raise Unreadable(f"the body is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise Unreadable(f"the body is {kind(value)}, not a JSON object")
    return value


def _check_number(body: bytes) -> None:
    """Counts names and values before parsing, which takes 20 times their bytes in memory.

    Raises:
        Unreadable: there are more than any request has.
    """
    # Mostly, a backslash before a quote means that no string begins or ends there.
    number = (body.count(b'"') - body.count(b'\\"')) // 2
    if number <= MAX_VALUES:
        bare = _STRING.sub(b"", body)
        number = max(number, sum(bare.count(byte) for byte in b"[{,"))
    if number > MAX_VALUES:
        raise Unreadable(f"the body has more than {MAX_VALUES} names and values in it")


# Possessive quantifiers keep this linear for any body: nothing is scanned twice.
_STRING: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise Unreadable("a name comes twice in one object")
    return found


def _short(digits: str) -> str:
    if len(digits) > MAX_DIGITS:
        raise Unreadable(f"a number has more than {MAX_DIGITS} digits")
    return digits


def _no_constant(name: str) -> None:
    raise Unreadable(f"{name} is not JSON")
