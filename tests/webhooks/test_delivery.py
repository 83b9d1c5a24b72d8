"""Every change is told to callers' URLs: signed, in order for each pass, none lost."""

import base64

import pytest
from standardwebhooks import WebhookVerificationError

from idpass_server.rules.webhooks import DeliveryState
from kit.hooked import Hooked
from kit.receiver import Receiver
from kit.support import eventually

pytestmark = pytest.mark.both_stores


def test_each_change_is_told_signed_and_in_order(hooked: Hooked, receiver: Receiver) -> None:
    webhook, secret = hooked.hook(receiver.url)
    pass_id = hooked.pass_in("opened")
    hooked.cancel(pass_id)
    requests = receiver.wait_for(3)
    payloads = [request.verified(secret) for request in requests]
    types = [payload["type"] for payload in payloads]
    assert types == ["id_pass.registered", "id_pass.opened", "id_pass.cancelled"]
    assert [request.sequence for request in requests] == [1, 2, 3]
    assert len({request.id for request in requests}) == 3
    last = payloads[-1]
    assert last["timestamp"] == last["data"]["event"]["event_time"]
    assert last["data"]["event"]["refund"] == {"currency": "AUD", "amount": "4.50"}
    assert last["data"]["id_pass"]["status"] == "cancelled"
    eventually(lambda: hooked.webhook(webhook.id).cursor == 3)
    deliveries = hooked.deliveries(webhook.id)
    assert [each.state for each, _ in deliveries] == [DeliveryState.DELIVERED] * 3
    assert [message_id for _, message_id in deliveries] == [each.id for each in requests[::-1]]
    (attempt,) = deliveries[0][0].attempts
    assert (attempt.status_code, attempt.answer) == (200, "ok")


def test_another_secret_does_not_verify(hooked: Hooked, receiver: Receiver) -> None:
    hooked.hook(receiver.url)
    hooked.register()
    (request,) = receiver.wait_for(1)
    with pytest.raises(WebhookVerificationError):
        request.verified(f"whsec_{base64.b64encode(bytes(32)).decode()}")
