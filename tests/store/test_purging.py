"""Purging, beside a running server: what goes, what stays, and who is told, on both stores."""

from contextlib import closing

import grpc
import pytest

from idpass_server.ids import new_uuid
from idpass_server.store import refunds
from idpass_server.store.opening import open_store, reading_store
from idpass_server.store.retention import Wanted
from kit.support import STATUS, Service, problems, refused, told

pytestmark = pytest.mark.both_stores


def purge(service: Service, before_us: int | None = None) -> int:
    """Purges what has ended up to now, in one transaction of another connection."""
    before_us = service.time.now_us + 1 if before_us is None else before_us
    with closing(open_store(service.url, exclusive=False)) as store:
        found = store.find_passes(Wanted("demo", before_us), None, 1_000)
        return store.purge("demo", found.ids, before_us)


def test_what_has_ended_goes_with_all_that_is_its_own_and_the_books_stay(service: Service) -> None:
    ended = [service.pass_in(each) for each in ("complete", "failed", "expired", "cancelled")]
    flying = [service.pass_in(each) for each in ("opened", "in_progress", "new")]
    before = service.account()
    assert purge(service) == len(ended)
    after = service.account()
    assert after.oldest_sequence == before.last_sequence - 6  # the events of those in flight
    before.oldest_sequence = after.oldest_sequence
    assert after == before
    assert sorted(each.id for each in service.list_all()) == sorted(flying)
    for gone in ended:
        assert refused(lambda: service.get(gone)).reason == "PASS_NOT_FOUND"  # noqa: B023 called at once
        assert refused(lambda: service.cancel(gone)).reason == "PASS_NOT_FOUND"  # noqa: B023 likewise
    assert purge(service) == 0
    assert problems(service.url) == []
    with reading_store(service.url) as connection:
        (total,) = refunds.totals(connection, refunds.Range(0, 2**60))
        timers = connection.execute("SELECT count(*) FROM timers").fetchone()
    assert timers == (len(flying),)
    assert total.events_charged_micros == total.account_charged_micros == 7 * 4_500_000
    assert total.events_refunded_micros == total.account_refunded_micros == 4_500_000
    for pass_id in flying:
        service.cancel(pass_id)
    assert service.account().slots_in_use == 0


def test_positions_before_the_newest_purged_event_are_lost_and_no_others(service: Service) -> None:
    flying = service.register().id_pass.id  # 1
    service.pass_in("cancelled")  # 2, 3
    service.advance(flying, "opened")  # 4
    purge(service)
    assert service.account().oldest_sequence == 3
    for position in (0, 1, 2):
        error = refused(lambda: next(service.watch(after_sequence=position)))  # noqa: B023 called at once
        assert (error.reason, error.metadata["oldestSequence"]) == ("HISTORY_LOST", "3")
    assert [e.sequence for e in service.events(after_sequence=3)] == [4]
    # A pass that is there has all its events.
    stream = service.watch(id=flying)
    assert [next(stream).sequence for _ in range(2)] == [1, 4]
    service.cancel(flying)
    assert [e.sequence for e in stream] == [5]


def test_a_watcher_behind_gets_every_event_or_is_told(service: Service) -> None:
    for _ in range(100):
        service.pass_in("cancelled")
    service.register()
    stream = service.watch()
    assert next(stream).sequence == 1
    purge(service)
    seen = 1
    try:
        while seen < 201:
            assert next(stream).sequence == seen + 1
            seen += 1
        stream.cancel()
    except grpc.RpcError as error:
        assert told(error).reason == "HISTORY_LOST"


def test_the_receipts_go_with_their_pass(service: Service) -> None:
    pass_id = service.register(request_id="r").id_pass.id
    service.cancel(pass_id, request_id="c")
    kept = service.register(request_id="k").id_pass.id
    purge(service)
    assert service.register(request_id="k").id_pass.id == kept
    again = service.register(request_id="r")
    assert (again.replayed, again.id_pass.id == pass_id) == (False, False)
    assert refused(lambda: service.cancel(pass_id, request_id="c")).reason == "PASS_NOT_FOUND"


def test_a_pass_may_name_a_purged_one(service: Service) -> None:
    prior = service.register(applicant_reference="zoe").id_pass.id
    new = service.register(supersedes=prior, request_id="s").id_pass.id
    assert purge(service) == 1
    assert service.get(new).supersedes == prior
    assert problems(service.url) == []
    # Its prior is gone, so the retry of its registration is refused and registers nothing.
    error = refused(lambda: service.register(supersedes=prior, request_id="s"))
    assert error.reason == "PASS_NOT_FOUND"
    newer = service.register(supersedes=new).id_pass.id
    service.cancel(newer)
    service.register()
    with closing(open_store(service.url, exclusive=False)) as store:
        assert store.purge("demo", [newer], service.time.now_us + 1) == 1
    assert service.get(new).superseded_by == newer
    assert problems(service.url) == []


def test_the_pass_of_the_newest_event_stays_until_there_is_a_newer_one(service: Service) -> None:
    pass_id = service.pass_in("cancelled")
    assert purge(service) == 0
    assert service.get(pass_id).status == STATUS["cancelled"]
    service.register()
    assert purge(service) == 1
    with closing(open_store(service.url, exclusive=False)) as store:
        assert store.newest_event_time_us() is not None


def test_what_ended_later_and_what_is_in_flight_stays_whatever_is_asked(service: Service) -> None:
    old, flying = service.pass_in("cancelled"), service.register().id_pass.id
    service.time.advance(days=2)
    young = service.pass_in("cancelled")
    service.register()
    before_us = service.time.now_us
    with closing(open_store(service.url, exclusive=False)) as store:
        assert store.purge("demo", [young, flying, new_uuid()], before_us) == 0
        assert store.purge("other", [old], before_us) == 0
    assert purge(service, before_us) == 1
    assert {old, young, flying} - {each.id for each in service.list_all()} == {old}


def test_a_list_goes_on_where_it_was(service: Service) -> None:
    ids = [service.pass_in("cancelled") for _ in range(6)]
    newest = service.register().id_pass.id
    first = service.page(page_size=3)
    purge(service)
    assert [each.id for each in first.id_passes] == [newest, ids[5], ids[4]]
    rest = service.page(page_size=3, page_token=first.next_page_token)
    assert list(rest.id_passes) == []


def test_erased_passes_of_a_disabled_account_are_purged_as_others(service: Service) -> None:
    service.pass_in("cancelled")
    service.register()
    with closing(open_store(service.url, exclusive=False)) as store:
        store.set_account("demo", disabled=True)
    assert purge(service) == 1


def test_a_second_purge_adds_to_the_first(service: Service) -> None:
    early = service.pass_in("cancelled")  # 1, 2
    late = service.pass_in("cancelled")  # 3, 4
    service.register()
    with closing(open_store(service.url, exclusive=False)) as store:
        for pass_id in (late, early):  # whichever goes first
            assert store.purge("demo", [pass_id], service.time.now_us + 1) == 1
            assert service.account().oldest_sequence == 4
            assert problems(service.url) == []
        with reading_store(service.url) as connection:
            sums = connection.execute("SELECT * FROM purged_totals").fetchall()
            (total,) = refunds.totals(connection, refunds.Range(0, 2**60))
    assert list(map(tuple, sums)) == [("demo", 2, 4, 9_000_000, 9_000_000)]
    assert total.events_refunded_micros == total.account_refunded_micros == 9_000_000
