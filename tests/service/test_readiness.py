"""Readiness: who reports what, and who is told."""

import asyncio

from idpass_server.engine.readiness import DRAINING, Check, Readiness


async def test_ready_means_that_no_check_has_a_problem() -> None:
    readiness = Readiness()
    readiness.set("store", None)
    readiness.set("schema", "too old")
    assert not readiness.ready
    assert readiness.checks() == {"store": Check(), "schema": Check("too old")}
    readiness.set("schema", None)
    assert readiness.ready


async def test_a_warning_leaves_it_ready() -> None:
    readiness = Readiness()
    readiness.set("store", None)
    readiness.warn("clock", "two days ahead")
    assert readiness.ready
    assert readiness.checks() == {"store": Check(), "clock": Check(warning="two days ahead")}
    readiness.warn("clock", None)
    assert readiness.checks()["clock"] == Check()


async def test_a_report_from_another_thread_wakes_all_who_wait() -> None:
    readiness = Readiness()
    waiting = [asyncio.ensure_future(readiness.changed()) for _ in range(3)]
    await asyncio.sleep(0)
    await asyncio.to_thread(readiness.set, "store", "away")
    await asyncio.wait_for(asyncio.gather(*waiting), 30)


async def test_one_who_gives_up_waiting_takes_nothing_from_the_others() -> None:
    readiness = Readiness()
    leaving, staying = (asyncio.ensure_future(readiness.changed()) for _ in range(2))
    await asyncio.sleep(0)
    leaving.cancel()
    readiness.set("store", "away")
    await asyncio.wait_for(staying, 30)


async def test_the_store_is_up_once_it_is_said_to_be_and_while_the_server_stops() -> None:
    readiness = Readiness()
    seen = [readiness.stores]
    for check, problem in (("store", None), (DRAINING, "stopping"), ("store", "no answer")):
        readiness.set(check, problem)
        seen.append(readiness.stores)
    assert seen == [False, True, True, False]
