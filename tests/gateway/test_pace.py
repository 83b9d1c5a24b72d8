"""Work that holds the event loop is done in turns."""

import asyncio
import time

from idpass_server.gateway.pace import Turns

WORK_S = 0.005


async def test_between_two_turns_others_have_the_loop() -> None:
    """However many wait: between two of them there is a pause, in which the loop turns freely."""
    turns, done, passed = Turns(), asyncio.Event(), 0
    seen: list[int] = []

    def work() -> None:
        seen.append(passed)
        time.sleep(WORK_S)

    async def somebody_else() -> None:
        nonlocal passed
        while not done.is_set():
            passed += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(somebody_else())
    await asyncio.gather(*(turns.do(work) for _ in range(5)))
    done.set()
    await other
    assert seen[-1] - seen[0] > 2 * (len(seen) - 1)


async def test_a_turn_that_fails_lets_the_next_one_in() -> None:
    turns = Turns()

    def fail() -> None:
        raise ValueError("a fault")

    results = await asyncio.gather(turns.do(fail), turns.do(lambda: 7), return_exceptions=True)
    assert [type(result) for result in results] == [ValueError, int]
