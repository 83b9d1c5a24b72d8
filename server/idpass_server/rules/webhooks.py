"""Webhooks: what is stored of an endpoint, and what follows an attempt to deliver an event to it.

Times (`_us`) are in microseconds since the epoch, UTC. Everything is a function of its arguments:
the jitter is one of them.
"""

import hashlib
from enum import StrEnum
from typing import Final, NamedTuple

from idpass_server.rules.records import Event, Status

SECOND_US: Final = 1_000_000
MINUTE_US: Final = 60 * SECOND_US
HOUR_US: Final = 60 * MINUTE_US

DELAYS_US: Final = (
    *(5 * SECOND_US, 5 * MINUTE_US, 30 * MINUTE_US, 2 * HOUR_US, 5 * HOUR_US),
    *(10 * HOUR_US, 14 * HOUR_US, 20 * HOUR_US, 24 * HOUR_US),
)
"""Delays before the second, third, … attempt; those of Standard Webhooks. After the last attempt
the event is given up."""
MAX_DELAY_US: Final = DELAYS_US[-1]
"""Longest delay that a Retry-After header is honoured for."""
JITTER: Final = 0.2
"""Largest part that a random number adds to a delay."""
FAILING_US: Final = 5 * 24 * HOUR_US
"""Time without one success after which an endpoint is paused."""
ROTATION_US: Final = 24 * HOUR_US
"""How long the previous secret signs as well after a rotation."""
MAX_WEBHOOKS: Final = 20
"""Number of endpoints that an account may have."""
WINDOW: Final = 8
"""Number of passes whose events are on their way to one endpoint at the same time."""
MAX_WAITING: Final = 1_000
"""Number of events of one endpoint that wait for another attempt, or behind one that does; at this
number no further event is begun."""
DOWN_FAILURES: Final = 8
"""Number of failures in a row from which an endpoint counts as down."""
ANSWER_BYTES: Final = 1_024
"""Length of the part of an answer that is kept."""

TEST_TYPE: Final = "webhook.test"
_RECEIVER_DOWN: Final = frozenset({429, 502, 503, 504})
"""Status codes that say nothing about the event: another one would have got them as well."""
_RESTS: Final = frozenset({429, 503})
"""Status codes whose Retry-After is about the endpoint, not the event."""
_GONE: Final = 410


class State(StrEnum):
    """Whether an endpoint gets events."""

    ACTIVE = "active"
    PAUSED = "paused"


class PausedReason(StrEnum):
    """Why an endpoint is paused."""

    NOT_PAUSED = ""
    CALLER = "caller"
    GONE = "gone"
    FAILING = "failing"


class DeliveryState(StrEnum):
    """What has become of an event for one endpoint."""

    PENDING = "pending"
    DELIVERED = "delivered"
    GIVEN_UP = "given_up"


class Webhook(NamedTuple):
    """An endpoint; the field order is the column order of its table.

    Attributes:
        account: name of the account whose events it gets.
        id: UUID in lower case.
        url: where events are posted to.
        wanted: statuses whose events it gets, joined by commas; "" for all. See `statuses`.
        state: a State.
        paused_reason: a PausedReason.
        generation: of its secret, from 1; each rotation adds one.
        previous_until_us: until when the previous generation signs as well; 0 for not at all.
        cursor: sequence up to which every event was delivered or given up, or is pending.
        version: changes with every change that a caller makes.
        caller: who created it.
        create_time_us: when.
        update_time_us: when a caller last changed it.
        request_id: idempotency key of its creation, or None.
        request_digest: fingerprint of that request; None without a request_id.
        last_success_us: when an attempt last succeeded; None before the first.
        failing_since_us: of the first failure since the last success; None without one.
    """

    account: str
    id: str
    url: str
    wanted: str
    state: str
    paused_reason: str
    generation: int
    previous_until_us: int
    cursor: int
    version: int
    caller: str
    create_time_us: int
    update_time_us: int
    request_id: str | None = None
    request_digest: str | None = None
    last_success_us: int | None = None
    failing_since_us: int | None = None

    @property
    def statuses(self) -> tuple[Status, ...]:
        """The statuses whose events it gets; empty for all."""
        return tuple(Status(word) for word in self.wanted.split(",") if word)

    @property
    def paused(self) -> bool:
        """Whether it is left alone."""
        return self.state == State.PAUSED

    def wants(self, event: Event) -> bool:
        """Whether it gets an event."""
        return not self.wanted or event.to_status in self.wanted.split(",")

    def generations(self, now_us: int) -> tuple[int, ...]:
        """The generations of its secret that sign now, newest first."""
        if self.generation > 1 and now_us < self.previous_until_us:
            return self.generation, self.generation - 1
        return (self.generation,)


