"""Webhooks as callers manage them: over gRPC by both clients, over HTTP, on the command line."""

import asyncio
import base64
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook as StandardWebhook

from idpass import (
    AsyncIdPassClient,
    IdPassClient,
    InvalidRequest,
    NotFound,
    RequestIdReused,
    Status,
    TooManyWebhooks,
    WebhooksDisabled,
    _http_json,
)
from idpass.v1 import webhook_service_pb2, webhook_service_pb2_grpc
from idpass.webhooks import WebhookDeliveryState, WebhookPauseReason, sign, verify
from idpass_server.gateway import messages
from kit.client import Blocking
from kit.guarded import Guarded, caller
from kit.hooked import ALLOWED, Hooked, key_file
from kit.http import served
from kit.receiver import Receiver
from kit.serving import interruptible
from kit.support import UNKNOWN_ID, Service, eventually, refused

COMMAND = [sys.executable, "-m", "idpass.cli"]


@pytest.fixture(params=["sync", "async"])
def client(hooked: Hooked, request: pytest.FixtureRequest) -> Iterator[Any]:
    """A client of either kind, used in the same way."""
    if request.param == "sync":
        with IdPassClient(hooked.address) as sync:
            yield sync
        return
    loop = asyncio.new_event_loop()
    client = AsyncIdPassClient(hooked.address)
    yield Blocking(client, loop)
    loop.run_until_complete(client.close())
    loop.close()


@pytest.fixture
def webhooks(client: Any) -> Any:
    if isinstance(client, Blocking):
        return Blocking(client._client.webhooks, client._loop)
    return client.webhooks


def test_a_webhook_is_created_shown_changed_and_deleted(webhooks: Any, receiver: Receiver) -> None:
    made = webhooks.create(receiver.url, statuses=["cancelled", Status.EXPIRED])
    assert made.webhook == webhooks.get(made.webhook.id)
    assert [made.webhook] == webhooks.list()
    assert set(made.webhook.statuses) == {Status.CANCELLED, Status.EXPIRED}
    assert (made.webhook.state, made.webhook.pause_reason) == ("active", None)
    paused = webhooks.update(made.webhook.id, state="paused")
    assert (paused.state, paused.pause_reason) == ("paused", WebhookPauseReason.REQUESTED)
    changed = webhooks.update(made.webhook.id, url=f"{receiver.url}/2", statuses=[], state="active")
    assert (changed.url, changed.statuses) == (f"{receiver.url}/2", ())
    assert changed.state == "active"
    webhooks.delete(made.webhook.id)
    assert webhooks.list() == []
    with pytest.raises(NotFound) as missing:
        webhooks.get(made.webhook.id)
    assert missing.value.reason == "WEBHOOK_NOT_FOUND"


def test_an_event_arrives_and_is_verified_by_the_client_and_by_standard_webhooks(
    client: Any, webhooks: Any, receiver: Receiver
) -> None:
    made = webhooks.create(receiver.url)
    pass_id = client.register(applicant_reference="Zoë <b>").id_pass.id
    client.cancel(pass_id, note="gave up", reason="abandoned")
    requests = receiver.wait_for(2)
    registered, cancelled = (verify(r.body, r.headers, made.secret) for r in requests)
    assert (registered.type, cancelled.type) == ("id_pass.registered", "id_pass.cancelled")
    assert cancelled.id_pass == client.get(pass_id)
    assert cancelled.event
    assert cancelled.event.refund == client.get(pass_id).fee
    assert cancelled.history == client.account().history
    assert requests[1].verified(made.secret)["data"]["id_pass"]["status"] == "cancelled"


def test_a_lost_answer_of_a_creation_is_had_again_with_its_secret(
    webhooks: Any, receiver: Receiver
) -> None:
    made = webhooks.create(receiver.url, request_id="r-1")
    again = webhooks.create(receiver.url, request_id="r-1")
    assert (again.webhook.id, again.secret) == (made.webhook.id, made.secret)
    assert (made.replayed, again.replayed) == (False, True)
    with pytest.raises(RequestIdReused):
        webhooks.create(receiver.url, statuses=["cancelled"], request_id="r-1")


