"""Endpoints as callers manage them, straight at what the API asks."""

import functools
from collections.abc import Callable
from typing import Any

import pytest

from idpass_server.ids import new_uuid
from idpass_server.rules.refusals import (
    InvalidRequest,
    RequestIdReused,
    TooManyWebhooks,
    WebhookNotFound,
)
from idpass_server.rules.webhooks import MAX_WEBHOOKS
from kit.hooked import Hooked

URL = "https://example.com/hook"

pytestmark = pytest.mark.both_stores


def test_a_repeated_request_id_gives_the_same_endpoint_and_secret(hooked: Hooked) -> None:
    def create(url: str = URL, request_id: str = "r") -> tuple[str, str, bool]:
        made = hooked.run(hooked.webhooks.create("demo", "ann", url, ("new",), None, request_id))
        return made.webhook.id, made.secret, made.replayed

    webhook_id, secret, replayed = create()
    assert not replayed
    hooked.register()  # the newest event is another one by now
    assert create() == (webhook_id, secret, True)
    assert create(request_id="s")[0] != webhook_id
    with pytest.raises(RequestIdReused):
        create(url=f"{URL}2")
    assert len(hooked.run(hooked.webhooks.list("demo"))) == 2


def test_an_account_has_so_many_endpoints_and_no_more(hooked: Hooked) -> None:
    made = [hooked.hook(URL)[0].id for _ in range(MAX_WEBHOOKS)]
    with pytest.raises(TooManyWebhooks):
        hooked.hook(URL)
    listed = [each.id for each in hooked.run(hooked.webhooks.list("demo"))]
    assert listed == made
    hooked.run(hooked.webhooks.delete("demo", made[0]))
    hooked.hook(URL)


def test_another_accounts_endpoint_does_not_exist(hooked: Hooked) -> None:
    webhook, _ = hooked.hook(URL)
    webhooks = hooked.webhooks
    calls: list[Callable[..., Any]] = [
        *(webhooks.get, webhooks.delete, webhooks.rotate_secret, webhooks.test),
        functools.partial(webhooks.update, paused=True),
        functools.partial(webhooks.deliveries, limit=10),
        functools.partial(webhooks.redeliver, from_sequence=1),
    ]
    for account, webhook_id in (("acme", webhook.id), ("demo", new_uuid())):
        for call in calls:
            with pytest.raises(WebhookNotFound):
                hooked.run(call(account, webhook_id))
    assert hooked.webhook(webhook.id) == webhook
    assert hooked.run(webhooks.list("acme")) == []


def test_what_is_not_there_cannot_be_started_from_or_delivered_again(hooked: Hooked) -> None:
    webhook, _ = hooked.hook(URL)
    hooked.register()
    for field in (
        {"sequence": 2},
        {"sequence": 0},
        {"from_sequence": 3},
        {},
        {"sequence": 1, "from_sequence": 1},
    ):
        with pytest.raises(InvalidRequest):
            hooked.run(hooked.webhooks.redeliver("demo", webhook.id, **field))
    for after in (-1, 2):
        with pytest.raises(InvalidRequest):
            hooked.hook(URL, after_sequence=after)


def test_a_url_that_cannot_be_an_endpoints_changes_nothing(hooked: Hooked) -> None:
    webhook, _ = hooked.hook(URL)
    for url in ("http://169.254.169.254/", "https://user@example.com/", "file:///etc/passwd"):
        with pytest.raises(InvalidRequest):
            hooked.hook(url)
        with pytest.raises(InvalidRequest):
            hooked.update(webhook.id, url=url)
    assert hooked.run(hooked.webhooks.list("demo")) == [webhook]


def test_no_database_holds_a_secret(hooked: Hooked) -> None:
    webhook, secret = hooked.hook(URL)
    assert secret.removeprefix("whsec_") not in str(webhook)
    assert secret.startswith("whsec_")
