"""What one caller may take: the token bucket as such, with time in the test's hands."""

import random

from idpass_server.api.rate import FORGET_EVERY, Limit, Rate, Room


def taken(rate: Rate, caller: str, now_s: float, wanted: int = 1_000) -> int:
    """How many tokens a caller gets at one moment."""
    return sum(rate.take(caller, now_s) for _ in range(wanted))


def test_a_rested_caller_gets_the_burst_and_then_the_rate() -> None:
    rate = Rate(Limit(10, 25))
    now_s = 123_456.7
    assert taken(rate, "a", now_s) == 25
    assert taken(rate, "a", now_s + 0.99) == 9
    assert taken(rate, "a", now_s + 2) == 11
    assert taken(rate, "a", now_s + 1_000) == 25


def test_over_any_time_no_more_than_burst_and_rate_is_taken() -> None:
    for seed in range(20):
        chance = random.Random(seed)
        per_s, burst = chance.choice([0.5, 3, 500]), chance.choice([1, 7, 1_000])
        rate, start_s = Rate(Limit(per_s, burst)), chance.uniform(0, 1e6)
        now_s, got = start_s, 0
        for _ in range(300):
            now_s += chance.expovariate(per_s)
            got += taken(rate, "a", now_s, chance.randrange(4))
            assert got <= burst + per_s * (now_s - start_s) + 1e-3


def test_the_wait_is_until_there_is_a_token() -> None:
    rate = Rate(Limit(4, 2))
    assert taken(rate, "a", 50.0) == 2
    wait_s = rate.wait_s("a", 50.0)
    assert 0 < wait_s <= 0.25
    assert not rate.take("a", 50.0 + wait_s - 0.001)
    assert rate.take("a", 50.0 + wait_s)


def test_one_caller_does_not_take_from_another() -> None:
    rate = Rate(Limit(1, 5))
    assert taken(rate, "a", 0.0) == 5
    assert taken(rate, "b", 0.0) == 5


def test_a_debt_is_waited_off() -> None:
    rate = Rate(Limit(100, 10))
    assert rate.take("a", 0.0)
    rate.owe("a", 999)
    assert rate.wait_s("a", 0.0) > 9.89
    assert not rate.take("a", 9.89)
    assert rate.take("a", 9.92)


def test_a_refused_call_takes_nothing() -> None:
    rate = Rate(Limit(1, 1))
    assert rate.take("a", 0.0)
    assert taken(rate, "a", 0.5) == 0
    assert rate.take("a", 1.0)


def test_reservations_are_served_one_after_the_other() -> None:
    rate = Rate(Limit(10, 3))
    waits_s = [round(rate.reserve("a", 0.0), 3) for _ in range(6)]
    assert waits_s == [0, 0, 0, 0.1, 0.2, 0.3]


def test_without_a_rate_there_is_no_limit_and_nothing_is_kept() -> None:
    rate = Rate(Limit(0, 1))
    assert taken(rate, "a", 0.0, 10_000) == 10_000
    rate.owe("a", 10_000)
    assert rate.take("a", 0.0)
    assert not rate._full_at_s


def test_rested_callers_take_no_memory() -> None:
    rate = Rate(Limit(1, 1))
    for number in range(50 * FORGET_EVERY):
        assert rate.take(f"caller-{number}", number / 10)
    assert len(rate._full_at_s) <= FORGET_EVERY


def test_a_debt_is_remembered_however_many_others_come() -> None:
    rate = Rate(Limit(1, 1))
    assert rate.take("a", 0.0)
    for number in range(3 * FORGET_EVERY):
        assert rate.take(f"caller-{number}", 0.9)
    assert not rate.take("a", 0.9)
    assert rate.take("a", 1.0)


def test_a_caller_with_a_limit_of_its_own_is_held_to_that() -> None:
    rate = Rate(Limit(1, 5))
    for own, at_once, after_a_second in (
        (rate.limit(None, None), 5, 1),
        (rate.limit(None, 7), 7, 1),
        (rate.limit(10, None), 5, 5),
        (rate.limit(2, 3), 3, 2),
        (rate.limit(0, None), 1_000, 1_000),
    ):
        for now_s, allowed in ((0.0, at_once), (1.0, after_a_second)):
            assert sum(rate.take(str(own), now_s, own) for _ in range(1_000)) == allowed


def test_a_caller_may_have_a_rate_where_others_have_none() -> None:
    rate = Rate(Limit(0, 1))
    own = rate.limit(1, 3)
    assert sum(rate.take("a", 0.0, own) for _ in range(10)) == 3
    assert taken(rate, "b", 0.0, 10) == 10


def test_what_costs_several_tokens_needs_one_to_begin_with() -> None:
    rate = Rate(Limit(100, 10))
    assert rate.take("a", 0.0, tokens=1_000)
    assert not rate.take("a", 9.89)
    assert rate.take("a", 9.92)


def test_one_caller_alone_gets_nearly_all_places_and_never_the_last() -> None:
    for places in range(9, 200):
        room = Room(places)
        while room.enter("a"):
            pass
        assert 0.8 * places <= room.taken < places
        assert room.enter("b")


def test_a_place_that_is_left_is_free() -> None:
    room = Room(1)
    for name in ("a", "b", "a"):
        assert room.enter(name)
        assert not room.enter("c")
        room.leave(name)
    assert room.taken == 0
    assert not room._of


def test_places_that_are_left_count_no_more_as_the_callers_own() -> None:
    room = Room(9)
    for _ in range(3):
        taken = 0
        while room.enter("a"):
            taken += 1
        assert taken == 8
        for _ in range(taken):
            room.leave("a")
        assert not room._of
