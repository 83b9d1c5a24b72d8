"""For receivers of webhooks: `verify`. And the records of `IdPassClient.webhooks`.

    from idpass.webhooks import WebhookVerificationError, verify

    event = verify(body, headers, secret)

The format is that of Standard Webhooks (https://www.standardwebhooks.com), so its own libraries
verify these requests as well; `verify` also reads the event. Receivers get an event at least once
and drop repetitions by `message_id`.
"""

import base64
import binascii
import hashlib
import hmac
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from idpass import _http_json
from idpass._records import Event, IdPass
from idpass._webhook_records import (
    Webhook,
    WebhookAttempt,
    WebhookDelivery,
    WebhookDeliveryState,
    WebhookPauseReason,
    WebhookSecret,
    WebhookState,
)

__all__ = [
    "Webhook",
    "WebhookAttempt",
    "WebhookDelivery",
    "WebhookDeliveryState",
    "WebhookEvent",
    "WebhookPauseReason",
    "WebhookSecret",
    "WebhookState",
    "WebhookVerificationError",
    "sign",
    "verify",
]

TOLERANCE_S = 300.0
"""Largest difference between the sender's clock and the receiver's, seconds."""
PREFIX = "whsec_"


class WebhookVerificationError(ValueError):
    """The request was not signed with the secret, or is too old; answer it 400 or 401."""


@dataclass(frozen=True)
class WebhookEvent:
    """A verified webhook.

    Attributes:
        message_id: the same for every attempt to deliver this event.
        type: "id_pass.registered", "id_pass.erased", "id_pass." and a status, or "webhook.test";
            others may come.
        time: when the event took place, in UTC.
        history: the history that the event's sequence belongs to; another one after a restore.
        event: what happened; None for a type that is not about a pass.
        id_pass: the pass as it was when the request was sent; None likewise, or if it is gone.
        data: all of it, as it came.
    """

    message_id: str
    type: str
    time: datetime
    history: str
    event: Event | None
    id_pass: IdPass | None
    data: Mapping[str, Any]


def verify(
    body: bytes | str,
    headers: Mapping[str, str],
    secret: str | Sequence[str],
    *,
    tolerance: float = TOLERANCE_S,
) -> WebhookEvent:
    """Checks that a request comes from the service, and reads its event.

    Args:
        body: the request's body exactly as it came, not parsed and written again.
        headers: the request's headers, in any case.
        secret: that of the webhook, `whsec_…`; or several, of which one has to fit.
        tolerance: largest difference between the sender's clock and this machine's, seconds. It
            bounds how long a request that someone recorded can be sent again.

    Raises:
        WebhookVerificationError: the request is not to be trusted.
        ValueError: a secret is malformed.
        TypeError: the body is not bytes or text.
    """
    if not isinstance(body, (bytes, str)):
        raise TypeError(f"the body is {type(body).__name__}; pass it as it came, as bytes")
    content = _bytes(body) if isinstance(body, str) else body
    keys = [_key(each) for each in ([secret] if isinstance(secret, str) else secret)]
    by_name = {name.lower(): value for name, value in headers.items()}
    message_id, timestamp, signatures = (
        _header(by_name, f"webhook-{name}") for name in ("id", "timestamp", "signature")
    )
    _check_time(timestamp, tolerance)
    given = [_bytes(part[3:]) for part in signatures.split() if part.startswith("v1,")]
    for key in keys:
        expected = _signature(key, message_id, timestamp, content)
        if any([hmac.compare_digest(expected, each) for each in given]):  # noqa: C419 no early end
            return _read(message_id, content)
    raise WebhookVerificationError(
        "no signature fits the body and the secret; is the body passed as it came, and the secret "
        "that of this webhook?"
    )


def sign(body: bytes, message_id: str, timestamp: int, secret: str) -> str:
    """The value of the header `webhook-signature`, for tests of a receiver.

    Args:
        body: of the request.
        message_id: the header `webhook-id`.
        timestamp: the header `webhook-timestamp`, seconds since the epoch.
        secret: `whsec_…`.

    Raises:
        ValueError: the secret is malformed.
    """
    return f"v1,{_signature(_key(secret), message_id, str(timestamp), body).decode()}"


def _signature(key: bytes, message_id: str, timestamp: str, body: bytes) -> bytes:
    signed = _bytes(f"{message_id}.{timestamp}.") + body
    return base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest())


def _bytes(text: str) -> bytes:
    # Some frameworks hand over what is not UTF-8 as surrogates; it must not fit, nor raise.
    return text.encode(errors="surrogatepass")


def _key(secret: str) -> bytes:
    try:
        if not secret.startswith(PREFIX):
            raise ValueError(PREFIX)
        key = base64.b64decode(secret[len(PREFIX) :], validate=True)
    except (ValueError, binascii.Error):
        key = b""
    if not key:
        # Without the value: it is a secret.
        raise ValueError(f"the secret is not {PREFIX} and base64, as the service showed it")
    return key


def _header(headers: Mapping[str, str], name: str) -> str:
    value = headers.get(name)
    if not value:
        raise WebhookVerificationError(f"the header {name} is missing")
    return value


def _check_time(timestamp: str, tolerance_s: float) -> None:
    if not (timestamp.isascii() and timestamp.isdecimal() and len(timestamp) <= 15):  # noqa: PLR2004 centuries
        raise WebhookVerificationError("the header webhook-timestamp is not a number of seconds")
    age_s = time.time() - int(timestamp)
    if abs(age_s) > tolerance_s:
        raise WebhookVerificationError(
            f"the request was signed {abs(age_s):.0f} s {'ago' if age_s > 0 else 'from now'}, and "
            f"{tolerance_s:g} s are allowed; it may be a replay, or a clock is wrong"
        )


def _read(message_id: str, body: bytes) -> WebhookEvent:
    try:
        payload = json.loads(body)
        data = payload["data"]
        return WebhookEvent(
            message_id,
            payload["type"],
            _http_json.read_time(payload["timestamp"]),
            data.get("history", ""),
            _http_json.read_event(data["event"]) if "event" in data else None,
            _http_json.read_pass(data["id_pass"]) if "id_pass" in data else None,
            data,
        )
    except (
        *(ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError),
    ) as error:
        raise WebhookVerificationError(
            "the request is signed, but its body is not one that this version can read"
        ) from error
