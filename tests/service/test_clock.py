"""A wrong clock neither expires passes for good nor leaves times that run backwards."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from idpass_server.engine import reads, sweeper
from idpass_server.engine.clock import ClockWrong, Now, kernel_synchronised
from kit.serving import url_of
from kit.support import DAY_US, STATUS, FakeTime, Service, cli, eventually, process, refused

SECOND_US = 1_000_000
MINUTE_US = 60 * SECOND_US
HOUR_US = 60 * MINUTE_US


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


def test_time_never_goes_below_the_newest_stored_event(time: FakeTime) -> None:
    clock = time.clock()
    clock.begin(time.now_us + 30 * SECOND_US)
    floor_us = time.now_us + 30 * SECOND_US
    assert clock.now() == Now(floor_us, time.now_us)
    time.advance(us=31 * SECOND_US)
    assert clock.now() == Now(time.now_us, time.now_us)
    clock.keep(time.now_us)
    time.jump(us=-20 * SECOND_US)
    assert clock.now().us == time.now_us + 20 * SECOND_US


def test_what_was_only_looked_at_binds_nobody(time: FakeTime) -> None:
    clock = time.clock()
    time.jump(us=50 * SECOND_US)
    assert clock.now().us == time.now_us
    time.jump(us=-50 * SECOND_US)
    assert clock.now().us == time.now_us


@pytest.mark.parametrize("days", [30, -30, 0.001])
def test_a_jump_that_nobody_vouches_for_stops_expiring_until_it_is_undone(
    time: FakeTime, days: float
) -> None:
    time.synchronised = False
    clock = time.clock()
    before_us = clock.now().us
    time.jump(days=days)
    time.advance(us=HOUR_US)
    assert clock.now() == Now(before_us + HOUR_US, before_us)
    assert "nothing expires" in str(clock.problem())
    time.jump(days=-days)
    assert clock.problem() is None
    assert clock.now() == Now(before_us + HOUR_US, before_us + HOUR_US)


def test_a_resumed_machine_goes_on_when_the_kernel_calls_its_clock_synchronised(
    time: FakeTime,
) -> None:
    clock = time.clock()
    time.synchronised = False
    time.jump(days=3)
    assert clock.problem()
    time.synchronised = True
    assert clock.problem() is None
    assert clock.now() == Now(time.now_us, time.now_us)


def test_a_suspended_machine_has_not_jumped(time: FakeTime) -> None:
    time.synchronised = False
    clock = time.clock()
    time.advance(days=3)
    assert clock.problem() is None
    assert clock.now() == Now(time.now_us, time.now_us)


def test_small_steps_are_followed_however_many(time: FakeTime) -> None:
    time.synchronised = False
    clock = time.clock()
    for _ in range(5):
        time.jump(us=59 * SECOND_US)
        assert clock.problem() is None
    assert clock.now() == Now(time.now_us, time.now_us)


def test_a_process_that_is_stopped_between_two_readings_sees_no_jump(
    time: FakeTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    time.synchronised = False
    clock = time.clock()
    pauses = iter([0, DAY_US])

    def wall() -> int:
        now_us = time.now_us
        time.advance(us=next(pauses, 0))
        return now_us

    monkeypatch.setattr(clock, "_wall", wall)
    for _ in range(3):
        assert clock.problem() is None


def test_what_was_due_stays_due(time: FakeTime) -> None:
    clock = time.clock()
    due_us = clock.now().due_us
    time.jump(us=-50 * SECOND_US)
    assert clock.now().due_us == due_us


@pytest.mark.parametrize(
    ("ahead_us", "synchronised", "starts"),
    [
        (-59 * SECOND_US, False, True),
        (-61 * SECOND_US, True, False),
        (-61 * SECOND_US, False, False),
        (-30 * DAY_US, True, False),
        (7 * DAY_US, True, True),
        (7 * DAY_US, None, True),
        (23 * HOUR_US, False, True),
        (25 * HOUR_US, False, False),
        (30 * DAY_US, False, False),
    ],
)
def test_a_start_is_refused_only_where_the_clock_is_surely_or_probably_wrong(
    time: FakeTime, ahead_us: int, synchronised: bool | None, starts: bool
) -> None:
    time.synchronised = synchronised  # type: ignore[assignment]
    newest_us = time.now_us - ahead_us
    if starts:
        time.clock().begin(newest_us)
    else:
        with pytest.raises(ClockWrong, match="--accept-clock"):
            time.clock().begin(newest_us)
    time.clock().begin(newest_us, accept=True)
    time.clock().begin(None)


def test_the_kernel_can_be_asked() -> None:
    assert kernel_synchronised() in (True, False, None)


def test_a_clock_may_be_read_by_many_threads(time: FakeTime) -> None:
    time.synchronised = False
    clock = time.clock()
    time.jump(days=1)
    seen: list[Now] = []
    threads = [threading.Thread(target=lambda: seen.append(clock.now())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(seen)) == 1


# -- a server


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sweeps follow each other at once."""
    monkeypatch.setattr(sweeper, "INTERVAL_S", 0.01)


