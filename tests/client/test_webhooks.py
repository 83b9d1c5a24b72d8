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
from standardwebhooks.webhooks import Webhook as StandardWebhook

from idpass import CancelReason, Status, _http_json, _read
from idpass import webhooks as idpass_webhooks
from idpass.v1 import id_pass_pb2 as pb
from idpass.webhooks import WebhookVerificationError, sign, verify
from idpass_server.gateway import messages

SECRET = "whsec_" + base64.b64encode(b"s" * 32).decode()
OTHER = "whsec_" + base64.b64encode(b"o" * 32).decode()
PASS_ID = "01932c07-0000-7000-8000-000000000001"


def cancelled_event() -> pb.IdPassEvent:
    event = pb.IdPassEvent(
        sequence=42,
        id_pass_id=PASS_ID,
        from_status=pb.ID_PASS_STATUS_OPENED,
        to_status=pb.ID_PASS_STATUS_CANCELLED,
        caller="billing",
        request_id="r-1",
        reason=pb.CANCEL_REASON_ABANDONED,
    )
    event.event_time.FromJsonString("2026-11-25T09:30:00.123456Z")
    event.refund.currency_code, event.refund.units, event.refund.nanos = "AUD", 4, 500_000_000
    return event


def cancelled_pass() -> pb.IdPass:
    id_pass = pb.IdPass(
        id=PASS_ID,
        account="acme",
        status=pb.ID_PASS_STATUS_CANCELLED,
        fee_refunded=True,
        applicant_reference="Zoë <b>",
        caller="billing",
    )
    id_pass.fee.currency_code, id_pass.fee.units, id_pass.fee.nanos = "AUD", 4, 500_000_000
    for field in ("create_time", "update_time", "expire_time", "end_time"):
        getattr(id_pass, field).FromJsonString("2026-11-25T09:30:00Z")
    id_pass.cancellation.reason = pb.CANCEL_REASON_ABANDONED
    id_pass.cancellation.note = "no answer\nfor a week"
    id_pass.cancellation.cancel_time.CopyFrom(id_pass.end_time)
    id_pass.cancellation.caller = "billing"
    return id_pass


def payload(kind: str = "id_pass.cancelled", **data: Any) -> bytes:
    value = {"type": kind, "timestamp": "2026-11-25T09:30:00.123456Z", "data": data}
    return json.dumps(value).encode()


BODY = payload(
    history="h-1",
    event=messages.render(cancelled_event()),
    id_pass=messages.render(cancelled_pass()),
)


def headers(body: bytes = BODY, at: float | None = None, *secrets: str) -> dict[str, str]:
    timestamp = int(time.time() if at is None else at)
    signatures = [sign(body, "msg_1", timestamp, secret) for secret in secrets or (SECRET,)]
    return {
        "Webhook-Id": "msg_1",
        "Webhook-Timestamp": str(timestamp),
        "Webhook-Signature": " ".join(signatures),
    }


def test_a_signed_event_is_read_as_the_client_reads_it() -> None:
    event = verify(BODY, headers(), SECRET)
    assert (event.message_id, event.type, event.history) == ("msg_1", "id_pass.cancelled", "h-1")
    assert event.time == datetime(2026, 11, 25, 9, 30, 0, 123456, tzinfo=timezone.utc)
    assert event.event == _read.event(cancelled_event())
    assert event.id_pass == _read.id_pass(cancelled_pass())
    assert event.event
    assert event.event.refund
    assert event.event.refund.amount == Decimal("4.50")
    assert event.event.reason is CancelReason.ABANDONED


def test_the_json_of_the_client_is_that_of_the_service() -> None:
    for message, read, show in (
        (cancelled_event(), _read.event, _http_json.event),
        (cancelled_pass(), _read.id_pass, _http_json.id_pass),
    ):
        assert show(read(message)) == messages.render(message)  # type: ignore[arg-type]


def test_signatures_are_those_of_standard_webhooks() -> None:
    assert StandardWebhook(SECRET).verify(BODY, headers()) == json.loads(BODY)
    at = datetime.now(timezone.utc)
    theirs = StandardWebhook(SECRET).sign("msg_1", at, BODY.decode())
    given = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": theirs,
    }
    assert verify(BODY, given, SECRET).message_id == "msg_1"


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
    shown = messages.render(cancelled_event()) | {"to_status": "suspended"}
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
