"""Events and passes in the JSON form that the service speaks over HTTP and in webhooks.

Fields are named as in the protos, enums are lower-case words, times are RFC 3339, amounts are
strings. What is not set is left out; booleans and numbers always stand.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

from idpass import _read
from idpass._records import Cancellation, Event, IdPass, Money
from idpass._words import CancelReason, Status

Json = Mapping[str, Any]


def read_event(value: Json) -> Event:
    """
    Raises:
        KeyError: something that always stands is missing.
        ValueError: a time or an amount is malformed.
    """
    erased = value.get("erased", False)
    cancelled = value["to_status"] == "cancelled" and not erased
    return Event(
        value["sequence"],
        value["id_pass_id"],
        _read_status(value["from_status"]) if "from_status" in value else None,
        _read_status(value["to_status"]),
        read_time(value["event_time"]),
        value.get("caller", ""),
        value.get("request_id", ""),
        _read_money(value["refund"]) if "refund" in value else None,
        _read_reason(value.get("reason", "")) if cancelled else None,
        erased,
        value.get("reference", ""),
    )


def read_pass(value: Json) -> IdPass:
    """As read_event."""
    cancellation = None
    if "cancellation" in value:
        how = value["cancellation"]
        cancellation = Cancellation(
            _read_reason(how.get("reason", "")),
            how.get("note", ""),
            read_time(how["cancel_time"]),
            how.get("caller", ""),
        )
    return IdPass(
        value["id"],
        value["account"],
        _read_status(value["status"]),
        _read_money(value["fee"]),
        value["fee_refunded"],
        value.get("applicant_reference", ""),
        value.get("supersedes"),
        value.get("superseded_by"),
        read_time(value["create_time"]),
        read_time(value["update_time"]),
        read_time(value["expire_time"]),
        read_time(value["consent_time"]) if "consent_time" in value else None,
        read_time(value["end_time"]) if "end_time" in value else None,
        cancellation,
        value.get("caller", ""),
    )


def read_time(text: str) -> datetime:
    """
    Raises:
        ValueError: it is not a time in RFC 3339.
    """
    # Python 3.10 knows neither the Z nor fractions of other lengths than 3 and 6.
    moment, dot, fraction = text.removesuffix("Z").partition(".")
    whole = datetime.fromisoformat(moment + "+00:00")
    if not dot:
        return whole
    return whole + timedelta(microseconds=int(fraction.ljust(6, "0")[:6]))


def event(record: Event) -> dict[str, Any]:
    return _without_none(
        {
            "sequence": record.sequence,
            "id_pass_id": record.id,
            "from_status": _text(record.from_status),
            "to_status": str(record.to_status),
            "event_time": show_time(record.event_time),
            "caller": record.caller or None,
            "request_id": record.request_id or None,
            "refund": _money(record.refund),
            "reason": _reason(record.reason),
            "erased": record.erased,
            "reference": record.reference or None,
        }
    )


def id_pass(record: IdPass) -> dict[str, Any]:
    how = record.cancellation
    return _without_none(
        {
            "id": record.id,
            "account": record.account,
            "status": str(record.status),
            "fee": _money(record.fee),
            "fee_refunded": record.fee_refunded,
            "applicant_reference": record.applicant_reference or None,
            "supersedes": record.supersedes,
            "superseded_by": record.superseded_by,
            "create_time": show_time(record.create_time),
            "update_time": show_time(record.update_time),
            "expire_time": show_time(record.expire_time),
            "consent_time": record.consent_time and show_time(record.consent_time),
            "end_time": record.end_time and show_time(record.end_time),
            "cancellation": how
            and _without_none(
                {
                    "reason": _reason(how.reason),
                    "note": how.note or None,
                    "cancel_time": show_time(how.cancel_time),
                    "caller": how.caller or None,
                }
            ),
            "caller": record.caller or None,
        }
    )


def show_time(moment: datetime) -> str:
    """RFC 3339 in UTC, with as many decimals as protobuf writes: 0, 3 or 6."""
    text = f"{moment.astimezone(timezone.utc):%Y-%m-%dT%H:%M:%S}"
    if not moment.microsecond:
        return f"{text}Z"
    if moment.microsecond % 1_000:
        return f"{text}.{moment.microsecond:06}Z"
    return f"{text}.{moment.microsecond // 1_000:03}Z"


def _read_status(word: str) -> Status:
    return _read.spelled(Status, word)


def _read_reason(word: str) -> CancelReason:
    return _read.spelled(CancelReason, word) if word else CancelReason.UNSPECIFIED


def _read_money(value: Json) -> Money:
    return Money(value["currency"], Decimal(value["amount"]))


def _money(amount: Money | None) -> dict[str, str] | None:
    return None if amount is None else {"currency": amount.currency, "amount": str(amount.amount)}


def _reason(reason: CancelReason | None) -> str | None:
    return None if reason in {None, CancelReason.UNSPECIFIED} else str(reason)


def _text(word: Status | None) -> str | None:
    return None if word is None else str(word)


def _without_none(value: dict[str, Any]) -> dict[str, Any]:
    return {name: item for name, item in value.items() if item is not None}