@pytest.fixture
def unswept(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the first, no sweep comes."""
    monkeypatch.setattr(sweeper, "INTERVAL_S", 3_600)


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Lines of the module that sweeps."""
    lines: list[dict[str, Any]] = []

    class Log:
        def info(self, event: str, **values: Any) -> None:
            lines.append({"event": event, **values})

    monkeypatch.setattr(reads, "log", Log())
    return lines


def warning(service: Service) -> str | None:
    check = service.server.readiness.checks().get("clock")
    return check.warning if check else None


@pytest.mark.usefixtures("often")
def test_while_the_clock_is_not_trusted_nothing_expires(service: Service) -> None:
    service.time.synchronised = False
    kept, advanced, cancelled = (service.register().id_pass.id for _ in range(3))
    service.time.jump(days=30)
    eventually(lambda: warning(service) is not None)
    assert service.server.readiness.ready, "changes can be stored all the same"
    service.time.advance(days=8)
    assert service.get(kept).status == STATUS["new"]
    assert {p.status for p in service.list_all()} == {STATUS["new"]}
    assert service.account().slots_in_use == 3
    assert service.advance(advanced, "opened").id_pass.status == STATUS["opened"]
    answer = service.cancel(cancelled)
    assert answer.fee_refunded
    true_us = service.time.now_us - 30 * DAY_US
    assert answer.cancel_time.ToMicroseconds() == true_us
    assert service.register().id_pass.create_time.ToMicroseconds() == true_us
    service.time.jump(days=-30)
    eventually(lambda: warning(service) is None)
    eventually(lambda: len(service.events()) == 8)
    assert service.get(kept).status == service.get(advanced).status == STATUS["expired"]
    assert service.account().slots_in_use == 1


@pytest.mark.usefixtures("often")
def test_a_jump_that_the_kernel_vouches_for_expires_what_is_due(service: Service) -> None:
    pass_id = service.register().id_pass.id
    service.time.synchronised = False
    service.time.jump(days=8)
    eventually(lambda: warning(service) is not None)
    assert service.get(pass_id).status == STATUS["new"]
    service.time.synchronised = True
    eventually(lambda: service.get(pass_id).status == STATUS["expired"])
    eventually(lambda: warning(service) is None)


def test_a_clock_that_is_far_ahead_at_the_start_expires_nothing(db: Path | str) -> None:
    service = Service(db)
    pass_id = service.register().id_pass.id
    service.stop()
    wrong = FakeTime()
    wrong.advance(days=30)
    wrong.synchronised = False
    with pytest.raises(ClockWrong, match="not synchronised"):
        Service(db, time=wrong)
    again = Service(db, time=service.time)
    assert again.get(pass_id).status == STATUS["new"]
    again.stop()


def test_a_service_that_stood_still_for_a_week_starts(db: Path | str) -> None:
    service = Service(db)
    service.register(link_validity_days=14)
    service.stop()
    service.time.advance(days=7)
    again = Service(db, time=service.time)
    assert again.account().slots_in_use == 1
    again.stop()


def test_by_an_accepted_clock_times_stand_still_until_it_is_past_the_newest_event(
    db: Path | str,
) -> None:
    service = Service(db)
    before = service.register().id_pass
    service.time.advance(days=3)
    newest_us = service.register().id_pass.create_time.ToMicroseconds()
    service.stop()
    right = FakeTime()
    with pytest.raises(ClockWrong, match="behind"):
        Service(db, time=right)
    again = Service(db, time=right, accept_clock=True)
    assert again.register().id_pass.create_time.ToMicroseconds() == newest_us
    # What is overdue is told by the clock, and not by the events that a wrong one left.
    right.advance(days=6.9)
    assert again.get(before.id).status == STATUS["new"]
    right.advance(days=0.2)
    assert again.get(before.id).status == STATUS["expired"]
    assert again.register().id_pass.create_time.ToMicroseconds() == right.now_us
    again.stop()


def test_serve_says_why_a_clock_is_refused(tmp_path: Path) -> None:
    db = tmp_path / "idpass.db"
    ahead = FakeTime()
    ahead.advance(days=3)
    service = Service(db, time=ahead)
    service.register()
    service.stop()
    done = cli("serve", "--db", url_of(db), "--listen", "127.0.0.1:0")
    assert done.returncode == 1
    newest = datetime.fromtimestamp(ahead.now_us / 1e6, UTC).isoformat(timespec="seconds")
    assert newest in done.stderr
    assert "--accept-clock" in done.stderr
    with process(db, "--accept-clock") as server:
        created = server.register().id_pass.create_time.ToDatetime(UTC)
        assert created > datetime.now(UTC) + timedelta(days=2)


@pytest.mark.usefixtures("unswept")
def test_a_sweep_tells_how_many_expired_and_the_oldest(
    service: Service, logged: list[dict[str, Any]]
) -> None:
    first = service.register(link_validity_days=1).id_pass
    for _ in range(2):
        service.register(link_validity_days=2)
    service.cancel(service.register(link_validity_days=1).id_pass.id)
    service.time.advance(days=3)
    assert service.account().slots_in_use == 0
    oldest = first.expire_time.ToDatetime(UTC).isoformat(timespec="seconds")
    assert logged == [{"event": "passes_expired", "count": 3, "oldest_expire_time": oldest}]


# -- overdue is expired, whoever looks


LOOKS: dict[str, Callable[[Service, str], Any]] = {
    "get": lambda service, pass_id: service.get(pass_id).status,
    "list": lambda service, _: service.page().id_passes[0].status,
    "watch": lambda service, _: [
        event.to_status for _, event in zip(range(2), service.watch(), strict=False)
    ][-1],
    "watch one": lambda service, pass_id: list(service.watch(id=pass_id))[-1].to_status,
    "watch on": lambda service, _: next(service.watch(after_sequence=1)).to_status,
}


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.usefixtures("unswept")
def test_an_overdue_pass_is_expired_however_it_is_looked_at(service: Service, look: str) -> None:
    pass_id = service.register().id_pass.id
    service.time.advance(days=8)
    assert LOOKS[look](service, pass_id) == STATUS["expired"]
    assert refused(lambda: service.cancel(pass_id)).reason == "PASS_EXPIRED"
