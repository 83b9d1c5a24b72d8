"""The fake of `idpass.testing`, held against the real service: the same steps, the same answers."""

import asyncio
import dataclasses
import itertools
import random
import re
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any

import pytest

from client import test_scenarios
from idpass import (
    AsyncIdPassClient,
    CancelReason,
    Event,
    IdPassClient,
    IdPassError,
    InvalidRequest,
    Money,
    NoFreeSlot,
    OutcomeUnknown,
    RetryPolicy,
    Status,
    Unavailable,
    WebhooksDisabled,
)
from idpass.testing import AsyncFakeIdPassClient, FakeIdPassClient, FakeService
from kit.client import Blocking, ServerProcess
from kit.proving import times

STEPS = times(200, 250)
UUID = re.compile(r"[0-9a-f-]{36}")
TIME = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z")
SLOTS = 150
UNKNOWN = "00000000-0000-7000-8000-000000000007"
REQUEST_IDS = [f"request-{number}" for number in range(40)]
QUICK = RetryPolicy(initial_backoff=0.001, max_attempts=3)


class Twins:
    """Two clients that are asked the same; what they answer is compared.

    Ids, references, histories and times differ, and are compared by the order in which they came.
    """

    def __init__(self, real: Any, fake: Any) -> None:
        self._clients = (real, fake)
        self._seen: tuple[dict[str, int], dict[str, int]] = ({}, {})
        self.ids: list[tuple[str, str]] = []
        self.said: list[str] = []

    def do(self, method: str, *arguments: Any, **more: Any) -> None:
        """Asks both. An argument that is a pair of ids becomes each client's own."""
        outcomes: list[Any] = []
        for side, client in enumerate(self._clients):
            own = [self._own(value, side) for value in arguments]
            named = {name: self._own(value, side) for name, value in more.items()}
            try:
                answer = getattr(client, method)(*own, **named)
                if method in {"list", "cancel_many"}:
                    answer = list(answer)
                elif method == "watch":
                    answer = list(itertools.islice(answer, 100))
            except IdPassError as error:
                answer = error
            outcomes.append(answer)
        told = [self._plain(outcome, side) for side, outcome in enumerate(outcomes)]
        assert told[0] == told[1], (method, arguments, more)
        if method == "register" and not isinstance(outcomes[0], IdPassError):
            self.ids.append((outcomes[0].id_pass.id, outcomes[1].id_pass.id))
        self.said.append(type(outcomes[0]).__name__)

    @staticmethod
    def _own(value: Any, side: int) -> Any:
        if isinstance(value, list):
            return [Twins._own(each, side) for each in value]
        return value[side] if isinstance(value, tuple) else value

    def _plain(self, value: Any, side: int) -> Any:
        if isinstance(value, IdPassError):
            return self._plain_error(value, side)
        if isinstance(value, list):
            return [self._plain(each, side) for each in value]
        if dataclasses.is_dataclass(value) and not isinstance(value, Money):
            names = [field.name for field in dataclasses.fields(value)]
            return {name: self._plain(getattr(value, name), side) for name in names}
        if isinstance(value, str) and not isinstance(value, Enum):
            seen = self._seen[side]
            value = TIME.sub("a time", value)
            is_id = UUID.fullmatch(value.lower())
            return seen.setdefault(value.lower(), len(seen)) if is_id else value
        return "a time" if isinstance(value, datetime) else value

    def _plain_error(self, error: IdPassError, side: int) -> Any:
        return (
            type(error),
            error.code,
            error.reason,
            {name: self._plain(error.metadata[name], side) for name in sorted(error.metadata)},
            sorted({violation.field for violation in error.violations}),
            self._plain(error.request_id, side),
            bool(error.reference),
        )


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Any]]:
    """A real client and a fake one, of services that have been asked the same so far."""
    server = ServerProcess(tmp_path_factory.mktemp("server") / "idpass.db")
    server.set_slots(SLOTS)
    service = FakeService(slot_limit=SLOTS)
    with IdPassClient(server.address) as real, FakeIdPassClient(service) as fake:
        yield real, fake
    server.kill()


@pytest.fixture
def twins(pair: tuple[Any, Any]) -> Twins:
    return Twins(*pair)


