"""When the writer begins a batch: a crowd is waited for, a lone caller is not."""

from collections.abc import Sequence

import pytest

from idpass_server.engine.crowd import MAX_WAIT_S, PAUSE_S, Crowd


class Pauses:
    """A clock that goes on by pauses only, in each of which so many calls come.

    Args:
        coming: calls that come in each pause; none after the last.
    """

    def __init__(self, coming: Sequence[int] = ()) -> None:
        self.now_s = 0.0
        self.coming = list(coming)
        self.crowd = Crowd(lambda: self.now_s, self._pause)

    def _pause(self, seconds: float) -> None:
        self.now_s += seconds
        self.come(self.coming.pop(0) if self.coming else 0)

    def come(self, calls: int) -> None:
        for _ in range(calls):
            self.crowd.came()

    def batches(self, *sizes: int) -> None:
        for size in sizes:
            self.come(size)
            self.crowd.taken(size)


@pytest.mark.parametrize("before", [(), (1,), (1, 1), (2, 1)])
def test_a_lone_caller_waits_for_nothing(before: Sequence[int]) -> None:
    pauses = Pauses()
    pauses.batches(*before)
    pauses.come(1)
    pauses.crowd.wait()
    assert pauses.now_s == 0


def test_a_crowd_is_waited_for_until_half_of_it_is_there() -> None:
    pauses = Pauses([3, 4, 5, 6, 7])
    pauses.batches(20, 12)
    pauses.come(1)
    pauses.crowd.wait()
    assert pauses.now_s == pytest.approx(4 * PAUSE_S)  # 1 + 3 + 4 + 5 + 6 are 16 or more


def test_a_crowd_that_does_not_come_back_is_not_waited_for() -> None:
    pauses = Pauses([2, 0, 20])
    pauses.batches(40, 40)
    pauses.come(1)
    pauses.crowd.wait()
    assert pauses.now_s == pytest.approx(2 * PAUSE_S)


def test_a_crowd_that_comes_slowly_is_not_waited_for_forever() -> None:
    pauses = Pauses([1] * 1_000)
    pauses.batches(500, 500)
    pauses.come(1)
    pauses.crowd.wait()
    assert MAX_WAIT_S <= pauses.now_s <= MAX_WAIT_S + 2 * PAUSE_S


def test_calls_that_were_put_back_wait_again() -> None:
    pauses = Pauses()
    pauses.batches(8, 8)
    pauses.crowd.put_back(8)
    pauses.come(1)
    pauses.crowd.wait()
    assert pauses.now_s == 0
