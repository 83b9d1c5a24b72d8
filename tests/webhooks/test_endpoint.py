"""What is on its way to one endpoint: pure, with time in the test's hands."""

from collections.abc import Iterable

from idpass_server.delivery.endpoint import FRESH, PROBE_S, Endpoint, Item
from idpass_server.delivery.outbox import Message
from idpass_server.rules import webhooks as rules
from idpass_server.rules.records import Event
from idpass_server.rules.webhooks import (
    DELAYS_US,
    DOWN_FAILURES,
    MAX_WAITING,
    WINDOW,
    Attempt,
    DeliveryState,
    PausedReason,
    Webhook,
)
from idpass_server.store.webhooks import KEPT_DELIVERED, Pending

DAY_S = 86_400.0


def message(sequence: int, pass_id: str = "") -> Message:
    event = Event(
        "acme", sequence, pass_id or f"p{sequence}", "new", "cancelled", sequence, "ann",
        None, None, "r", "AUD", None, None, "", None,
    )  # fmt: skip
    return Message(event, b"body")


class Trial:
    """An endpoint and its time."""

    def __init__(self, pending: Iterable[Pending] = (), cursor: int = 0) -> None:
        webhook = Webhook(
            *("acme", "w", "https://example.com/", "", "active", "", 1, 0, cursor, 1, "ann", 0, 0)
        )
        self.now_s = 1_000.0
        self.endpoint = Endpoint(webhook, pending, self.now_us, self.now_s)

    @property
    def now_us(self) -> int:
        return int(self.now_s * 1e6)

    def add(self, *messages: Message) -> None:
        self.endpoint.add(messages, self.now_s)

    def take(self) -> Item | None:
        return self.endpoint.take(self.now_s)

    def takes(self) -> list[Item]:
        """All that may be sent now."""
        return list(iter(self.take, None))

    def settle(self, item: Item | None, code: int | None, retry_after_us: int = 0) -> None:
        assert item is not None
        attempt = Attempt(item.attempts + 1, self.now_us, 1, code, "" if code else "timeout")
        decision = rules.after(attempt, retry_after_us, 0.0)
        self.endpoint.settle(item, attempt, decision, self.now_us, self.now_s)

    def next(self) -> None:
        """Lets time pass until something may be sent."""
        next_s = self.endpoint.next_s()
        assert next_s is not None
        self.now_s = max(self.now_s, next_s)

    def states(self) -> dict[int, str]:
        """What would be stored of events."""
        progress = self.endpoint.progress()
        self.cursor = progress.webhook.cursor
        return {each.sequence: str(each.state) for each in progress.done}


def test_passes_go_side_by_side_up_to_the_window() -> None:
    trial = Trial()
    trial.add(*(message(n) for n in range(1, 21)))
    taken = trial.takes()
    assert [item.sequence for item in taken] == list(range(1, WINDOW + 1))
    trial.settle(taken[3], 200)
    assert [item.sequence for item in trial.takes()] == [WINDOW + 1]


def test_events_of_one_pass_go_one_after_the_other() -> None:
    trial = Trial()
    trial.add(message(1, "a"), message(2, "a"), message(3, "b"), message(4, "a"))
    first = trial.takes()
    assert [item.sequence for item in first] == [1, 3]
    for sequence in (2, 4):
        trial.settle(first[0], 200)
        first = trial.takes()
        assert [item.sequence for item in first] == [sequence]


def test_what_fails_holds_up_its_own_pass_only_and_the_cursor_passes_it() -> None:
    trial = Trial()
    trial.add(message(1, "a"), message(2, "b"), message(3, "a"), message(4, "b"))
    one, two = trial.takes()
    trial.settle(one, 500)
    trial.settle(two, 200)
    trial.settle(trial.take(), 200)
    assert trial.takes() == []
    assert trial.states() == {1: "pending", 2: "delivered", 3: "pending", 4: "delivered"}
    assert trial.cursor == 4
    trial.next()
    assert trial.now_s == 1_000.0 + DELAYS_US[0] / 1e6
    trial.settle(trial.take(), 200)
    trial.settle(trial.take(), 200)
    assert trial.states() == {1: "delivered", 3: "delivered"}