class Walk:
    """Steps at random, always the same ones.

    Args:
        twins: what takes them.
    """

    def __init__(self, twins: Twins) -> None:
        self._twins = twins
        self._chance = random.Random(20261125)

    def step(self) -> None:
        steps = [self.cancel] * 2 + [self.register] * 2 + [self.advance] * 5
        self._chance.choice([*steps, self.ask, self.many])()

    def cancel(self) -> None:
        self._twins.do(
            "cancel",
            self._id(),
            reason=self._chance.choice(list(CancelReason)),
            note=self._chance.choice(["", "", "a", "tab\tand\nline", "x" * 501, "\x07"]),
            expected_status=self._maybe(*Status),
            require_refund=self._chance.random() < 0.5,
            validate_only=self._chance.random() < 0.2,
            request_id=self._maybe(*REQUEST_IDS),
        )

    def register(self) -> None:
        self._twins.do(
            "register",
            link_validity_days=self._chance.choice([0, 0, 1, 14, 15]),
            applicant_reference=self._chance.choice(["", "a", "b", "line\nbreak"]),
            supersedes=self._id() if self._chance.random() < 0.2 else None,
            request_id=self._maybe(*REQUEST_IDS, "no\tgood"),
        )

    def advance(self) -> None:
        self._twins.do(
            "advance",
            self._id(),
            self._chance.choice([Status.OPENED, Status.IN_PROGRESS] * 3 + list(Status)),
            expected_status=self._maybe(*Status),
            request_id=self._maybe(*REQUEST_IDS),
        )

    def ask(self) -> None:
        self._twins.do("get", self._id())
        self._twins.do("account")
        statuses = self._chance.sample(list(Status), self._chance.randrange(4))
        applicant = self._chance.choice(["", "a"])
        self._twins.do("list", statuses=statuses, applicant_reference=applicant)

    def many(self) -> None:
        ids = [*(self._id() for _ in range(3)), "nonsense"]
        self._twins.do("cancel_many", ids, batch_size=2, in_flight=1, note="many")

    def _maybe(self, *values: Any) -> Any:
        return self._chance.choice(values) if self._chance.random() < 0.3 else None

    def _id(self) -> Any:
        if not self._twins.ids or self._chance.random() < 0.03:
            return UNKNOWN
        found = self._chance.choice(self._twins.ids[-12:])
        return tuple(each.upper() for each in found) if self._chance.random() < 0.1 else found


def test_any_steps_have_the_same_answers_as_with_the_real_service(twins: Twins) -> None:
    walk = Walk(twins)
    for _ in range(STEPS):
        walk.step()
    for pair in twins.ids:
        twins.do("get", pair)
    assert set(twins.said) >= {
        "Receipt",
        "RegisterReceipt",
        "AdvanceReceipt",
        "AlreadyCancelled",
        "InvalidRequest",
        "NotFound",
        "PassChanged",
        "RefundNotAvailable",
        "RequestIdReused",
        "TransitionNotAllowed",
    }


def test_watches_are_the_same_as_with_the_real_service(twins: Twins) -> None:
    for _ in range(2):
        twins.do("register", request_id=f"r{len(twins.ids)}")
    first, second = twins.ids
    twins.do("advance", first, "opened")
    twins.do("cancel", first, reason="duplicate")
    twins.do("register", supersedes=second)
    twins.do("watch", first)
    twins.do("watch", first, after_sequence=3)
    twins.do("watch", first, after_sequence=4)
    twins.do("watch", second)
    twins.do("watch", UNKNOWN)
    twins.do("watch", "nonsense")
    twins.do("watch", after_sequence=900)
    twins.do("watch", after_sequence=-1)
    twins.do("watch", after_sequence=1, history=UNKNOWN)


def test_conditions_are_those_of_the_real_service(twins: Twins) -> None:
    twins.do("register", request_id="once")
    (only,) = twins.ids
    twins.do("cancel", only, validate_only=True, request_id="checked")
    twins.do("get", only)
    twins.do("cancel", only, expected_status="opened")
    twins.do("advance", only, "opened", request_id="once")
    twins.do("advance", only, "opened", request_id="opened")
    twins.do("advance", only, "opened", request_id="opened")
    twins.do("advance", only, "in_progress", request_id="opened")
    twins.do("advance", only, "in_progress")
    twins.do("advance", only, "opened", request_id="opened")
    twins.do("cancel", only, require_refund=True)
    twins.do("cancel", only, validate_only=True)
    twins.do("cancel", only, note="n", request_id="gone")
    twins.do("cancel", only, note="n", request_id="gone", validate_only=True)
    twins.do("cancel", only, note="another", request_id="gone")
    twins.do("cancel", only, validate_only=True)
    twins.do("register", request_id="once", link_validity_days=7)
    twins.do("register", request_id="gone")
    twins.do("get", only)
    twins.do("account")
    twins.do("watch", only)


def test_slots_run_out_as_with_the_real_service(twins: Twins) -> None:
    while twins.said[-1:] != ["NoFreeSlot"]:
        twins.do("register")
    assert len(twins.ids) <= SLOTS
    twins.do("register", supersedes=twins.ids[0])
    twins.do("account")
    for pass_id in twins.ids[1:]:  # for the other tests
        twins.do("cancel", pass_id)


