"""Which positions a history has, and which it does not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idpass_server.rules.positions import (
    PURGED,
    Gap,
    Positions,
    numbers_between,
    oldest_position,
    resumable,
    skipped,
)
from idpass_server.rules.refusals import HistoryLost

RESTORED = (Gap(10, 1_000),)
"""A backup with 10 events was restored."""


@pytest.mark.parametrize(
    ("gaps", "lost", "kept"),
    [
        ((), [], [0, 1, 10_000]),
        (RESTORED, [11, 500, 999], [0, 9, 10, 1_000, 1_001]),
        ((*RESTORED, Gap(1_005, 2_000)), [11, 1_006, 1_999], [10, 1_000, 1_005, 2_000]),
        ((Gap(10, 1_000), Gap(1_000, 2_000)), [11, 1_001], [10, 1_000, 2_000]),
        ((Gap(PURGED, 7), *RESTORED), [0, 6, 11], [7, 10, 1_000]),
    ],
)
def test_a_position_in_a_gap_is_lost(
    gaps: tuple[Gap, ...], lost: list[int], kept: list[int]
) -> None:
    assert [p for p in lost if resumable(p, gaps)] == []
    assert [p for p in kept if not resumable(p, gaps)] == []


@pytest.mark.parametrize(
    ("gaps", "lost", "kept"),
    [
        ((), [1, 10], [0]),
        (RESTORED, [11, 1_000, 1_001], [0, 1, 10]),
        ((*RESTORED, Gap(1_005, 2_000)), [500, 2_000], [10, 1_000, 1_005]),
    ],
)
def test_another_history_is_the_same_only_up_to_the_newest_restore(
    gaps: tuple[Gap, ...], lost: list[int], kept: list[int]
) -> None:
    assert [p for p in lost if resumable(p, gaps, same_history=False)] == []
    assert [p for p in kept if not resumable(p, gaps, same_history=False)] == []


def test_a_lost_position_is_refused_with_what_there_is() -> None:
    positions = Positions("ours", (Gap(PURGED, 7), *RESTORED))
    with pytest.raises(HistoryLost) as caught:
        positions.check(6)
    refusal = caught.value
    assert (refusal.history, refusal.after_sequence, refusal.oldest_sequence) == ("ours", 6, 7)
    positions.check(1_000)
    positions.check(1_000, "ours")
    with pytest.raises(HistoryLost):
        positions.check(1_000, "theirs")


def test_gaps_that_follow_each_other_are_skipped_together() -> None:
    gaps = (Gap(20, 30), Gap(10, 20), Gap(40, 50))
    assert [skipped(position, gaps) for position in (9, 10, 20, 30, 40)] == [9, 30, 30, 30, 50]


@given(
    cuts=st.lists(st.integers(0, 200), max_size=8, unique=True),
    purged=st.integers(0, 200),
    start=st.integers(0, 200),
)
def test_counting_and_skipping_agree_with_the_numbers_themselves(
    cuts: list[int], purged: int, start: int
) -> None:
    ordered = sorted(cuts)
    gaps = [Gap(*pair) for pair in zip(ordered[::2], ordered[1::2], strict=False)]
    if purged:
        gaps = [Gap(PURGED, purged), *(gap for gap in gaps if gap.after_sequence >= purged)]
    assert oldest_position(gaps) == purged
    newest = 201
    exist = [n for n in range(1, newest + 1) if not any(a < n <= before for a, before in gaps)]
    behind = skipped(start, gaps)
    assert [n for n in exist if n > start] == [n for n in exist if n > behind]
    if resumable(start, gaps):
        assert numbers_between(start, newest, gaps) == len([n for n in exist if n > start])