def test_the_cursor_stays_before_what_is_under_way() -> None:
    trial = Trial()
    trial.add(*(message(n) for n in range(1, 6)))
    taken = trial.takes()
    for item in taken[1:]:
        trial.settle(item, 200)
    trial.states()
    assert trial.cursor == 0
    trial.settle(taken[0], 200)
    trial.states()
    assert trial.cursor == 5


def test_events_that_are_not_wanted_move_the_cursor() -> None:
    trial = Trial()
    trial.endpoint.webhook = trial.endpoint.webhook._replace(wanted="expired")
    trial.add(message(1), message(2))
    assert trial.takes() == []
    assert trial.endpoint.dirty
    assert trial.states() == {}
    assert trial.cursor == 2


def test_after_the_last_attempt_an_event_is_given_up_and_the_next_of_its_pass_goes() -> None:
    trial = Trial()
    trial.add(message(1, "a"), message(2, "a"))
    for _ in range(len(DELAYS_US)):
        trial.settle(trial.take(), 400)
        assert trial.states()[1] == "pending"
        trial.next()
    trial.settle(trial.take(), 400)
    assert trial.states()[1] == "given_up"
    trial.next()
    item = trial.take()
    assert item is not None
    assert item.sequence == 2


def test_an_endpoint_that_fails_gets_one_request_at_a_time_until_it_is_back() -> None:
    trial = Trial()
    trial.add(*(message(n) for n in range(1, 31)))
    for item in trial.takes():
        trial.settle(item, 500)
        break
    taken = [item for item in [trial.take()] if item is not None]
    assert taken == []  # the others of the window are under way
    assert trial.endpoint.in_flight == WINDOW - 1


def test_an_endpoint_that_is_down_gets_what_is_due_again_and_now_and_then_a_new_event() -> None:
    trial = Trial()
    trial.add(*(message(n) for n in range(1, 31)))
    for item in trial.takes():
        trial.settle(item, None)
    assert trial.take() is None
    tried = []
    while trial.now_s < 1_000.0 + DAY_S:
        trial.next()
        probe = trial.take()
        assert probe is not None
        assert trial.take() is None
        tried.append((probe.sequence, probe.attempts))
        trial.settle(probe, None)
    new = [sequence for sequence, attempts in tried if not attempts]
    assert len(tried) > len(new)
    assert new == list(range(WINDOW + 1, 31))
    # It is back: what failed with it follows at once.
    trial.next()
    trial.settle(trial.take(), 200)
    assert len(trial.takes()) == WINDOW


def test_what_is_refused_by_itself_is_not_hurried_when_the_receiver_is_back() -> None:
    trial = Trial()
    trial.add(*(message(n) for n in range(1, DOWN_FAILURES + 2)))
    for item in trial.takes():
        trial.settle(item, 400)
    trial.now_s += PROBE_S
    # Of those that are due again the first is taken.
    due = trial.take()
    trial.settle(due, 200)
    waiting = [item for item in trial.takes() if item.attempts > 1]
    assert waiting == []


def test_retry_after_of_a_busy_receiver_keeps_everything_back() -> None:
    trial = Trial()
    trial.add(message(1), message(2))
    first = trial.take()
    trial.settle(first, 503, retry_after_us=60_000_000)
    assert trial.take() is None
    trial.next()
    assert trial.now_s == 1_060.0
    assert trial.take() is not None


def test_410_pauses_and_keeps_the_event() -> None:
    trial = Trial()
    trial.add(message(1))
    trial.settle(trial.take(), 410)
    assert trial.endpoint.webhook.paused
    assert trial.endpoint.webhook.paused_reason == PausedReason.GONE
    assert trial.states() == {1: "pending"}


