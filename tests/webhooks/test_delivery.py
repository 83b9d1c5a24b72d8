"""Every change is told to callers' URLs: signed, in order for each pass, none lost."""

import asyncio
import threading
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from idpass_server.delivery import endpoint
from idpass_server.rules import webhooks as rules
from idpass_server.rules.refusals import WebhookNotFound
from idpass_server.rules.webhooks import DeliveryState, PausedReason
from kit.hooked import Hooked
from kit.receiver import Answer, Receiver, Request, receivers
from kit.support import eventually, set_account

pytestmark = pytest.mark.both_stores


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries that follow at once."""
    monkeypatch.setattr(rules, "DELAYS_US", (1_000,) * 9)
    monkeypatch.setattr(endpoint, "PROBE_S", 0.01)


def states(hooked: Hooked, webhook_id: str) -> dict[int, str]:
    return {each.sequence: each.state for each, _ in hooked.deliveries(webhook_id)}


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
    assert last["data"]["history"] == hooked.account().history
    assert last["data"]["event"]["refund"] == {"currency": "AUD", "amount": "4.50"}
    assert last["data"]["id_pass"]["status"] == "cancelled"
    eventually(lambda: hooked.webhook(webhook.id).cursor == 3)
    deliveries = hooked.deliveries(webhook.id)
    assert [each.state for each, _ in deliveries] == [DeliveryState.DELIVERED] * 3
    assert [message_id for _, message_id in deliveries] == [each.id for each in requests[::-1]]
    (attempt,) = deliveries[0][0].attempts
    assert (attempt.status_code, attempt.answer) == (200, "ok")


def test_a_failure_is_tried_again_with_the_same_id_and_holds_up_its_own_pass_only(
    hooked: Hooked, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "DELAYS_US", (10_000,) * 10_000)
    held = threading.Event()

    def answer(request: Request) -> Any:
        if request.pass_id == stuck and not held.is_set():
            return Answer(500, (), b"not now")
        return 200

    stuck = ""
    webhook, _ = hooked.hook(receiver.url)
    receiver.answers = [answer]
    stuck = hooked.register().id_pass.id
    hooked.cancel(stuck)
    others = [hooked.register().id_pass.id for _ in range(20)]

    def came() -> dict[str, list[Request]]:
        found = defaultdict(list)
        for request in list(receiver.requests):
            found[request.pass_id].append(request)
        return found

    eventually(lambda: set(others) <= came().keys())
    eventually(lambda: len(came()[stuck]) > 2)
    held.set()
    eventually(lambda: came()[stuck][-1].json["type"] == "id_pass.cancelled")
    sent = came()[stuck]
    assert {request.sequence for request in sent[:-1]} == {1}
    assert len({request.id for request in sent[:-1]}) == 1
    assert sent[-1].id != sent[0].id
    eventually(lambda: set(states(hooked, webhook.id).values()) == {"delivered"})
    first = next(each for each, _ in hooked.deliveries(webhook.id) if each.sequence == 1)
    assert [each.status_code for each in first.attempts] == [500] * (len(sent) - 2) + [200]
    assert first.attempts[0].answer == "not now"


@pytest.mark.usefixtures("quick")
def test_what_was_given_up_can_be_delivered_again(hooked: Hooked, receiver: Receiver) -> None:
    webhook, _ = hooked.hook(receiver.url)
    receiver.answers = [500]
    pass_id = hooked.register().id_pass.id
    eventually(lambda: states(hooked, webhook.id) == {1: "given_up"})
    assert len(receiver.requests) == 10
    receiver.answers = [200]
    hooked.cancel(pass_id)  # what follows is not held up for ever
    receiver.wait_for(11)
    assert receiver.requests[-1].sequence == 2
    # Before it is saved, the endpoint that a redelivery changes would begin with it again.
    eventually(lambda: states(hooked, webhook.id) == {1: "given_up", 2: "delivered"})
    hooked.run(hooked.webhooks.redeliver("demo", webhook.id, sequence=1))
    again = receiver.wait_for(12)[-1]
    assert (again.sequence, again.id) == (1, receiver.requests[0].id)
    eventually(lambda: states(hooked, webhook.id) == {1: "delivered", 2: "delivered"})


def test_everything_from_a_sequence_can_be_delivered_again(
    hooked: Hooked, receiver: Receiver
) -> None:
    webhook, _ = hooked.hook(receiver.url)
    for _ in range(5):
        hooked.register()
    first = receiver.wait_for(5)
    eventually(lambda: hooked.webhook(webhook.id).cursor == 5)
    hooked.run(hooked.webhooks.redeliver("demo", webhook.id, from_sequence=3))
    again = receiver.wait_for(8)[5:]
    assert sorted(request.sequence for request in again) == [3, 4, 5]
    assert {each.id for each in again} < {each.id for each in first}


def test_a_new_endpoint_starts_now_or_after_a_sequence(hooked: Hooked, receiver: Receiver) -> None:
    for _ in range(3):
        hooked.register()
    with Receiver() as late:
        hooked.hook(receiver.url)
        hooked.hook(late.url, after_sequence=1)
        hooked.register()
        assert [each.sequence for each in receiver.wait_for(1)] == [4]
        assert sorted(each.sequence for each in late.wait_for(3)) == [2, 3, 4]


def test_only_the_statuses_that_are_wanted_are_sent(hooked: Hooked, receiver: Receiver) -> None:
    webhook, _ = hooked.hook(receiver.url, statuses=("cancelled",))
    hooked.cancel(hooked.pass_in("opened"))
    assert [each.json["type"] for each in receiver.wait_for(1)] == ["id_pass.cancelled"]
    eventually(lambda: hooked.webhook(webhook.id).cursor == 3)
    hooked.update(webhook.id, statuses=())
    hooked.register()
    assert receiver.wait_for(2)[1].json["type"] == "id_pass.registered"


def test_what_a_paused_endpoint_missed_follows(hooked: Hooked, receiver: Receiver) -> None:
    webhook, _ = hooked.hook(receiver.url)
    hooked.register()
    receiver.wait_for(1)
    eventually(lambda: hooked.webhook(webhook.id).cursor == 1)
    assert hooked.update(webhook.id, paused=True).paused_reason == PausedReason.CALLER
    eventually(lambda: not hooked.server._hooks.delivering._endpoints)  # type: ignore[union-attr]
    for _ in range(3):
        hooked.register()
    hooked.update(webhook.id, paused=False)
    assert sorted(each.sequence for each in receiver.wait_for(4)) == [1, 2, 3, 4]


def test_gone_pauses_and_a_caller_resumes(hooked: Hooked, receiver: Receiver) -> None:
    webhook, _ = hooked.hook(receiver.url)
    receiver.answers = [410]
    hooked.register()
    eventually(lambda: hooked.webhook(webhook.id).paused)
    assert hooked.webhook(webhook.id).paused_reason == PausedReason.GONE
    receiver.answers = [200]
    assert not hooked.update(webhook.id, paused=False).paused
    assert [each.sequence for each in receiver.wait_for(2)] == [1, 1]


def test_five_days_of_failures_pause(hooked: Hooked, receiver: Receiver) -> None:
    webhook, _ = hooked.hook(receiver.url)
    receiver.answers = [500]
    hooked.register()
    receiver.wait_for(1)
    eventually(lambda: hooked.webhook(webhook.id).failing_since_us is not None)
    hooked.time.advance(days=5.1)
    # Any change has it looked at again, with what is due.
    hooked.update(webhook.id, statuses=("new",))
    eventually(lambda: hooked.webhook(webhook.id).paused)
    assert hooked.webhook(webhook.id).paused_reason == PausedReason.FAILING


def test_a_disabled_account_gets_nothing_until_it_is_enabled(
    db: Path | str, hooked: Hooked, receiver: Receiver
) -> None:
    hooked.hook(receiver.url)
    pass_id = hooked.register().id_pass.id
    receiver.wait_for(1)
    set_account(db, disabled=True)
    delivering = hooked.server._hooks.delivering  # type: ignore[union-attr]
    eventually(lambda: not delivering._endpoints)
    hooked.time.advance(days=8)  # only its passes' time goes on
    eventually(lambda: hooked.get(pass_id).status == 5)
    set_account(db, disabled=False)
    assert [each.json["type"] for each in receiver.wait_for(2)][1] == "id_pass.expired"


def test_both_secrets_sign_after_a_rotation(hooked: Hooked, receiver: Receiver) -> None:
    webhook, secret = hooked.hook(receiver.url)
    _, new = hooked.run(hooked.webhooks.rotate_secret("demo", webhook.id))
    assert new != secret
    assert hooked.run(hooked.webhooks.rotate_secret("demo", webhook.id))[1] == new
    hooked.register()
    (request,) = receiver.wait_for(1)
    assert request.verified(secret) == request.verified(new)
    _, last = hooked.run(hooked.webhooks.rotate_secret("demo", webhook.id, immediate=True))
    hooked.register()
    request = receiver.wait_for(2)[1]
    request.verified(last)
    assert request.headers["webhook-signature"].count("v1,") == 1


def test_a_test_event_is_sent_once_and_told(hooked: Hooked, receiver: Receiver) -> None:
    webhook, secret = hooked.hook(receiver.url)
    receiver.answers = [Answer(404, (), b"where?")]
    attempt = hooked.run(hooked.webhooks.test("demo", webhook.id))
    assert (attempt.status_code, attempt.answer) == (404, "where?")
    (request,) = receiver.requests
    assert request.verified(secret)["type"] == "webhook.test"
    assert hooked.deliveries(webhook.id) == []


def test_a_restart_goes_on_where_it_was(db: Path | str, tmp_path: Path, receiver: Receiver) -> None:
    receiver.answers = [200, 503]
    first = Hooked(db, tmp_path, drain_s=1.0)
    webhook, secret = first.hook(receiver.url)
    first.register()
    first.register()
    receiver.wait_for(2)
    first.stop()
    receiver.answers = [200]
    again = Hooked(db, tmp_path, drain_s=1.0, time=first.time)
    try:
        again.register()
        again.update(webhook.id, paused=True)  # what waits is due once it is resumed
        again.update(webhook.id, paused=False)
        eventually(lambda: {each.sequence for each in receiver.requests[2:]} >= {2, 3})
        by_sequence = {each.sequence: each for each in receiver.requests}
        assert by_sequence[2].id == receiver.requests[1].id
        by_sequence[3].verified(secret)
        assert 1 not in {each.sequence for each in receiver.requests[1:]}
    finally:
        again.stop()


def test_an_endpoint_that_is_deleted_while_a_request_is_under_way_gets_no_other(
    hooked: Hooked, receiver: Receiver
) -> None:
    deleted = threading.Event()

    async def slow(_reader: Any, writer: Any) -> None:
        while not deleted.is_set():
            await asyncio.sleep(0.01)
        writer.write(Answer(500).bytes())

    webhook, _ = hooked.hook(receiver.url)
    receiver.answers = [slow]
    pass_id = hooked.register().id_pass.id
    hooked.cancel(pass_id)
    receiver.wait_for(1)
    hooked.run(hooked.webhooks.delete("demo", webhook.id))
    delivering = hooked.server._hooks.delivering  # type: ignore[union-attr]
    eventually(lambda: not delivering._endpoints)
    deleted.set()
    eventually(lambda: not delivering._in_flight)
    assert len(receiver.requests) == 1
    with pytest.raises(WebhookNotFound):
        hooked.webhook(webhook.id)


def test_many_endpoints_each_get_everything(hooked: Hooked) -> None:
    with receivers(5) as all_of_them:
        for receiver in all_of_them:
            hooked.hook(receiver.url)
        for _ in range(10):
            hooked.cancel(hooked.register().id_pass.id)
        for receiver in all_of_them:
            got = [each.sequence for each in receiver.wait_for(20)]
            assert sorted(got) == list(range(1, 21))
            assert receiver.most_under_way <= rules.WINDOW
