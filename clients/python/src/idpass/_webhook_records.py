"""What the methods for webhooks return, and the words of their enums."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from idpass._words import Status, Word


class WebhookState(Word):
    """Whether a webhook's events are delivered."""

    ACTIVE = "active", 1
    PAUSED = "paused", 2


class WebhookPauseReason(Word):
    """Why a webhook is paused."""

    REQUESTED = "requested", 1
    GONE = "gone", 2
    FAILING = "failing", 3


class WebhookDeliveryState(Word):
    """How far the delivery of one event has come."""

    PENDING = "pending", 1
    DELIVERED = "delivered", 2
    GIVEN_UP = "given_up", 3


AnyWebhookState = WebhookState | Literal["active", "paused"]


@dataclass(frozen=True)
class Webhook:
    """A URL that the account's events are sent to. Times are in UTC; None means not yet.

    Attributes:
        id: UUID of the webhook.
        statuses: the statuses whose events are sent; empty for all.
        pause_reason: why it is paused; None while it is active.
        cursor: sequence of the newest event that was taken up: it and those before it are
            delivered, given up, not wanted, or pending.
        caller: who created it.
        last_success_time: when the receiver last took an event.
        failing_since: since when every attempt has failed; None after a success.
        old_secret_expire_time: until when the secret before the last rotation signs too.
    """

    id: str
    url: str
    statuses: tuple[Status, ...]
    state: WebhookState
    pause_reason: WebhookPauseReason | None
    cursor: int
    create_time: datetime
    update_time: datetime
    caller: str
    last_success_time: datetime | None
    failing_since: datetime | None
    old_secret_expire_time: datetime | None


@dataclass(frozen=True)
class WebhookSecret:
    """A webhook with its secret, which no other answer shows.

    Attributes:
        secret: what the receiver verifies signatures with; not part of the repr.
        replayed: True if an earlier call with the same request_id created the webhook.
        request_id: gets the same answer again; "" if the call takes none.
    """

    webhook: Webhook
    secret: str = field(repr=False)
    replayed: bool = False
    request_id: str = ""


@dataclass(frozen=True)
class WebhookAttempt:
    """One attempt to deliver an event.

    Attributes:
        time: when it began, in UTC.
        duration_ms: how long it took, milliseconds.
        status_code: HTTP status of the answer; 0 without one.
        error: why there was no answer, or "".
        answer: the first 1,024 bytes of the answer's body, as text.
    """

    time: datetime
    duration_ms: int
    status_code: int
    error: str
    answer: str


@dataclass(frozen=True)
class WebhookDelivery:
    """The delivery of one event to one webhook.

    Attributes:
        sequence: of the event.
        id: UUID of the pass that changed.
        type: of the event, such as "id_pass.cancelled".
        message_id: the `webhook-id` header of every attempt.
        next_attempt_time: when it is tried next; None unless it is pending.
        attempt_count: number of attempts so far.
        attempts: the newest attempts, in order.
    """

    sequence: int
    id: str
    type: str
    message_id: str
    state: WebhookDeliveryState
    next_attempt_time: datetime | None
    attempt_count: int
    attempts: tuple[WebhookAttempt, ...]
