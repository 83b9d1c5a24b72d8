"""Webhooks' rules: what follows an attempt, which secrets sign, what an event is called."""

import itertools

import pytest

from idpass_server.rules import webhooks as rules
from idpass_server.rules.records import Event
from idpass_server.rules.webhooks import (
    DELAYS_US,
    FAILING_US,
    HOUR_US,
    JITTER,
    MAX_DELAY_US,
    ROTATION_US,
    SECOND_US,
    Attempt,
    Next,
    PausedReason,
    Webhook,
)

NOW_US = 1_790_000_000 * SECOND_US
WEBHOOK = Webhook(
    *("acme", "w", "https://example.com/", "", "active", "", 1, 0, 0, 1, "ann", NOW_US, NOW_US)
)
EVENT = Event(
    *("acme", 7, "p", None, "new", NOW_US, "ann", None, None, "r", "AUD", 1, None, "", None)
)


def attempt(code: int | None, number: int = 1) -> Attempt:
    return Attempt(number, NOW_US, 1, code, "" if code else "timeout")


@pytest.mark.parametrize("code", [200, 201, 204, 299])
def test_2xx_is_delivered(code: int) -> None:
    assert rules.after(attempt(code), 5, 1.0) == rules.Decision(Next.DELIVERED)


@pytest.mark.parametrize("code", [None, 100, 199, 300, 302, 307, 400, 401, 404, 409, 500, 503])
def test_everything_else_is_tried_again_by_the_schedule_and_then_given_up(code: int | None) -> None:
    for number, delay_us in enumerate(DELAYS_US, start=1):
        decision = rules.after(attempt(code, number), 0, 0.0)
        assert decision[:2] == (Next.RETRY, delay_us)
    assert rules.after(attempt(code, len(DELAYS_US) + 1), 0, 0.0).next is Next.GIVE_UP


def test_the_schedule_is_that_of_standard_webhooks() -> None:
    hours = [0, 5 / 60, 0.5, 2, 5, 10, 14, 20, 24]
    assert [round(each / HOUR_US, 6) for each in DELAYS_US][1:] == [round(h, 6) for h in hours][1:]
    assert DELAYS_US[0] == 5 * SECOND_US


def test_jitter_only_adds() -> None:
    delays = [rules.after(attempt(500, 4), 0, each).delay_us for each in (0.0, 0.5, 1.0)]
    assert delays == sorted(delays)
    assert delays[0] == DELAYS_US[3]
    assert delays[-1] == DELAYS_US[3] * (1 + JITTER)


def test_retry_after_makes_a_delay_longer_up_to_a_day_and_never_shorter() -> None:
    for asked_us, delay_us in [
        (60 * SECOND_US, 60 * SECOND_US),
        (1, DELAYS_US[0]),
        (-1, DELAYS_US[0]),
        (10**18, MAX_DELAY_US),
    ]:
        assert rules.after(attempt(503), asked_us, 0.0).delay_us == delay_us


@pytest.mark.parametrize(("code", "rests"), [(503, True), (429, True), (500, False), (400, False)])
def test_retry_after_keeps_other_events_back_where_it_is_about_the_receiver(
    code: int, *, rests: bool
) -> None:
    assert bool(rules.after(attempt(code), 60 * SECOND_US, 0.0).rest_us) is rests


def test_gone_pauses_at_once() -> None:
    for number in range(1, len(DELAYS_US) + 2):
        assert rules.after(attempt(410, number), 5, 0.5).next is Next.PAUSE


def test_five_days_of_failures_are_too_many() -> None:
    failing = WEBHOOK._replace(failing_since_us=NOW_US)
    assert not rules.is_failing(WEBHOOK, NOW_US)
    assert not rules.is_failing(failing, NOW_US + FAILING_US - 1)
    assert rules.is_failing(failing, NOW_US + FAILING_US)
    assert not rules.is_failing(failing, NOW_US - FAILING_US)  # a clock set back


def test_a_pause_ends_with_a_clean_record() -> None:
    paused = rules.paused(WEBHOOK._replace(failing_since_us=1), PausedReason.FAILING)
    assert paused.paused
    assert rules.resumed(paused) == WEBHOOK


def test_for_a_day_after_a_rotation_two_secrets_sign() -> None:
    assert WEBHOOK.generations(NOW_US) == (1,)
    rotated = rules.rotated(WEBHOOK, NOW_US, immediate=False)
    assert rotated.generations(NOW_US) == (2, 1)
    assert rotated.generations(NOW_US + ROTATION_US) == (2,)
    # A rotation whose answer was lost is repeated.
    assert rules.rotated(rotated, NOW_US + 1, immediate=False) == rotated
    again = rules.rotated(rotated, NOW_US + ROTATION_US, immediate=False)
    assert again.generations(NOW_US + ROTATION_US) == (3, 2)
    assert rules.rotated(rotated, NOW_US + 1, immediate=True).generations(NOW_US + 1) == (3,)


def test_events_are_called_by_what_happened() -> None:
    changed = EVENT._replace(from_status="new", to_status="cancelled")
    assert rules.event_type(EVENT) == "id_pass.registered"
    assert rules.event_type(changed) == "id_pass.cancelled"
    assert rules.event_type(changed._replace(erased=1)) == "id_pass.erased"


def test_an_endpoint_gets_the_statuses_that_it_wants() -> None:
    wants = WEBHOOK._replace(wanted="cancelled,expired")
    for status, wanted in [("cancelled", True), ("expired", True), ("new", False)]:
        assert wants.wants(EVENT._replace(to_status=status)) is wanted
        assert WEBHOOK.wants(EVENT._replace(to_status=status))


def test_the_id_of_a_message_depends_on_all_that_it_stands_for() -> None:
    parts = itertools.product(("h1", "h2"), ("acme", "beta"), (1, 2), ("w1", "w2"))
    ids = [rules.message_id(history, name, n, to) for history, name, n, to in parts]
    assert len(set(ids)) == len(ids) == 16
    assert rules.message_id("h1", "acme", 1, "w1") == ids[0]


def test_a_stored_time_is_believed_as_far_as_the_schedule_goes() -> None:
    assert rules.longest_delay_us(0) == rules.longest_delay_us(1) == DELAYS_US[0] * 1.2
    assert rules.longest_delay_us(100) == DELAYS_US[-1] * 1.2
