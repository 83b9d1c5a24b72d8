"""Receivers of webhooks: what `idpass.webhooks.verify` takes and what it refuses."""

import base64
import dataclasses
import json
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any

import pytest

from idpass import CancelReason, Event, Money, Status, _http_json
from idpass import webhooks as idpass_webhooks
from idpass.webhooks import WebhookVerificationError, sign, verify

SECRET = "whsec_" + base64.b64encode(b"s" * 32).decode()
OTHER = "whsec_" + base64.b64encode(b"o" * 32).decode()
PASS_ID = "01932c07-0000-7000-8000-000000000001"


EVENT = {
    "sequence": 42,
    "id_pass_id": PASS_ID,
    "from_status": "opened",
    "to_status": "cancelled",
    "event_time": "2026-11-25T09:30:00.123456Z",
    "caller": "billing",
    "request_id": "r-1",
    "refund": {"currency": "AUD", "amount": "4.50"},
    "reason": "abandoned",
    "erased": False,
    "reference": "01932c07-0000-7000-8000-00000000000f",
}
PASS = {
    "id": PASS_ID,
    "account": "acme",
    "status": "cancelled",
    "fee": {"currency": "AUD", "amount": "4.50"},
    "fee_refunded": True,
    "applicant_reference": "Zoë <b>",
    "create_time": "2026-11-25T09:30:00Z",
    "update_time": "2026-11-25T09:30:00.120Z",
    "expire_time": "2026-12-02T09:30:00Z",
    "end_time": "2026-11-25T09:30:00.120Z",
    "cancellation": {
        "reason": "abandoned",
        "note": "no answer\nfor a week",
        "cancel_time": "2026-11-25T09:30:00.120Z",
        "caller": "billing",
    },
    "caller": "billing",
}


def payload(kind: str = "id_pass.cancelled", **data: Any) -> bytes:
    value = {"type": kind, "timestamp": "2026-11-25T09:30:00.123456Z", "data": data}
    return json.dumps(value).encode()


BODY = payload(history="h-1", event=EVENT, id_pass=PASS)

DEEP = b"[" * 100_000


def headers(body: bytes = BODY, at: float | None = None, *secrets: str) -> dict[str, str]:
    timestamp = int(time.time() if at is None else at)
    signatures = [sign(body, "msg_1", timestamp, secret) for secret in secrets or (SECRET,)]
    return {
        "Webhook-Id": "msg_1",
        "Webhook-Timestamp": str(timestamp),
        "Webhook-Signature": " ".join(signatures),
    }


def test_a_signed_event_is_read() -> None:
    event = verify(BODY, headers(), SECRET)
    assert (event.message_id, event.type, event.history) == ("msg_1", "id_pass.cancelled", "h-1")
    at = datetime(2026, 11, 25, 9, 30, 0, 123456, tzinfo=timezone.utc)
    assert event.time == at
    assert event.event == Event(
        *(42, PASS_ID, Status.OPENED, Status.CANCELLED, at, "billing", "r-1"),
        refund=Money("AUD", Decimal("4.50")),
        reason=CancelReason.ABANDONED,
        reference="01932c07-0000-7000-8000-00000000000f",
    )
    assert event.id_pass
    assert event.id_pass.status is Status.CANCELLED
    assert event.id_pass.applicant_reference == "Zoë <b>"
    assert event.id_pass.cancellation
    assert event.id_pass.cancellation.note == "no answer\nfor a week"
    assert (event.id_pass.consent_time, event.id_pass.superseded_by) == (None, None)


def test_what_is_written_as_json_is_read_back() -> None:
    event, id_pass = _http_json.read_event(EVENT), _http_json.read_pass(PASS)
    assert _http_json.event(event) == EVENT
    assert _http_json.id_pass(id_pass) == PASS


def test_either_secret_will_do_while_one_is_rotated() -> None:
    both = headers(BODY, None, OTHER, SECRET)
    assert verify(BODY, both, SECRET).event
    assert verify(BODY, both, OTHER).event
    assert verify(BODY, headers(), [OTHER, SECRET]).event


def test_text_is_taken_as_well_as_bytes() -> None:
    assert verify(BODY.decode(), headers(), SECRET).event


