"""Connections that break at every moment: nothing is done twice, and nothing is missed."""

import itertools
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from idpass import IdPassClient, OutcomeUnknown, RetryPolicy, Status, Unavailable
from kit.client import Connect, PutPass, ServerProcess
from kit.proving import times
from kit.proxy import Cut, CuttingProxy

CANCELS = times(every_day=50, a_minute=70)


@pytest.fixture
def proxy(address: str) -> Iterator[CuttingProxy]:
    proxy = CuttingProxy(address)
    yield proxy
    proxy.close()


@pytest.mark.scaled
def test_each_of_many_cut_cancellations_refunds_once_and_gets_its_receipt(
    connect: Connect,
    proxy: CuttingProxy,
    put_pass: PutPass,
    setup_client: IdPassClient,
) -> None:
    ids = [put_pass() for _ in range(CANCELS)]
    before = setup_client.account()
    client = connect(proxy.address, timeout=20, retry=RetryPolicy(initial_backoff=0.01))
    client.account()
    receipts = []
    for pass_id, cut in zip(ids, itertools.cycle(Cut)):
        proxy.cuts.append(cut)
        receipts.append(client.cancel(pass_id))
    assert proxy.made == CANCELS
    # Where the answer got lost, the service had done its work.
    assert all(receipt.replayed for receipt in receipts[2::3])
    assert not any(receipt.replayed for receipt in receipts[0::3])

    after = setup_client.account()
    assert after.last_sequence - before.last_sequence == CANCELS
    assert after.fees_refunded.amount - before.fees_refunded.amount == CANCELS * after.fee.amount
    events = itertools.islice(setup_client.watch(after_sequence=before.last_sequence), CANCELS)
    told = [(r.id, r.request_id, r.refund, r.cancel_time) for r in receipts]
    assert [(e.id, e.request_id, e.refund, e.event_time) for e in events] == told


def test_cancelling_many_over_connections_that_break_refunds_each_once(
    connect: Connect, proxy: CuttingProxy, put_pass: PutPass, setup_client: IdPassClient
) -> None:
    ids = [put_pass() for _ in range(60)]
    before = setup_client.account()
    client = connect(proxy.address, timeout=20)
    proxy.cuts.extend(itertools.islice(itertools.cycle(Cut), 9))
    results = list(client.cancel_many(ids, batch_size=10))
    assert [result.id for result in results if result.receipt] == ids
    refunded = setup_client.account().fees_refunded.amount - before.fees_refunded.amount
    assert refunded == 60 * before.fee.amount
    assert proxy.made == 9


def test_a_cut_watcher_misses_nothing_and_sees_nothing_twice(
    connect: Connect, proxy: CuttingProxy, put_pass: PutPass, setup_client: IdPassClient
) -> None:
    start = setup_client.account().last_sequence
    watcher = connect(proxy.address).watch(after_sequence=start)
    stop = threading.Event()

    def cut_now_and_then() -> None:
        while not stop.wait(0.07):
            proxy.cut_all()

    def work() -> None:
        for _ in range(100):
            put_pass(Status.OPENED)
            time.sleep(0.01)

    threads = [threading.Thread(target=target) for target in (cut_now_and_then, work)]
    for thread in threads:
        thread.start()
    try:
        seen = [event.sequence for event in itertools.islice(watcher, 200)]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        watcher.close()
    assert seen == list(range(start + 1, start + 201))


def test_a_watcher_outlives_a_restart_of_the_service(
    connect: Connect, own_server: ServerProcess
) -> None:
    with IdPassClient(own_server.address, timeout=20) as other:
        watcher = connect(own_server.address).watch()
        seen = []
        for restart in (own_server.stop, own_server.kill):
            other.register()
            seen.append(next(watcher).sequence)
            restart()
            own_server.start()
        other.register()
        seen.append(next(watcher).sequence)
        watcher.close()
    assert seen == [1, 2, 3]


def test_a_call_outlives_a_restart_of_the_service(
    connect: Connect, own_server: ServerProcess
) -> None:
    client = connect(own_server.address, timeout=20)
    client.account()
    own_server.kill()
    starting = threading.Timer(1.0, own_server.start)
    starting.start()
    assert client.register().id_pass.status is Status.NEW
    starting.join()


def test_a_watcher_gives_up_when_nobody_is_there_for_long(connect: Connect) -> None:
    client = connect("127.0.0.1:1")
    with pytest.raises(Unavailable):
        next(client.watch(reconnect_for=0.5))


def test_a_service_that_never_answers_leaves_the_outcome_unknown_in_time(
    connect: Connect, own_server: ServerProcess
) -> None:
    client = connect(own_server.address)
    pass_id = client.register().id_pass.id
    own_server.signal(signal.SIGSTOP)
    try:
        with pytest.raises(OutcomeUnknown) as raised:
            client.cancel(pass_id, timeout=0.5)
    finally:
        own_server.signal(signal.SIGCONT)
    receipt: Any = client.cancel(pass_id, request_id=raised.value.request_id)
    assert receipt.fee_refunded
