"""Turns messages into records.

A number that this version does not know (a newer server's status or reason) becomes a member
named after it, so reading an answer never fails.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from functools import cache, lru_cache
from typing import Any, TypeVar

from google.protobuf.timestamp_pb2 import Timestamp
from google.type import money_pb2

from idpass._records import Account, Cancellation, Event, IdPass, Money, Receipt
from idpass._words import CancelReason, Status, Word
from idpass.v1 import id_pass_pb2 as pb
from idpass.v1 import id_pass_service_pb2 as service_pb

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)

AnyWord = TypeVar("AnyWord", bound=Word)


def _unrecognized(words: type[AnyWord], text: str, number: int) -> AnyWord:
    word = str.__new__(words, text)
    word._name_, word._value_, word.number = f"UNRECOGNIZED_{text.upper()}", text, number
    return word


@cache  # enums are few
def _by_number(words: type[Word]) -> Mapping[int, Any]:
    return {each.number: each for each in words}


def word(words: type[AnyWord], number: int) -> AnyWord:
    """The member with a number of the contract's enum."""
    found: AnyWord | None = _by_number(words).get(number)
    return found or _unrecognized(words, str(number), number)


def status(number: int) -> Status:
    return word(Status, number)


def status_or_none(number: int) -> Status | None:
    return word(Status, number) if number else None


def reason(number: int) -> CancelReason:
    return word(CancelReason, number)


def spelled(words: type[AnyWord], text: str) -> AnyWord:
    """The member that JSON spells so; its number is -1 if this version does not know it."""
    try:
        return words(text)
    except ValueError:
        return _unrecognized(words, text, -1)


def time(timestamp: Timestamp) -> datetime:
    return _EPOCH + timedelta(seconds=timestamp.seconds, microseconds=timestamp.nanos // 1000)


def money(message: money_pb2.Money) -> Money:
    return _money(message.currency_code, message.units, message.nanos)


@lru_cache(maxsize=256)  # fees are few, passes are many
def _money(currency: str, units: int, nanos: int) -> Money:
    sign = "-" if units < 0 or nanos < 0 else ""
    decimals = f"{abs(nanos):09}".rstrip("0").ljust(2, "0")
    # From text: arithmetic would round by the caller's decimal context.
    return Money(currency, Decimal(f"{sign}{abs(units)}.{decimals}"))


def receipt(message: service_pb.CancelResponse, pass_id: str, request_id: str) -> Receipt:
    return Receipt(
        pass_id,
        status(message.status),
        message.fee_refunded,
        money(message.refund) if message.HasField("refund") else None,
        status_or_none(message.previous_status),
        time(message.cancel_time),
        message.reference,
        message.replayed,
        request_id,
    )


def id_pass(message: pb.IdPass) -> IdPass:
    cancellation = None
    if message.HasField("cancellation"):
        how = message.cancellation
        cancellation = Cancellation(reason(how.reason), how.note, time(how.cancel_time), how.caller)
    return IdPass(
        message.id,
        message.account,
        status(message.status),
        money(message.fee),
        message.fee_refunded,
        message.applicant_reference,
        message.supersedes or None,
        message.superseded_by or None,
        time(message.create_time),
        time(message.update_time),
        time(message.expire_time),
        time(message.consent_time) if message.HasField("consent_time") else None,
        time(message.end_time) if message.HasField("end_time") else None,
        cancellation,
        message.caller,
    )


def event(message: pb.IdPassEvent) -> Event:
    cancelled = message.to_status == pb.ID_PASS_STATUS_CANCELLED and not message.erased
    return Event(
        message.sequence,
        message.id_pass_id,
        status_or_none(message.from_status),
        status(message.to_status),
        time(message.event_time),
        message.caller,
        message.request_id,
        money(message.refund) if message.HasField("refund") else None,
        reason(message.reason) if cancelled else None,
        message.erased,
        message.reference,
    )


def account(message: pb.Account) -> Account:
    return Account(
        message.id,
        message.slot_limit,
        message.slots_in_use,
        money(message.fee),
        money(message.fees_charged),
        money(message.fees_refunded),
        message.last_sequence,
        message.history,
        message.oldest_sequence,
    )
