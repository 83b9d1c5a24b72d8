"""What callers may give for an argument: checked here, and refused with the argument's name.

Only what can be told from the type is checked; what a value may be is the service's business.
"""

import math
import os
import time
import uuid
from typing import cast

from idpass._words import AnyReason, AnyStatus, CancelReason, Status, Word
from idpass.v1 import id_pass_pb2 as pb

Id = str | uuid.UUID
MAX_SECONDS = 1e9
"""Longest time limit of a call, some 30 years, which is also what gRPC can count. Seconds."""


def status_number(
    name: str, status: AnyStatus | None, *, needed: bool = False
) -> pb.IdPassStatus.ValueType:
    value = 0 if status is None and not needed else word_number(Status, name, status)
    return cast("pb.IdPassStatus.ValueType", value)


def reason_number(reason: AnyReason) -> pb.CancelReason.ValueType:
    return cast("pb.CancelReason.ValueType", word_number(CancelReason, "reason", reason))


def word_number(kind: type[Word], name: str, word: object) -> int:
    """
    Raises:
        TypeError: it is neither a member nor text.
        ValueError: it is not one of the words.
    """
    if isinstance(word, kind):
        return word.number
    known = ", ".join(map(str, kind))
    if not isinstance(word, str) or isinstance(word, Word):
        raise TypeError(f"{name} is {word!r}; pass a {kind.__name__} or one of its words: {known}")
    if word not in kind.__members__.values():
        raise ValueError(f"{name} is {word!r}; pass a {kind.__name__} or one of its words: {known}")
    return kind(word).number


def text_id(value: object, name: str = "id", *, of: str = "a pass") -> str:
    if not isinstance(value, (str, uuid.UUID)):
        raise TypeError(f"{name} is {value!r}; pass the UUID of {of}, as text or uuid.UUID")
    return text(name, str(value))


def several(name: str, values: object) -> None:
    """Refuses a string: as a sequence of characters it is never what is meant."""
    if isinstance(values, str):
        raise TypeError(f"{name} is the text {values!r}; pass a list, such as [{values!r}]")
    if values is not None and not (hasattr(values, "__iter__") or hasattr(values, "__aiter__")):
        raise TypeError(f"{name} is {values!r}; pass a list, or anything else to iterate over")


def text(name: str, value: object) -> str:
    """The message names no value: it may be a note, or name an applicant."""
    if not isinstance(value, str):
        raise TypeError(f"{name} is {type(value).__name__}; pass text")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            why = f"{name} is not text that can be sent: {error.reason}"
            raise UnicodeEncodeError("utf-8", value, error.start, error.end, why) from None
    return value


def request_id_or(value: object, otherwise: str) -> str:
    """The request_id that a caller gives, or the other one if it gives none."""
    return otherwise if value is None else text("request_id", value) or otherwise


def flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name} is {value!r}; pass True or False")
    return value


def whole(name: str, value: object, *, bits: int = 64) -> int:
    """
    Args:
        bits: of the field that it is sent in, which is signed.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} is {value!r}; pass a whole number")
    if not -(1 << bits - 1) <= value < 1 << bits - 1:
        raise ValueError(f"{name} is {value}, which is more than {bits} bits hold")
    return value


def limit(timeout: object) -> float:
    """Checks the time limit of a call, in seconds."""
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        raise TypeError(f"timeout is {timeout!r}; pass a number of seconds")
    if math.isnan(timeout) or not 0 <= timeout <= MAX_SECONDS:
        raise ValueError(f"timeout is {timeout!r}; pass seconds, from 0 to {MAX_SECONDS:,.0f}")
    return timeout


def new_request_id() -> str:
    """A UUIDv7 (RFC 9562): ids made one after another are neighbours in the server's index."""
    milliseconds = time.time_ns() // 1_000_000
    value = milliseconds << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76 | 0x3 << 62) | 0x7 << 76 | 0x2 << 62
    digits = f"{value:032x}"  # uuid.UUID would take three times as long
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