def test_a_rotated_secret_signs_beside_the_old_one_and_a_retry_rotates_no_further(
    client: Any, webhooks: Any, receiver: Receiver
) -> None:
    made = webhooks.create(receiver.url)
    rotated = webhooks.rotate_secret(made.webhook.id)
    assert rotated.secret != made.secret
    assert rotated.webhook.old_secret_expire_time
    assert webhooks.rotate_secret(made.webhook.id).secret == rotated.secret
    client.register()
    (request,) = receiver.wait_for(1)
    for secret in (made.secret, rotated.secret):
        assert verify(request.body, request.headers, secret).event
    at_once = webhooks.rotate_secret(made.webhook.id, immediate=True)
    assert at_once.secret not in (made.secret, rotated.secret)
    assert at_once.webhook.old_secret_expire_time is None


def test_a_test_event_is_sent_at_once_and_told(webhooks: Any, receiver: Receiver) -> None:
    made = webhooks.create(receiver.url)
    webhooks.update(made.webhook.id, state="paused")
    attempt = webhooks.test(made.webhook.id)
    assert (attempt.status_code, attempt.answer, attempt.error) == (200, "ok", "")
    (request,) = receiver.wait_for(1)
    event = verify(request.body, request.headers, made.secret)
    assert (event.type, event.event, event.id_pass) == ("webhook.test", None, None)
    receiver.answers = [500]
    assert webhooks.test(made.webhook.id).status_code == 500


