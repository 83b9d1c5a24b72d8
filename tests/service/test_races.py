"""Calls that meet on one pass: one wins, one refund, and the other is told."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from idpass.v1 import id_pass_pb2 as pb
from kit.proving import times
from kit.support import Service, told

pytestmark = [pytest.mark.both_stores, pytest.mark.scaled]

ROUNDS = times(every_day=60, a_minute=60)


def outcome(future: "Future[Any]") -> Any:
    try:
        return future.result()
    except grpc.RpcError as error:
        return told(error).reason


def race(*calls: Callable[[], Any]) -> list[Any]:
    with ThreadPoolExecutor(len(calls)) as pool:
        return [outcome(future) for future in [pool.submit(call) for call in calls]]


def test_of_many_cancels_one_wins(service: Service) -> None:
    for _ in range(ROUNDS):
        pass_id = service.register().id_pass.id
        outcomes = race(*[lambda: service.cancel(pass_id)] * 4)  # noqa: B023 done before the next
        winners = [o for o in outcomes if not isinstance(o, str)]
        assert len(winners) == 1
        assert [o for o in outcomes if isinstance(o, str)] == ["PASS_ALREADY_CANCELLED"] * 3
    assert service.account().fees_refunded.units == ROUNDS * 9 // 2


def test_of_many_same_requests_all_get_the_first_answer(service: Service) -> None:
    for number in range(ROUNDS):
        pass_id = service.register().id_pass.id
        answers = race(*[lambda: service.cancel(pass_id, request_id=f"r{number}")] * 4)  # noqa: B023
        assert sum(not answer.replayed for answer in answers) == 1
        assert len({answer.reference for answer in answers}) == 1
    assert service.account().fees_refunded.units == ROUNDS * 9 // 2


@pytest.mark.parametrize(("status", "to"), [("opened", "in_progress"), ("in_progress", "complete")])
def test_cancel_against_advance(service: Service, status: str, to: str) -> None:
    refunds = 0
    for _ in range(ROUNDS):
        pass_id = service.pass_in(status)
        cancelled, advanced = race(
            lambda: service.cancel(pass_id),  # noqa: B023
            lambda: service.advance(pass_id, to),  # noqa: B023
        )
        final = service.get(pass_id)
        if isinstance(advanced, str):
            assert advanced == "PASS_ALREADY_CANCELLED"
            assert final.status == pb.ID_PASS_STATUS_CANCELLED
            assert cancelled.fee_refunded is (status == "opened")
        elif to == "in_progress":
            # Consent came first: the pass is cancelled all the same, and the fee is kept.
            assert cancelled.previous_status == pb.ID_PASS_STATUS_IN_PROGRESS
            assert not cancelled.fee_refunded
        else:
            assert cancelled == "PASS_COMPLETE"
            assert final.status == pb.ID_PASS_STATUS_COMPLETE
        refunds += final.fee_refunded
    assert service.account().fees_refunded.units == refunds * 9 // 2


def test_supersede_against_cancel(service: Service) -> None:
    for _ in range(ROUNDS):
        prior_id = service.register().id_pass.id
        in_flight = service.account().slots_in_use
        cancelled, registered = race(
            lambda: service.cancel(prior_id),  # noqa: B023
            lambda: service.register(supersedes=prior_id),  # noqa: B023
        )
        prior = service.get(prior_id)
        assert prior.status == pb.ID_PASS_STATUS_CANCELLED
        assert isinstance(cancelled, str) is not isinstance(registered, str)
        if isinstance(registered, str):
            assert registered == "PASS_ALREADY_CANCELLED"
            assert prior.superseded_by == ""
            assert service.account().slots_in_use == in_flight - 1
        else:
            assert cancelled == "PASS_ALREADY_CANCELLED"
            assert prior.superseded_by == registered.id_pass.id
            assert service.account().slots_in_use == in_flight


def test_of_many_supersedes_one_wins(service: Service) -> None:
    prior_id = service.register().id_pass.id
    for _ in range(ROUNDS):
        outcomes = race(*[lambda: service.register(supersedes=prior_id)] * 4)  # noqa: B023
        (winner,) = [o for o in outcomes if not isinstance(o, str)]
        prior_id = winner.id_pass.id
    assert service.account().slots_in_use == 1


def test_the_last_slot_is_given_once(service: Service) -> None:
    limit = service.account().slot_limit
    outcomes: list[Any] = []
    with ThreadPoolExecutor(16) as pool:
        futures = [pool.submit(service.register) for _ in range(limit + 50)]
        outcomes = [outcome(future) for future in futures]
    assert sum(o == "NO_FREE_SLOT" for o in outcomes) == 50
    assert service.account().slots_in_use == limit
