"""The search for one order in which all of a pass's calls could have been made one by one.

By Wing and Gong, with Lowe's memory of what was tried: at each point the calls that may come next
are those that began before any other that is left had ended. One whose outcome is not known may
come at any time after it began, or never. A call that changes nothing and was told the truth comes
first wherever it may: that takes no other's place, so only changes are tried in each order.
"""

from collections.abc import Sequence
from typing import NamedTuple

from kit.pass_rules import Asked, State, Told


class Step(NamedTuple):
    """One call.

    Attributes:
        began: when the call was made, on the clock of all callers.
        ended: when its answer came; None if there was none that tells the outcome.
        asked: of the pass.
        told: what it was told; None if its outcome is not known.
    """

    began: int
    ended: int | None
    asked: Asked
    told: Told | None


class Stuck(NamedTuple):
    """The furthest that the search got.

    Attributes:
        state: the pass after the steps that have a place.
        placed: number of them.
        left: steps that found none and may come next.
    """

    state: State
    placed: int
    left: list[Step]


def search(steps: Sequence[Step], start: State = State()) -> Stuck | None:  # noqa: B008 it is frozen
    """Looks for an order.

    Args:
        steps: of one pass, in any order.
        start: the pass before all of them.

    Returns:
        None if there is one; where the search got stuck if there is none.
    """
    steps = sorted(steps, key=lambda step: step.began)
    wanted = sum(1 << at for at, step in enumerate(steps) if step.told is not None)
    furthest = (start, 0)
    waiting = [(start, 0)]
    tried = set(waiting)
    while waiting:
        state, done = _settle(steps, *waiting.pop())
        if done & wanted == wanted:
            return None
        if (done & wanted).bit_count() >= (furthest[1] & wanted).bit_count():
            furthest = (state, done)
        for at in _next(steps, done):
            told, then = state.apply(steps[at].asked)
            after = (then, done | 1 << at)
            if steps[at].told in (None, told) and then != state and after not in tried:
                tried.add(after)
                waiting.append(after)
    state, done = furthest
    return Stuck(state, done.bit_count(), [steps[at] for at in _next(steps, done)])


def _settle(steps: Sequence[Step], state: State, done: int) -> tuple[State, int]:
    """Gives a place to all that may come now and changes nothing."""
    while True:
        placed = 0
        for at in _next(steps, done):
            told, then = state.apply(steps[at].asked)
            if then == state and told == steps[at].told:
                placed |= 1 << at
        if not placed:
            return state, done
        done |= placed


def _next(steps: Sequence[Step], done: int) -> list[int]:
    """The steps left that began before any other step left had ended."""
    left = [at for at in range(len(steps)) if not done >> at & 1]
    ends = [ended for at in left if (ended := steps[at].ended) is not None]
    first = min(ends, default=None)
    return [at for at in left if first is None or steps[at].began <= first]