def test_deliveries_are_listed_page_by_page_and_delivered_again(
    client: Any, webhooks: Any, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("idpass._webhook_calls.PAGE_SIZE", 2)
    made = webhooks.create(receiver.url)
    for _ in range(5):
        client.register()
    receiver.wait_for(5)

    def delivered() -> list[Any]:
        found = list(webhooks.deliveries(made.webhook.id))
        return [each for each in found if each.state is WebhookDeliveryState.DELIVERED]

    eventually(lambda: len(delivered()) == 5)
    found = delivered()
    assert [each.sequence for each in found] == [5, 4, 3, 2, 1]
    assert {each.message_id for each in found} == {each.id for each in receiver.requests}
    assert {each.type for each in found} == {"id_pass.registered"}
    assert [attempt.status_code for attempt in found[0].attempts] == [200]
    webhooks.redeliver(made.webhook.id, sequence=2)
    assert receiver.wait_for(6)[-1].sequence == 2
    webhooks.redeliver(made.webhook.id, from_sequence=4)
    # Perhaps 2 once more: whether it was taken was not stored when its webhook changed.
    eventually(lambda: {each.sequence for each in receiver.requests[6:]} >= {4, 5})
    assert len({each.id for each in receiver.requests}) == 5


@pytest.mark.parametrize("position", ["9223372036854775808", "9" * 30, "-1", "true", "1.0", '"1"'])
def test_a_page_token_with_a_position_that_no_event_has_is_refused(
    hooked: Hooked, receiver: Receiver, position: str
) -> None:
    webhook, _ = hooked.hook(receiver.url)
    token = base64.urlsafe_b64encode(f'["{webhook.id}",{position}]'.encode()).decode()
    stub = webhook_service_pb2_grpc.WebhookServiceStub(hooked.channel)
    request = webhook_service_pb2.ListWebhookDeliveriesRequest(id=webhook.id, page_token=token)
    error = refused(lambda: stub.ListWebhookDeliveries(request))
    assert error.reason == "INVALID_REQUEST"
    (violation,) = error.details["BadRequest"].field_violations  # type: ignore[attr-defined]
    assert violation.field == "page_token"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "is required"),
        ("http://93.184.216.34/hook", "https"),  # a name is judged by what it resolves to
        ("https://user:secret@example.com/", "user"),
        ("file:///etc/passwd", "https"),
        ("https://10.0.0.1/", "public"),
        ("https://example.com:22/", "port"),
        ("x" * 3_000, "2048"),
    ],
)
def test_a_url_that_may_not_be_called_is_refused_and_says_why(
    webhooks: Any, url: str, says: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        webhooks.create(url)
    (violation,) = refused.value.violations
    assert violation.field == "url"
    assert says in violation.description
    assert "secret" not in str(refused.value)


def test_several_faults_of_a_request_are_told_together(webhooks: Any, receiver: Receiver) -> None:
    with pytest.raises(InvalidRequest) as refused:
        webhooks.create("", after_sequence=-1, request_id="two words")
    assert {v.field for v in refused.value.violations} == {"url", "after_sequence", "request_id"}
    made = webhooks.create(receiver.url)
    with pytest.raises(ValueError, match="give sequence for one event, or from_sequence"):
        webhooks.redeliver(made.webhook.id)
    with pytest.raises(InvalidRequest):
        webhooks.redeliver(made.webhook.id, sequence=77)
    with pytest.raises(InvalidRequest):
        webhooks.get("no-uuid")


def test_there_is_a_limit_of_webhooks(webhooks: Any, receiver: Receiver) -> None:
    for _ in range(20):
        webhooks.create(receiver.url)
    with pytest.raises(TooManyWebhooks) as refused:
        webhooks.create(receiver.url)
    assert refused.value.webhook_limit == 20


def test_without_a_key_the_methods_say_so(service: Service) -> None:
    with IdPassClient(service.address) as client, pytest.raises(WebhooksDisabled) as refused:
        client.webhooks.list()
    assert "--webhook-key" in refused.value.message


def test_the_json_of_the_client_is_that_of_the_service(service: Service) -> None:
    """`idpass listen` writes what a webhook would."""
    pass_id = service.register(applicant_reference="Zoë <b>").id_pass.id
    service.cancel(pass_id, note="two\nlines")
    with IdPassClient(service.address) as client:
        assert _http_json.id_pass(client.get(pass_id)) == messages.render(service.get(pass_id))
        events = zip(client.watch(id=pass_id), service.events(id=pass_id), strict=True)
        for ours, theirs in events:
            assert _http_json.event(ours) == messages.render(theirs)


def test_signatures_are_those_of_standard_webhooks() -> None:
    secret = "whsec_" + base64.b64encode(b"s" * 32).decode()
    body = b'{"type":"webhook.test","timestamp":"2026-11-25T09:30:00Z","data":{}}'
    at = datetime.now(UTC)
    theirs = StandardWebhook(secret).sign("msg_1", at, body.decode())
    assert sign(body, "msg_1", int(at.timestamp()), secret) == theirs


# -- over HTTP


def test_webhooks_are_managed_over_http(receiver: Receiver, tmp_path: Path) -> None:
    options = ("--webhook-key", str(key_file(tmp_path)), "--webhook-allow", ALLOWED)
    with served(tmp_path / "http.db", *options) as http:

        def post(path: str, status: int = 200, **fields: Any) -> Any:
            answer = http.post(f"webhooks/{path}", **fields)
            assert answer.status_code == status, answer.text
            return answer.json()

        made = post("create", url=receiver.url, statuses=["cancelled"])
        assert made["secret"].startswith("whsec_")
        webhook = made["webhook"]
        assert (webhook["state"], webhook["statuses"]) == ("active", ["cancelled"])
        assert http.http.get("/idpass/webhooks").json()["webhooks"] == [webhook]
        named = {"id": webhook["id"]}
        assert post("details", **named)["webhook"] == webhook
        changed = post("update", **named, state="paused")["webhook"]
        assert (changed["state"], changed["pause_reason"]) == ("paused", "requested")
        assert post("test", **named)["attempt"]["status_code"] == 200
        assert post("rotate", **named)["secret"] != made["secret"]
        http.register()
        assert post("deliveries", **named)["deliveries"] == []
        assert post("redeliver", **named, from_sequence=1)["webhook"]["id"] == webhook["id"]
        assert post("delete", **named) == {}
        error = post("details", 404, **named)
        assert error["details"][0]["reason"] == "WEBHOOK_NOT_FOUND"
        unknown = post("update", 400, **named, state="asleep")
        assert "is none of active, paused" in str(unknown)


# -- on the command line


def idpass(address: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*COMMAND, *arguments],
        env=os.environ | {"IDPASS_ADDRESS": address},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.long
def test_webhooks_are_managed_on_the_command_line(hooked: Hooked, receiver: Receiver) -> None:
    run = idpass(
        *(hooked.address, "webhook", "create", receiver.url),
        *("--statuses", "new,cancelled", "--json"),
    )
    assert run.returncode == 0, run.stderr
    made = json.loads(run.stdout)
    webhook_id = made["webhook"]["id"]
    assert made["secret"].startswith("whsec_")
    shown = idpass(hooked.address, "webhook", "get", webhook_id)
    assert receiver.url in shown.stdout
    assert "whsec_" not in shown.stdout
    assert webhook_id in idpass(hooked.address, "webhook", "list").stdout
    paused = idpass(hooked.address, "webhook", "update", webhook_id, "--pause")
    assert "paused (requested)" in paused.stdout
    resumed = idpass(hooked.address, "webhook", "update", webhook_id, "--resume", "--json")
    assert json.loads(resumed.stdout)["state"] == "active"
    hooked.register()
    (request,) = receiver.wait_for(1)
    assert verify(request.body, request.headers, made["secret"]).event
    eventually(
        lambda: "delivered" in idpass(hooked.address, "webhook", "deliveries", webhook_id).stdout
    )
    again = idpass(hooked.address, "webhook", "redeliver", webhook_id, "--sequence", "1")
    assert again.returncode == 0
    receiver.wait_for(2)
    assert "whsec_" in idpass(hooked.address, "webhook", "rotate", webhook_id).stdout
    assert idpass(hooked.address, "webhook", "test", webhook_id).returncode == 0
    receiver.answers = [503]
    failed = idpass(hooked.address, "webhook", "test", webhook_id)
    assert failed.returncode == 1
    assert "503" in failed.stdout
    assert idpass(hooked.address, "webhook", "delete", webhook_id).returncode == 0
    assert idpass(hooked.address, "webhook", "get", webhook_id).returncode == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("create", "https://example.com", "--statuses", "gone"), "'gone' is not `all`"),
        (("update", UNKNOWN_ID), "nothing to change"),
        (("redeliver", UNKNOWN_ID), "give --sequence for one event, or --from"),
        (("create",), "Missing argument 'URL'"),
    ],
)
def test_a_wrong_command_line_is_told(arguments: tuple[str, ...], says: str) -> None:
    run = idpass("127.0.0.1:1", "webhook", *arguments)
    assert run.returncode == 2
    assert says in run.stderr