class Attempt(NamedTuple):
    """One POST and what came of it.

    Attributes:
        number: 1, 2, 3, … of its event.
        time_us: when it began.
        duration_ms: how long it took.
        status_code: of the answer; None without one.
        error: why there was no answer, one word or a few, such as "timeout"; "" with an answer.
        answer: the first ANSWER_BYTES of the answer's body.
    """

    number: int
    time_us: int
    duration_ms: int
    status_code: int | None
    error: str = ""
    answer: str = ""

    @property
    def succeeded(self) -> bool:
        return self.status_code is not None and 200 <= self.status_code < 300  # noqa: PLR2004


class Delivery(NamedTuple):
    """What has become of one event for one endpoint.

    Attributes:
        webhook_id: UUID of the endpoint.
        sequence: of the event.
        id_pass_id: UUID of the event's pass.
        event_type: such as "id_pass.cancelled".
        state: a DeliveryState.
        next_time_us: when it is tried next; None where it is not, or waits for an earlier event of
            its pass.
        attempts: in order; those before a redelivery are not kept.
    """

    webhook_id: str
    sequence: int
    id_pass_id: str
    event_type: str
    state: str
    next_time_us: int | None
    attempts: tuple[Attempt, ...] = ()


class Next(StrEnum):
    """What follows an attempt."""

    DELIVERED = "delivered"
    RETRY = "retry"
    GIVE_UP = "give_up"
    PAUSE = "pause"


class Decision(NamedTuple):
    """What follows an attempt.

    Attributes:
        next: what.
        delay_us: before the next attempt; 0 where there is none.
        rest_us: how long the endpoint asks to be left alone altogether; 0 for not at all.
    """

    next: Next
    delay_us: int = 0
    rest_us: int = 0


def after(attempt: Attempt, retry_after_us: int, jitter: float) -> Decision:
    """Decides what follows an attempt.

    Args:
        attempt: the attempt.
        retry_after_us: what the answer's Retry-After asks for; 0 without one.
        jitter: random, from 0 to 1.
    """
    if attempt.succeeded:
        return Decision(Next.DELIVERED)
    if attempt.status_code == _GONE:
        return Decision(Next.PAUSE)
    if attempt.number > len(DELAYS_US):
        return Decision(Next.GIVE_UP)
    asked_us = min(max(retry_after_us, 0), MAX_DELAY_US)
    delay_us = max(asked_us, DELAYS_US[attempt.number - 1])
    return Decision(
        Next.RETRY,
        delay_us + int(delay_us * JITTER * jitter),
        asked_us if attempt.status_code in _RESTS else 0,
    )


def longest_delay_us(attempts: int) -> int:
    """The longest delay that the schedule has after a number of attempts.

    A stored time of the next attempt that is further ahead was written by another clock.
    """
    delay_us = DELAYS_US[min(max(attempts, 1), len(DELAYS_US)) - 1]
    return delay_us + int(delay_us * JITTER)


def is_failing(webhook: Webhook, now_us: int) -> bool:
    """Whether an endpoint has failed for so long that it is paused."""
    return webhook.failing_since_us is not None and now_us - webhook.failing_since_us >= FAILING_US


def says_down(attempt: Attempt) -> bool:
    """Whether a failure is one of the receiver as a whole, and says nothing about the event."""
    return attempt.status_code is None or attempt.status_code in _RECEIVER_DOWN


def event_type(event: Event) -> str:
    """The type of an event, as its payload says it."""
    if event.from_status is None:
        return "id_pass.registered"
    return "id_pass.erased" if event.erased else f"id_pass.{event.to_status}"


def rotated(webhook: Webhook, now_us: int, *, immediate: bool) -> Webhook:
    """An endpoint with its next secret; the former one signs as well for ROTATION_US.

    Args:
        webhook: the endpoint. While a former secret still signs, it stays as it is, so that a
            rotation whose answer was lost can be repeated.
        now_us: the time.
        immediate: give it another secret in any case, and let no former one sign.
    """
    if immediate:
        return webhook._replace(generation=webhook.generation + 1, previous_until_us=0)
    if now_us < webhook.previous_until_us:
        return webhook
    return webhook._replace(
        generation=webhook.generation + 1, previous_until_us=now_us + ROTATION_US
    )


def paused(webhook: Webhook, reason: PausedReason) -> Webhook:
    """An endpoint that is left alone from now on."""
    return webhook._replace(state=State.PAUSED, paused_reason=reason)


def resumed(webhook: Webhook) -> Webhook:
    """An endpoint that gets events again, with its record of failures wiped."""
    return webhook._replace(
        state=State.ACTIVE, paused_reason=PausedReason.NOT_PAUSED, failing_since_us=None
    )


def message_id(history: str, account: str, sequence: int, webhook_id: str) -> str:
    """The `webhook-id` of an event for an endpoint: the same for every attempt.

    A hash, since it names what a receiver should not have to parse.
    """
    text = f"{history}.{account}.{sequence}.{webhook_id}"
    return f"msg_{hashlib.sha256(text.encode()).hexdigest()[:32]}"


def request_digest(url: str, statuses: str, after_sequence: int | None) -> str:
    """Fingerprint of a request to create an endpoint, compared when its request_id comes again."""
    text = ascii((url, statuses, after_sequence))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
