"""Signatures, as the service makes them and a receiver's library reads them."""

import pytest
from standardwebhooks import Webhook as Receiver
from standardwebhooks import WebhookVerificationError

from idpass_server.delivery.signing import Secrets
from idpass_server.engine.clock import wall_us
from idpass_server.rules.webhooks import State, Webhook

OLD, NEW, FOREIGN = (Secrets([letter * 32]) for letter in (b"o", b"n", b"f"))
BOTH = Secrets([b"n" * 32, b"o" * 32])
WEBHOOK = Webhook(
    account="demo",
    id="00000000-0000-7000-8000-000000000001",
    url="https://example.com/hook",
    wanted="",
    state=State.ACTIVE,
    paused_reason="",
    generation=2,
    previous_until_us=0,
    cursor=0,
    version=1,
    caller="demo",
    create_time_us=0,
    update_time_us=0,
)


def is_verified(
    secrets: Secrets, webhook: Webhook, secret: str, now_us: int | None = None, **changed: str
) -> bool:
    headers = secrets.headers(webhook, "msg_1", b"{}", now_us or wall_us()) | changed
    try:
        Receiver(secret).verify(b"{}", headers)
    except WebhookVerificationError:
        return False
    return True


def test_every_key_of_the_file_signs_and_the_first_one_makes_secrets() -> None:
    assert BOTH.secret(WEBHOOK) == NEW.secret(WEBHOOK)
    assert is_verified(BOTH, WEBHOOK, NEW.secret(WEBHOOK))
    assert is_verified(BOTH, WEBHOOK, OLD.secret(WEBHOOK))
    assert not is_verified(BOTH, WEBHOOK, FOREIGN.secret(WEBHOOK))
    assert not is_verified(NEW, WEBHOOK, OLD.secret(WEBHOOK))


@pytest.mark.parametrize("signs", [True, False])
def test_the_former_generation_signs_until_its_time_is_over(*, signs: bool) -> None:
    former = NEW.secret(WEBHOOK._replace(generation=1))
    now_us = wall_us()
    rotated = WEBHOOK._replace(previous_until_us=now_us + signs)
    assert is_verified(NEW, rotated, NEW.secret(WEBHOOK), now_us)
    assert is_verified(NEW, rotated, former, now_us) is signs


@pytest.mark.parametrize("header", ["webhook-id", "webhook-timestamp"])
def test_id_and_time_are_signed_too(header: str) -> None:
    sent = NEW.headers(WEBHOOK, "msg_1", b"{}", wall_us())
    other = str(int(sent[header]) - 1) if header == "webhook-timestamp" else "msg_2"
    assert is_verified(NEW, WEBHOOK, NEW.secret(WEBHOOK))
    assert not is_verified(NEW, WEBHOOK, NEW.secret(WEBHOOK), None, **{header: other})