def test_a_type_of_a_newer_service_is_read_as_far_as_it_goes() -> None:
    body = payload("account.closed", history="h-1", what="else")
    event = verify(body, headers(body), SECRET)
    assert (event.type, event.event, event.id_pass) == ("account.closed", None, None)
    assert event.data["what"] == "else"


def test_a_status_of_a_newer_service_keeps_its_word() -> None:
    shown = EVENT | {"to_status": "suspended"}
    body = payload("id_pass.suspended", history="h-1", event=shown)
    event = verify(body, headers(body), SECRET).event
    assert event
    assert event.to_status == "suspended"
    assert event.to_status not in set(Status)


def without(name: str) -> Mapping[str, str]:
    return {key: value for key, value in headers().items() if key.lower() != name}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (lambda: (BODY + b" ", headers()), "no signature fits"),
        (lambda: (BODY, headers(BODY, None, OTHER)), "no signature fits"),
        (lambda: (BODY, headers() | {"Webhook-Id": "msg_2"}), "no signature fits"),
        (lambda: (BODY, headers() | {"Webhook-Signature": "v1,"}), "no signature fits"),
        (lambda: (BODY, headers() | {"Webhook-Signature": "v1,é"}), "no signature fits"),
        (lambda: (BODY, headers() | {"Webhook-Signature": "v1,\udc80"}), "no signature fits"),
        (lambda: (BODY, headers() | {"Webhook-Id": "msg_1\udc80"}), "no signature fits"),
        (lambda: (BODY.decode() + "\udc80", headers()), "no signature fits"),
        (
            lambda: (BODY, headers() | {"Webhook-Signature": headers()["Webhook-Signature"][3:]}),
            "no signature fits",
        ),
        (lambda: (BODY, without("webhook-id")), "webhook-id is missing"),
        (lambda: (BODY, without("webhook-timestamp")), "webhook-timestamp is missing"),
        (lambda: (BODY, without("webhook-signature")), "webhook-signature is missing"),
        (lambda: (BODY, headers() | {"Webhook-Timestamp": "now"}), "not a number of seconds"),
        (lambda: (BODY, headers() | {"Webhook-Timestamp": "9" * 400}), "not a number of seconds"),
        (lambda: (BODY, headers() | {"Webhook-Timestamp": "٣"}), "not a number of seconds"),
        (lambda: (BODY, headers(BODY, time.time() - 400)), "may be a replay"),
        (lambda: (BODY, headers(BODY, time.time() + 400)), "from now"),
        (lambda: (b"[]", headers(b"[]")), "not one that this version can read"),
        (lambda: (b"\xff", headers(b"\xff")), "not one that this version can read"),
        (lambda: (DEEP, headers(DEEP)), "not one that this version can read"),
        (lambda: (payload(event={}), headers(payload(event={}))), "can read"),
        (lambda: (payload(event=3), headers(payload(event=3))), "can read"),
    ],
)
def test_what_is_not_to_be_trusted_is_refused_and_says_why(given: Any, says: str) -> None:
    body, with_headers = given()
    with pytest.raises(WebhookVerificationError, match=says):
        verify(body, with_headers, SECRET)


def test_the_tolerance_is_the_receivers_to_choose() -> None:
    assert verify(BODY, headers(BODY, time.time() - 400), SECRET, tolerance=3_600).event


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_!!", "s" * 40])
def test_a_malformed_secret_is_named_without_being_shown(secret: str) -> None:
    with pytest.raises(ValueError, match="the secret is not whsec_") as raised:
        verify(BODY, headers(), secret)
    assert not isinstance(raised.value, WebhookVerificationError)
    assert not secret or secret in "whsec_" or secret not in str(raised.value)


def test_a_parsed_body_is_refused() -> None:
    with pytest.raises(TypeError, match="the body is dict; pass it as it came"):
        verify(json.loads(BODY), headers(), SECRET)


def test_a_secret_is_not_in_the_repr_of_what_carries_it() -> None:
    now = datetime.now(timezone.utc)
    webhook = idpass_webhooks.Webhook(
        *("w", "https://example.com", (), idpass_webhooks.WebhookState.ACTIVE, None, 0),
        *(now, now, "me", None, None, None),
    )
    made = idpass_webhooks.WebhookSecret(webhook, SECRET)
    assert SECRET not in repr(made)
    assert dataclasses.asdict(made)["secret"] == SECRET
