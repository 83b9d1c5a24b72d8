"""Records of webhooks as protobuf messages: one function for each message."""

from typing import Final

from idpass.v1 import webhook_pb2 as pb
from idpass_server.api.responses import status, timestamp
from idpass_server.rules.webhooks import (
    Attempt,
    Delivery,
    DeliveryState,
    PausedReason,
    State,
    Webhook,
)

_STATE: Final = {str(s): pb.WebhookState.Value(f"WEBHOOK_STATE_{s.name}") for s in State}
_PAUSED: Final = {
    str(PausedReason.NOT_PAUSED): pb.WEBHOOK_PAUSE_REASON_UNSPECIFIED,
    str(PausedReason.CALLER): pb.WEBHOOK_PAUSE_REASON_REQUESTED,
    str(PausedReason.GONE): pb.WEBHOOK_PAUSE_REASON_GONE,
    str(PausedReason.FAILING): pb.WEBHOOK_PAUSE_REASON_FAILING,
}
_DELIVERY: Final = {
    str(s): pb.WebhookDeliveryState.Value(f"WEBHOOK_DELIVERY_STATE_{s.name}") for s in DeliveryState
}


def webhook(record: Webhook, now_us: int) -> pb.Webhook:
    message = pb.Webhook(
        id=record.id,
        url=record.url,
        statuses=map(status, record.statuses),
        state=_STATE[record.state],
        pause_reason=_PAUSED[record.paused_reason],
        cursor=record.cursor,
        create_time=timestamp(record.create_time_us),
        update_time=timestamp(record.update_time_us),
        caller=record.caller,
    )
    if record.last_success_us is not None:
        message.last_success_time.CopyFrom(timestamp(record.last_success_us))
    if record.failing_since_us is not None:
        message.failing_since.CopyFrom(timestamp(record.failing_since_us))
    if len(record.generations(now_us)) > 1:
        message.old_secret_expire_time.CopyFrom(timestamp(record.previous_until_us))
    return message


def delivery(record: Delivery, message_id: str) -> pb.WebhookDelivery:
    message = pb.WebhookDelivery(
        sequence=record.sequence,
        id_pass_id=record.id_pass_id,
        type=record.event_type,
        message_id=message_id,
        state=_DELIVERY[record.state],
        attempt_count=record.attempts[-1].number if record.attempts else 0,
        attempts=map(attempt, record.attempts),
    )
    if record.next_time_us is not None:
        message.next_attempt_time.CopyFrom(timestamp(record.next_time_us))
    return message


def attempt(record: Attempt) -> pb.WebhookAttempt:
    return pb.WebhookAttempt(
        time=timestamp(record.time_us),
        duration_ms=record.duration_ms,
        status_code=record.status_code or 0,
        error=record.error,
        answer=record.answer,
    )