def test_five_days_without_one_success_pause_whatever_is_given_up_meanwhile() -> None:
    trial = Trial()
    sequence = 0
    while not trial.endpoint.webhook.paused:
        item = trial.take()
        if item is not None:
            trial.settle(item, 500)
        elif trial.endpoint.next_s() is not None:
            trial.next()
        else:  # all are given up
            sequence += 1
            trial.add(message(sequence))
    assert trial.endpoint.webhook.paused_reason == PausedReason.FAILING
    assert 5 * DAY_S <= trial.now_s - 1_000.0 < 6.5 * DAY_S


def test_a_clock_set_back_does_not_make_failing_look_young() -> None:
    trial = Trial()
    trial.add(message(1, "a"), message(2, "b"))
    one, two = trial.takes()
    trial.settle(one, 500)
    since_us = trial.endpoint.webhook.failing_since_us
    trial.now_s -= 100.0
    trial.settle(two, 500)
    assert since_us is not None
    assert trial.endpoint.webhook.failing_since_us == since_us - 100_000_000


def test_no_more_events_are_read_than_can_be_begun() -> None:
    trial = Trial()
    sequence = 0
    while trial.endpoint.wants_events(10_000):
        sequence += 1
        trial.add(message(sequence))
    assert sequence == FRESH
    for item in trial.takes():
        trial.settle(item, 200)
    assert trial.endpoint.wants_events(10_000)


def test_so_many_may_wait_and_no_more() -> None:
    pending = [Pending(n, f"p{n}", "t", 0, 1, 10**18) for n in range(1, MAX_WAITING + 1)]
    trial = Trial(pending, cursor=MAX_WAITING)
    assert not trial.endpoint.wants_events(10_000)
    assert trial.endpoint.settled == 0


def test_what_was_stored_goes_on_where_it_was() -> None:
    now_us = 1_000_000_000
    pending = [
        Pending(3, "a", "t", 0, 2, now_us + 1_000_000),
        Pending(5, "a", "t", 0, 0, 0),
        Pending(6, "b", "t", 0, 1, now_us - 5),
        Pending(7, "c", "t", 0, 1, now_us + 10**15),  # stored when the clock was ahead
    ]
    trial = Trial(pending, cursor=9)
    assert [item.sequence for item in trial.takes()] == [6]
    trial.now_s += 1.0
    assert [item.sequence for item in trial.takes()] == [3]
    trial.now_s += DELAYS_US[0] / 1e6 * 1.2
    assert [item.sequence for item in trial.takes()] == [7]
    trial.add(message(10, "a"))
    assert trial.states() == {10: "pending"}


def test_what_could_not_be_saved_is_saved_the_next_time() -> None:
    trial = Trial()
    trial.add(message(1), message(2))
    one, two = trial.takes()
    trial.settle(one, 500)
    progress = trial.endpoint.progress()
    assert not trial.endpoint.dirty
    trial.settle(two, 200)
    trial.endpoint.unsave(progress)
    again = trial.endpoint.progress()
    assert {each.sequence: each.state for each in again.done} == {
        1: DeliveryState.PENDING,
        2: DeliveryState.DELIVERED,
    }
    assert [sequence for sequence, _ in again.attempts] == [1, 2]


def test_what_could_not_be_saved_does_not_undo_what_came_since() -> None:
    trial = Trial()
    trial.add(message(1))
    trial.settle(trial.take(), 500)
    progress = trial.endpoint.progress()
    trial.next()
    trial.settle(trial.take(), 200)
    trial.endpoint.unsave(progress)
    assert trial.states() == {1: "delivered"}


def test_of_what_was_delivered_at_once_only_the_newest_get_a_row() -> None:
    trial = Trial()
    for sequence in range(1, 201):
        trial.add(message(sequence))
        trial.settle(trial.take(), 200)
    assert list(trial.states()) == list(range(201 - KEPT_DELIVERED, 201))
    assert trial.cursor == 200
