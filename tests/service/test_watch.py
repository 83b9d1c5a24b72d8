"""WatchIdPasses: every event, once, in order, and no harm to anyone else."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from idpass.v1 import id_pass_pb2 as pb
from idpass_server.api import watch
from kit.support import STATUS, Service, eventually, refused


def test_events_say_what_happened(service: Service) -> None:
    pass_id = service.register(request_id="reg").id_pass.id
    service.advance(pass_id, "opened", request_id="adv")
    service.cancel(pass_id, request_id="can", reason=pb.CANCEL_REASON_FRAUD_SUSPECTED)
    registered, opened, cancelled = service.events()
    assert [e.sequence for e in (registered, opened, cancelled)] == [1, 2, 3]
    assert {e.id_pass_id for e in (registered, opened, cancelled)} == {pass_id}
    assert (registered.from_status, registered.to_status) == (0, STATUS["new"])
    assert (opened.from_status, opened.to_status) == (STATUS["new"], STATUS["opened"])
    assert (cancelled.from_status, cancelled.to_status) == (STATUS["opened"], STATUS["cancelled"])
    assert [e.request_id for e in (registered, opened, cancelled)] == ["reg", "adv", "can"]
    assert cancelled.reason == pb.CANCEL_REASON_FRAUD_SUSPECTED
    assert (cancelled.refund.currency_code, cancelled.refund.units) == ("AUD", 4)
    assert not opened.HasField("refund")
    assert cancelled.caller == "demo"


def test_a_watcher_sees_what_was_and_what_comes(service: Service) -> None:
    for _ in range(200):
        service.register()
    stream = service.watch()
    first = [next(stream).sequence for _ in range(200)]
    service.register()
    assert [*first, next(stream).sequence] == list(range(1, 202))
    stream.cancel()


def test_watchers_at_every_position_miss_none_and_double_none_while_passes_change(
    service: Service,
) -> None:
    positions, total = (0, 0, 0, 1, 50, 100), 600
    with ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda _: service.register(), range(100)))
        watched = [pool.submit(service.events, total, after_sequence=at) for at in positions]
        list(pool.map(lambda _: service.register(), range(total - 100)))
        for future, after in zip(watched, positions, strict=True):
            assert [e.sequence for e in future.result()] == list(range(after + 1, total + 1))


def test_a_watcher_that_resumes_again_and_again_sees_each_event_once(service: Service) -> None:
    total = 200
    seen: list[int] = []

    def resume() -> None:
        while len(seen) < total:
            stream = service.watch(after_sequence=seen[-1] if seen else 0)
            for event in stream:
                seen.append(event.sequence)
                if len(seen) % 7 == 0 or len(seen) == total:
                    break
            stream.cancel()

    watcher = threading.Thread(target=resume)
    watcher.start()
    for _ in range(total):
        service.register()
    watcher.join(timeout=60)
    assert seen == list(range(1, total + 1))


def test_one_pass_can_be_watched_to_its_end(service: Service) -> None:
    pass_id = service.register().id_pass.id
    stream = service.watch(id=pass_id.upper())
    assert next(stream).to_status == STATUS["new"]
    for _ in range(70):
        service.register()
    service.advance(pass_id, "opened")
    assert next(stream).to_status == STATUS["opened"]
    service.cancel(pass_id)
    assert [e.to_status for e in stream] == [STATUS["cancelled"]]
    assert stream.code() == grpc.StatusCode.OK
    last = service.account().last_sequence
    assert list(service.watch(id=pass_id, after_sequence=last)) == []
    whole = list(service.watch(id=pass_id))
    assert [e.sequence for e in whole] == [1, last - 1, last]
    for after in (1, 2, last - 2, last - 1):
        rest = [e for e in whole if e.sequence > after]
        assert list(service.watch(id=pass_id, after_sequence=after)) == rest


def test_a_stream_tells_its_reference_at_once(service: Service) -> None:
    stream = service.watch()
    assert dict(stream.initial_metadata())["idpass-reference"]
    stream.cancel()


@pytest.mark.parametrize("after", [-1, 1])
def test_a_sequence_that_cannot_have_been_seen_is_refused(service: Service, after: int) -> None:
    error = refused(lambda: next(service.watch(after_sequence=after)))
    assert error.reason == "INVALID_REQUEST"
    (violation,) = error.details["BadRequest"].field_violations  # type: ignore[attr-defined]
    assert violation.field == "after_sequence"


def test_a_watcher_that_does_not_read_delays_nobody(service: Service) -> None:
    slow = service.watch()
    next_of_slow = iter(slow)
    for _ in range(900):
        service.register(applicant_reference="x" * 128)
    pass_id = service.register().id_pass.id
    assert service.cancel(pass_id).fee_refunded
    assert [e.sequence for e in service.events()] == list(range(1, 903))
    assert [next(next_of_slow).sequence for _ in range(902)] == list(range(1, 903))
    slow.cancel()


def test_watchers_catch_up_after_a_busy_time(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "EVENTS_READ_PER_S_WHILE_BUSY", 500)
    total = 300
    with ThreadPoolExecutor(24) as pool:
        watched = [pool.submit(service.events, total) for _ in range(8)]
        list(pool.map(lambda _: service.register(), range(total)))
        for future in watched:
            assert [e.sequence for e in future.result()] == list(range(1, total + 1))


def test_one_stream_too_many_is_overloaded_until_one_ends(tmp_path: Path) -> None:
    service = Service(tmp_path / "idpass.db", max_watchers=2)
    streams = [service.watch() for _ in range(2)]
    for stream in streams:
        stream.initial_metadata()
    eventually(lambda: service.server._watchers.open == 2)
    error = refused(lambda: next(service.watch()))
    assert (error.code, error.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
    streams.pop().cancel()
    eventually(lambda: service.server._watchers.open == 1)
    another = service.watch()
    service.register()
    assert next(another).sequence == 1
    for stream in (another, *streams):
        stream.cancel()
    service.stop()


def test_a_stopping_server_ends_its_streams_so_that_they_can_be_resumed(service: Service) -> None:
    service.register()
    stream = service.watch()
    next(stream)
    service.loop.call_soon_threadsafe(service.server.stop)
    error = refused(lambda: next(stream))
    assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
    assert "resume after 1" in error.message
