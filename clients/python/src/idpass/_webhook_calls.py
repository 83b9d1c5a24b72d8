"""For each rpc of webhooks: how its request is built and its answer read. No I/O in here."""

from collections.abc import Iterable
from datetime import datetime
from typing import cast

from google.protobuf.timestamp_pb2 import Timestamp

from idpass import _read
from idpass._arguments import (
    Id,
    flag,
    new_request_id,
    request_id_or,
    several,
    status_number,
    text,
    text_id,
    whole,
    word_number,
)
from idpass._calls import Call
from idpass._webhook_records import (
    AnyWebhookState,
    Webhook,
    WebhookAttempt,
    WebhookDelivery,
    WebhookDeliveryState,
    WebhookPauseReason,
    WebhookSecret,
    WebhookState,
)
from idpass._words import AnyStatus
from idpass.v1 import webhook_pb2 as pb
from idpass.v1 import webhook_service_pb2 as service_pb

PAGE_SIZE = 100
TEST_TIMEOUT_S = 15.0
"""Default timeout of a test: the receiver has ten seconds. Seconds."""


def create(
    url: str,
    statuses: Iterable[AnyStatus],
    after_sequence: int | None,
    request_id: str | None,
) -> Call[WebhookSecret]:
    several("statuses", statuses)
    sent_id = request_id_or(request_id, new_request_id())
    request = service_pb.CreateWebhookRequest(
        url=text("url", url),
        statuses=[status_number("statuses", each) for each in statuses],
        after_sequence=None if after_sequence is None else whole("after_sequence", after_sequence),
        request_id=sent_id,
    )
    return Call(
        "CreateWebhook",
        request,
        lambda answer: WebhookSecret(
            webhook(answer.webhook), answer.secret, answer.replayed, sent_id
        ),
        changes=True,
        request_id=sent_id,
    )


def get(webhook_id: Id) -> Call[Webhook]:
    request = service_pb.GetWebhookRequest(id=_text_id(webhook_id))
    return Call("GetWebhook", request, lambda answer: webhook(answer.webhook))


def list_() -> Call[list[Webhook]]:
    return Call(
        "ListWebhooks",
        service_pb.ListWebhooksRequest(),
        lambda answer: [webhook(each) for each in answer.webhooks],
    )


def update(
    webhook_id: Id,
    url: str | None,
    statuses: Iterable[AnyStatus] | None,
    state: AnyWebhookState | None,
) -> Call[Webhook]:
    several("statuses", statuses)
    numbers = [status_number("statuses", each) for each in statuses or ()]
    request = service_pb.UpdateWebhookRequest(
        id=_text_id(webhook_id),
        url="" if url is None else text("url", url),
        statuses=numbers,
        all_statuses=statuses is not None and not numbers,
        state=cast(
            "pb.WebhookState.ValueType",
            0 if state is None else word_number(WebhookState, "state", state),
        ),
    )
    return Call("UpdateWebhook", request, lambda answer: webhook(answer.webhook), changes=True)


def delete(webhook_id: Id) -> Call[None]:
    request = service_pb.DeleteWebhookRequest(id=_text_id(webhook_id))
    return Call("DeleteWebhook", request, lambda _: None, changes=True)


def rotate_secret(webhook_id: Id, *, immediate: bool) -> Call[WebhookSecret]:
    request = service_pb.RotateWebhookSecretRequest(
        id=_text_id(webhook_id), immediate=flag("immediate", immediate)
    )
    return Call(
        "RotateWebhookSecret",
        request,
        lambda answer: WebhookSecret(webhook(answer.webhook), answer.secret),
        changes=True,
    )


def test(webhook_id: Id) -> Call[WebhookAttempt]:
    request = service_pb.TestWebhookRequest(id=_text_id(webhook_id))
    return Call("TestWebhook", request, lambda answer: _attempt(answer.attempt))


def redeliver(webhook_id: Id, sequence: int | None, from_sequence: int | None) -> Call[Webhook]:
    if (sequence is None) == (from_sequence is None):
        raise ValueError("give sequence for one event, or from_sequence for all from there on")
    request = service_pb.RedeliverWebhookEventsRequest(
        id=_text_id(webhook_id),
        sequence=whole("sequence", sequence or 0),
        from_sequence=whole("from_sequence", from_sequence or 0),
    )
    return Call(
        "RedeliverWebhookEvents", request, lambda answer: webhook(answer.webhook), changes=True
    )


class Deliveries:
    """The position of an iteration over pages of deliveries."""

    def __init__(self, webhook_id: Id) -> None:
        self._request = service_pb.ListWebhookDeliveriesRequest(
            id=_text_id(webhook_id), page_size=PAGE_SIZE
        )
        self.done = False

    def next_page(self) -> Call[list[WebhookDelivery]]:
        def read(answer: service_pb.ListWebhookDeliveriesResponse) -> list[WebhookDelivery]:
            self._request.page_token = answer.next_page_token
            self.done = not answer.next_page_token
            return [_delivery(message) for message in answer.deliveries]

        return Call("ListWebhookDeliveries", self._request, read)


def webhook(message: pb.Webhook) -> Webhook:
    return Webhook(
        message.id,
        message.url,
        tuple(_read.status(each) for each in message.statuses),
        _read.word(WebhookState, message.state),
        _read.word(WebhookPauseReason, message.pause_reason) if message.pause_reason else None,
        message.cursor,
        _read.time(message.create_time),
        _read.time(message.update_time),
        message.caller,
        _time(message, "last_success_time"),
        _time(message, "failing_since"),
        _time(message, "old_secret_expire_time"),
    )


def _delivery(message: pb.WebhookDelivery) -> WebhookDelivery:
    return WebhookDelivery(
        message.sequence,
        message.id_pass_id,
        message.type,
        message.message_id,
        _read.word(WebhookDeliveryState, message.state),
        _time(message, "next_attempt_time"),
        message.attempt_count,
        tuple(map(_attempt, message.attempts)),
    )


def _attempt(message: pb.WebhookAttempt) -> WebhookAttempt:
    return WebhookAttempt(
        _read.time(message.time),
        message.duration_ms,
        message.status_code,
        message.error,
        message.answer,
    )


def _time(message: pb.Webhook | pb.WebhookDelivery, field: str) -> datetime | None:
    value: Timestamp = getattr(message, field)
    return _read.time(value) if message.HasField(field) else None  # type: ignore[arg-type]


def _text_id(webhook_id: object) -> str:
    return text_id(webhook_id, of="a webhook")
