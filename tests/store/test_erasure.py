"""Erasing, beside a running server: the database, its watchers and its audit, on both stores."""

import time
from pathlib import Path

import pytest

from idpass.v1 import id_pass_pb2 as pb
from idpass_server.ids import new_uuid
from idpass_server.rules.commands import Erase, Erased, Outcome
from idpass_server.store.opening import open_store
from idpass_server.store.retention import Wanted
from kit.support import STATUS, Service, eventually, refused

pytestmark = pytest.mark.both_stores


def erase(service: Service, *ids: str) -> list[Outcome]:
    """Erases passes in one transaction of another connection."""
    store = open_store(service.url, exclusive=False)
    commands = [Erase("demo", new_uuid(), pass_id) for pass_id in ids]
    outcomes = store.commit(commands, time.time_ns() // 1_000).outcomes
    store.close()
    return outcomes


def cancelled(service: Service) -> str:
    """A pass that tells of its applicant in every way."""
    registered = service.register(applicant_reference="zoe-77", request_id=new_uuid())
    pass_id = registered.id_pass.id
    service.advance(pass_id, "opened")
    service.cancel(pass_id, note="Zoe called 0412", request_id=new_uuid())
    return pass_id


def test_a_pass_is_as_before_but_for_what_it_said_of_its_applicant(service: Service) -> None:
    pass_id = cancelled(service)
    before, account = service.get(pass_id), service.account()
    erase(service, pass_id)
    before.applicant_reference = ""
    before.cancellation.note = ""
    account.last_sequence += 1
    assert (service.get(pass_id), service.account()) == (before, account)


def test_an_open_watcher_sees_the_erasure_although_another_process_wrote_it(
    service: Service,
) -> None:
    pass_id = cancelled(service)
    watcher = service.watch(after_sequence=3)
    erase(service, pass_id)
    event = next(watcher)
    watcher.cancel()
    assert (event.sequence, event.id_pass_id, event.erased) == (4, pass_id, True)
    assert event.from_status == event.to_status == STATUS["cancelled"]
    assert (event.caller, event.request_id, event.HasField("refund")) == ("operator", "", False)


def test_watching_one_pass_ends_behind_its_erasure(service: Service) -> None:
    pass_id = cancelled(service)
    other = service.register(applicant_reference="bob").id_pass.id
    erase(service, pass_id, other)
    assert [e.sequence for e in service.watch(id=pass_id)] == [1, 2, 3, 5]
    assert [e.sequence for e in service.watch(id=pass_id, after_sequence=3)] == [5]
    assert list(service.watch(id=pass_id, after_sequence=5)) == []
    stream = service.watch(id=other)
    assert [next(stream).erased for _ in range(2)] == [False, True]
    service.cancel(other)
    assert [e.to_status for e in stream] == [STATUS["cancelled"]]


def test_a_pass_in_flight_goes_its_way_after_its_erasure(service: Service) -> None:
    pass_id = service.register(applicant_reference="zoe-77", request_id="r").id_pass.id
    erase(service, pass_id)
    service.advance(pass_id, "opened", request_id="o")
    assert service.advance(pass_id, "opened", request_id="o").replayed
    assert service.register(applicant_reference="zoe-77", request_id="r").replayed
    assert service.cancel(pass_id, note="Zoe called", request_id="c").fee_refunded
    assert [isinstance(each, Erased) and each.event is not None for each in erase(service, pass_id)]
    assert service.cancel(pass_id, note="Zoe called", request_id="c").replayed
    assert [e.erased for e in service.watch(id=pass_id)] == [False, True, False, False, True]


def test_a_retry_is_answered_from_what_is_left(service: Service) -> None:
    request = {"applicant_reference": "zoe-77", "request_id": "r", "link_validity_days": 3}
    pass_id = service.register(**request).id_pass.id
    service.cancel(pass_id, request_id="c", note="Zoe called", reason=pb.CANCEL_REASON_OTHER)
    erase(service, pass_id)
    again = service.register(**request)
    assert (again.replayed, again.id_pass.id, again.id_pass.applicant_reference) == (
        *(True, pass_id),
        "",
    )
    assert service.cancel(pass_id, request_id="c", reason=pb.CANCEL_REASON_OTHER).replayed
    for other in (
        lambda: service.register(request_id="r"),
        lambda: service.cancel(pass_id, request_id="r"),
        lambda: service.cancel(pass_id, request_id="c", reason=pb.CANCEL_REASON_ABANDONED),
    ):
        assert refused(other).reason == "REQUEST_ID_REUSED"


def test_nothing_of_what_was_erased_is_left_to_be_guessed(service: Service, tmp_path: Path) -> None:
    pass_id = cancelled(service)
    erase(service, pass_id)
    store = open_store(service.url, exclusive=False)
    events = store.events("demo", 0, 9)
    store.close()
    assert [e.request_digest for e in events] == ["erased", None, "erased", None]
    if service.url.startswith("sqlite"):
        service.stop()  # which folds the WAL into the file
        for file in tmp_path.iterdir():
            assert b"zoe-77" not in file.read_bytes()
            assert b"0412" not in file.read_bytes()


def test_passes_are_found_page_by_page_in_the_order_of_their_ids(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("idpass_server.store.retention.SCAN_ROWS", 3)
    flying = [service.register(applicant_reference="zoe").id_pass.id for _ in range(5)]
    ended = [cancelled(service) for _ in range(4)]
    service.cancel(service.register().id_pass.id)
    noted = service.register().id_pass.id
    service.cancel(noted, note="Zoe called")
    far_us = time.time_ns() // 1_000 + 1_000_000
    store = open_store(service.url, exclusive=False)

    def all_pages(wanted: Wanted, limit: int = 2) -> list[str]:
        found: list[str] = []
        after_id: str | None = None
        while True:
            ids, after_id = store.find_passes(wanted, after_id, limit)
            found += ids
            if after_id is None:
                return found

    assert all_pages(Wanted("demo", personal=True)) == [*flying, *ended, noted]
    assert all_pages(Wanted("demo", applicant_reference="zoe")) == flying
    assert all_pages(Wanted("demo", far_us, personal=True)) == [*ended, noted]
    assert len(all_pages(Wanted("demo", far_us), 50)) == 6
    assert all_pages(Wanted("demo", 1)) == []
    assert all_pages(Wanted("other")) == []
    store.close()


def test_the_server_erases_by_itself_what_ended_long_ago(db: Path | str) -> None:
    service = Service(db, erase_after="30d")
    try:
        old = cancelled(service)
        service.time.advance(days=31)
        young = cancelled(service)
        flying = service.register(applicant_reference="bob").id_pass.id
        service.time.advance(days=1)
        # Its next round would come in ten minutes.
        service.stop()
        service = Service(db, erase_after="30d", time=service.time)
        eventually(lambda: not service.get(old).applicant_reference)
        assert service.get(young).applicant_reference
        assert service.get(flying).applicant_reference
        (erasure,) = (e for e in service.events() if e.erased)
        assert (erasure.id_pass_id, erasure.caller) == (old, "sweeper")
    finally:
        service.stop()