# -- idpass listen


@contextlib.contextmanager
def listening(hooked: Hooked, url: str, position: Path, *options: str) -> Iterator[Any]:
    """`idpass listen`, stopped at the end as by Ctrl-C. Yields it, with its secret."""
    command = interruptible(
        *(*COMMAND, "listen", "--json", "--forward-to", url, "--position", str(position), *options)
    )
    env = os.environ | {"IDPASS_ADDRESS": hooked.address, "PYTHONUNBUFFERED": "1"}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env=env, text=True, **pipes) as program:
        assert program.stderr
        program.stderr.readline()
        secret = program.stderr.readline().removeprefix("Signing secret: ").strip()
        try:
            yield program, secret
            program.send_signal(signal.SIGINT)
            program.wait(30)
        finally:
            program.kill()
            program.communicate()
    assert program.returncode == 130


def test_listen_forwards_each_event_signed_and_goes_on_where_it_stopped(
    hooked: Hooked, receiver: Receiver, tmp_path: Path
) -> None:
    hooked.register()  # before it listens, and not its business
    position = tmp_path / "position.json"
    with listening(hooked, receiver.url, position) as (program, secret):
        pass_id = hooked.pass_in("cancelled")
        requests = receiver.wait_for(2)
        events = [verify(r.body, r.headers, secret) for r in requests]
        assert [each.type for each in events] == ["id_pass.registered", "id_pass.cancelled"]
        assert events[1].id_pass
        assert events[1].id_pass.id == pass_id
        shown = json.loads(program.stdout.readline())
        assert (shown["type"], shown["status_code"]) == ("id_pass.registered", 200)
        eventually(lambda: json.loads(position.read_text())["sequence"] == 3)
    assert position.stat().st_mode & 0o077 == 0
    hooked.register()
    receiver.answers = [500]
    with listening(hooked, receiver.url, position) as (program, again):
        assert again == secret
        shown = json.loads(program.stdout.readline())
        assert (shown["event"]["sequence"], shown["status_code"]) == (4, 500)
    assert len(receiver.requests) == 3