@pytest.fixture(params=["sync", "async"])
def fake(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A fake client of either kind; both are used in the same way."""
    if request.param == "sync":
        with FakeIdPassClient(retry=QUICK) as client:
            yield client
        return
    loop = request.getfixturevalue("loop")
    made = AsyncFakeIdPassClient(retry=QUICK)
    blocking = Blocking(made, loop)
    blocking.service = made.service  # type: ignore[attr-defined]
    yield blocking
    loop.run_until_complete(made.close())


@pytest.mark.parametrize("scenario", test_scenarios.TABLE["scenarios"], ids=lambda s: s["name"])
def test_a_scenario_of_all_clients_goes_as_the_table_says(fake: Any, scenario: Any) -> None:
    test_scenarios.test_a_scenario_goes_as_the_table_says(lambda _: fake, "", scenario)


def test_a_pass_can_be_put_into_every_status(fake: Any) -> None:
    for status in Status:
        pass_id = fake.service.put_pass(status, applicant_reference="a", link_validity_days=3)
        id_pass = fake.get(pass_id)
        assert (id_pass.status, id_pass.applicant_reference) == (status, "a")
        assert id_pass.expire_time - id_pass.create_time == timedelta(days=3)
    with pytest.raises(ValueError, match="gone"):
        fake.service.put_pass("gone")


def test_the_clock_can_be_moved(fake: Any) -> None:
    pass_id = fake.service.put_pass("opened")
    fake.service.move_clock(days=6, hours=23)
    assert fake.get(pass_id).status is Status.OPENED
    (idle,) = fake.list(idle_before=fake.get(fake.service.put_pass()).create_time)
    assert idle.id == pass_id
    fake.service.move_clock(seconds=3_601)
    id_pass = fake.get(pass_id)
    assert (id_pass.status, id_pass.end_time) == (Status.EXPIRED, id_pass.expire_time)
    assert [event.caller for event in fake.watch(pass_id)] == ["demo", "demo", "sweeper"]
    with pytest.raises(ValueError, match="backwards"):
        fake.service.move_clock(seconds=-1)


def test_an_answer_that_gets_lost_is_given_again(fake: Any) -> None:
    pass_id = fake.service.put_pass()
    fake.service.lose_answers(1)
    assert fake.cancel(pass_id).replayed
    other = fake.service.put_pass()
    fake.service.lose_answers(3)
    with pytest.raises(OutcomeUnknown) as raised:
        fake.cancel(other)
    assert fake.cancel(other, request_id=raised.value.request_id).replayed


def test_a_service_that_is_out_of_reach_is_not_waited_for(fake: Any) -> None:
    pass_id = fake.service.put_pass()
    fake.service.set_reachable(False)
    with pytest.raises(Unavailable, match="Nothing was sent"):
        fake.cancel(pass_id, timeout=1e6)
    with pytest.raises(Unavailable):
        next(fake.watch(reconnect_for=0))
    fake.service.set_reachable(True)
    assert fake.cancel(pass_id).fee_refunded


def test_what_it_does_not_know_is_refused(fake: Any) -> None:
    client = fake if isinstance(fake, FakeIdPassClient) else FakeIdPassClient()
    with pytest.raises(WebhooksDisabled, match=r"idpass_server\.testing"):
        client.webhooks.list()
    with pytest.raises(InvalidRequest):
        fake.get("nonsense")


def test_fee_and_slots_can_be_set() -> None:
    service = FakeService(slot_limit=1, fee=Money("EUR", Decimal("1.25")))
    client = FakeIdPassClient(service)
    assert str(client.register().id_pass.fee) == "EUR 1.25"
    with pytest.raises(NoFreeSlot) as raised:
        client.register()
    assert raised.value.slot_limit == 1
    client.cancel_many([])
    assert str(client.account().fees_charged) == "EUR 1.25"


def test_a_watcher_is_told_of_what_another_client_of_either_kind_does() -> None:
    service = FakeService()
    client = FakeIdPassClient(service)
    seen: list[Event] = []
    watching = threading.Thread(target=lambda: seen.extend(client.watch()))
    watching.start()

    async def use() -> None:
        async with AsyncFakeIdPassClient(service) as other:
            events = other.watch()
            pass_id = (await other.register()).id_pass.id
            assert (await anext(events)).id == pass_id
            await asyncio.to_thread(FakeIdPassClient(service).cancel, pass_id)
            assert (await anext(events)).to_status is Status.CANCELLED
            waiting = asyncio.ensure_future(anext(events, None))
            await asyncio.sleep(0)
            await other.close()
            assert await waiting is None

    asyncio.run(use())
    while len(seen) < 2:
        threading.Event().wait(0.001)
    client.close()
    watching.join(30)
    assert not watching.is_alive()
    assert [event.to_status for event in seen] == ["new", "cancelled"]


def test_the_fakes_are_taken_where_the_clients_are() -> None:
    sync: IdPassClient = FakeIdPassClient()
    other: AsyncIdPassClient = AsyncFakeIdPassClient()
    assert repr(sync) == "FakeIdPassClient('localhost:0', tls=False)"
    assert isinstance(other, AsyncIdPassClient)


def test_threads_share_a_fake_without_losing_a_refund() -> None:
    service = FakeService()
    ids = [service.put_pass() for _ in range(50)]
    done: list[bool] = []

    def work() -> None:
        with FakeIdPassClient(service) as client:
            results = client.cancel_many(ids, batch_size=1)
            done.extend(bool(each.receipt and each.receipt.fee_refunded) for each in results)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert done.count(True) == 50
    with FakeIdPassClient(service) as client:
        assert client.account().fees_refunded.amount == 50 * Decimal("4.50")
