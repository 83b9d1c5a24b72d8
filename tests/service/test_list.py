"""ListIdPasses: filters, and pages that stay right while passes change."""

import base64
import json

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from idpass.v1 import id_pass_pb2 as pb
from idpass_server.store.sqlite import store as sqlite
from kit.support import STATUS, Service, refused

pytestmark = pytest.mark.both_stores


def test_lists_newest_first_in_pages(service: Service) -> None:
    ids = [service.register().id_pass.id for _ in range(7)]
    pages = []
    page = service.page(page_size=3)
    pages.append([p.id for p in page.id_passes])
    while page.next_page_token:
        page = service.page(page_size=3, page_token=page.next_page_token)
        pages.append([p.id for p in page.id_passes])
    assert pages == [ids[:3:-1], ids[3:0:-1], ids[:1]]


def test_no_pass_is_one_empty_page(service: Service) -> None:
    page = service.page()
    assert (len(page.id_passes), page.next_page_token) == (0, "")


def test_a_page_holds_fifty_by_default_and_a_thousand_at_most(service: Service) -> None:
    for _ in range(60):
        service.register()
    assert len(service.page().id_passes) == 50
    assert len(service.page(page_size=2**31 - 1).id_passes) == 60


def test_filters_by_status_and_by_idle_time(service: Service) -> None:
    opened = service.pass_in("opened")
    new = service.pass_in("new")
    service.pass_in("complete")
    service.time.advance(days=2)
    late = service.pass_in("opened")
    idle_before = Timestamp()
    idle_before.FromMicroseconds(service.time.now_us - 1)

    def ids(**fields: object) -> set[str]:
        return {p.id for p in service.list_all(**fields)}

    assert ids(statuses=[STATUS["opened"]]) == {opened, late}
    assert ids(statuses=[STATUS["opened"], STATUS["new"]]) == {opened, late, new}
    assert ids(statuses=[STATUS["opened"]], idle_before=idle_before) == {opened}
    assert ids(statuses=[STATUS["failed"]]) == set()


def test_a_pass_that_stays_is_seen_once_however_much_changes(service: Service) -> None:
    stay = {service.register().id_pass.id for _ in range(20)}
    leave = [service.register().id_pass.id for _ in range(20)]
    seen: list[str] = []
    fields = {"statuses": [STATUS["new"]], "page_size": 4}
    page = service.page(**fields)
    while True:
        seen += [p.id for p in page.id_passes]
        if leave:
            service.cancel(leave.pop())
            service.advance(leave.pop(0), "opened")
        service.register()
        if not page.next_page_token:
            break
        page = service.page(page_token=page.next_page_token, **fields)
    assert len(seen) == len(set(seen))
    assert stay <= set(seen)


def test_a_rare_status_is_found_over_bounded_pages(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "LIST_SCAN_ROWS", 5)
    rare = [service.pass_in("opened")]
    for _ in range(23):
        service.register()
    rare.append(service.pass_in("opened"))
    assert [p.id for p in service.list_all(statuses=[STATUS["opened"]], page_size=2)] == rare[::-1]


@pytest.mark.parametrize(
    "token",
    ["x", "e30", "WzEsMl0", "bm8", "é", "W1tdLCB7fV0", "eyJhIjogMSwgImIiOiAiIn0", "A" * 5000],
)
def test_a_token_that_is_none_is_refused(service: Service, token: str) -> None:
    error = refused(lambda: service.page(page_token=token))
    assert error.reason == "INVALID_REQUEST"
    (violation,) = error.details["BadRequest"].field_violations  # type: ignore[attr-defined]
    assert violation.field == "page_token"


def test_programs_read_the_tokens_of_the_version_before_and_the_one_after(service: Service) -> None:
    for _ in range(2):
        service.register()
    token = service.page(page_size=1).next_page_token
    # The previous program unpacks two values from JSON.
    digest, before_id = json.loads(base64.urlsafe_b64decode(token + "=="))
    assert before_id == service.page(page_size=1).id_passes[0].id
    former = base64.urlsafe_b64encode(json.dumps([digest, before_id]).encode()).decode().rstrip("=")
    assert len(service.page(page_token=former).id_passes) == 1


def test_a_token_is_good_for_its_own_filter_only(service: Service) -> None:
    for _ in range(3):
        service.register()
    token = service.page(page_size=1).next_page_token
    error = refused(lambda: service.page(page_token=token, statuses=[STATUS["new"]]))
    assert error.reason == "INVALID_REQUEST"
    assert "page_token" in error.message
    assert service.page(page_size=2, page_token=token).id_passes


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"page_size": -1}, "page_size"),
        ({"statuses": [99]}, "statuses[0]"),
        ({"statuses": [STATUS["new"], pb.ID_PASS_STATUS_UNSPECIFIED]}, "statuses[1]"),
        ({"idle_before": Timestamp(seconds=-(10**15))}, "idle_before"),
        ({"idle_before": Timestamp(seconds=5, nanos=-1)}, "idle_before"),
    ],
)
def test_a_malformed_request_names_the_field(
    service: Service, fields: dict[str, object], field: str
) -> None:
    error = refused(lambda: service.page(**fields))
    (violation,) = error.details["BadRequest"].field_violations  # type: ignore[attr-defined]
    assert violation.field == field