def test_listen_says_what_no_receiver_answers(hooked: Hooked, tmp_path: Path) -> None:
    with Receiver() as gone:
        url = gone.url
    with listening(hooked, url, tmp_path / "p.json") as (program, _):
        hooked.register()
        shown = json.loads(program.stdout.readline())
        assert (shown["status_code"], shown["answer"]) == (0, "")
        assert "refused" in shown["error"]


def test_listen_refuses_what_is_no_url_and_no_position(hooked: Hooked, tmp_path: Path) -> None:
    wrong = idpass(hooked.address, "listen", "--forward-to", "localhost:3000")
    assert wrong.returncode == 2
    assert "is not a URL such as http://localhost:3000/hook" in wrong.stderr
    (tmp_path / "p.json").write_text("hello")
    broken = idpass(
        *(hooked.address, "listen", "--forward-to", "http://localhost:1/"),
        *("--position", str(tmp_path / "p.json")),
    )
    assert broken.returncode == 2
    assert "is not a position of `idpass listen`" in broken.stderr


# -- another account's


def test_another_accounts_webhook_does_not_exist(receiver: Receiver, tmp_path: Path) -> None:
    server = Guarded(
        tmp_path,
        *(caller("ann"), caller("bob", "beta")),
        webhook_key=str(key_file(tmp_path)),
        webhook_allow=ALLOWED,
    )
    ways: dict[str, Callable[[Any, str], Any]] = {
        "get": lambda webhooks, each: webhooks.get(each),
        "update": lambda webhooks, each: webhooks.update(each, state="paused"),
        "delete": lambda webhooks, each: webhooks.delete(each),
        "rotate": lambda webhooks, each: webhooks.rotate_secret(each),
        "test": lambda webhooks, each: webhooks.test(each),
        "deliveries": lambda webhooks, each: list(webhooks.deliveries(each)),
        "redeliver": lambda webhooks, each: webhooks.redeliver(each, from_sequence=1),
    }
    with (
        IdPassClient(server.address, token="ann-token") as ann,
        IdPassClient(server.address, token="bob-token") as bob,
    ):
        ann.register()
        bob.register()
        made = ann.webhooks.create(receiver.url)
        assert bob.webhooks.list() == []
        for way in ways.values():
            told = []
            for webhook_id in (made.webhook.id, UNKNOWN_ID):
                with pytest.raises(NotFound) as refused:
                    way(bob.webhooks, webhook_id)
                error = refused.value
                assert error.metadata == {"id": webhook_id}
                told.append((error.reason, error.message.replace(webhook_id, "ID")))
            assert told[0] == told[1] == ("WEBHOOK_NOT_FOUND", told[0][1])
        assert ann.webhooks.get(made.webhook.id) == made.webhook
        bob.register()
        ann.register()
        (request,) = receiver.wait_for(1)
        assert verify(request.body, request.headers, made.secret).id_pass.account == "acme"  # type: ignore[union-attr]
        assert len(receiver.requests) == 1
    server.stop()
