"""ListIdPasses: filters, and pages that stay right while passes change."""

import base64
import json
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from idpass.v1 import id_pass_pb2 as pb
from idpass.v1.id_pass_service_pb2 import ListRequest
from idpass_server.api import requests
from idpass_server.api.identity import DEMO
from idpass_server.rules.refusals import InvalidRequest
from idpass_server.store import ListQuery
from idpass_server.store.postgres import sql as postgres_sql
from idpass_server.store.postgres import store as postgres
from idpass_server.store.sqlite import sql as sqlite_sql
from idpass_server.store.sqlite import store as sqlite
from kit.support import STATUS, UNKNOWN_ID, Service, refused

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
    for asked, granted in ((0, 50), (1, 1), (1_000, 1_000), (1_001, 1_000)):
        query, _ = requests.list_query(ListRequest(page_size=asked), DEMO)
        assert query.limit == granted


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


def test_finds_the_passes_of_an_applicant_by_the_whole_reference(service: Service) -> None:
    ids = [service.register(applicant_reference="Zoë 1").id_pass.id for _ in range(3)]
    for other in ("Zoë", "Zoë 11", "zoë 1", ""):
        service.register(applicant_reference=other)
    service.cancel(ids[1])

    def found(**fields: object) -> list[str]:
        listed = service.list_all(applicant_reference="Zoë 1", page_size=1, **fields)
        return [each.id for each in listed]

    assert found() == ids[::-1]
    assert found(statuses=[STATUS["cancelled"]]) == [ids[1]]
    assert len(service.list_all()) == 7
    assert not service.list_all(applicant_reference="nobody")


def test_an_applicant_is_found_by_an_index_and_not_by_a_scan(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its plan says so. A page that looks at two passes finds two, whatever lies between."""
    ids = [service.register(applicant_reference=each).id_pass.id for each in "xyyyx"]
    for module in (sqlite, postgres):
        monkeypatch.setattr(module, "LIST_SCAN_ROWS", 2)
    assert [p.id for p in service.list_all(applicant_reference="x")] == [ids[4], ids[0]]
    query = ListQuery("demo", 50, UNKNOWN_ID, applicant_reference="x")
    for statement in ("LIST", "LAST_SCANNED"):
        assert "passes_applicant_reference" in plan(service, statement, query)


def plan(service: Service, statement: str, query: ListQuery) -> str:
    """How the database would run a statement of a list, with the settings of a server."""
    store = service.server._store
    values = query._asdict() | {"scan": 2, "statuses": None}
    if isinstance(store, sqlite.SqliteStore):
        text = sqlite_sql.for_query(getattr(sqlite_sql, statement), query)
        return str(
            [tuple(row) for row in store._writer.execute(f"EXPLAIN QUERY PLAN {text}", values)]
        )
    assert isinstance(store, postgres.PostgresStore)
    text = postgres_sql.for_query(getattr(postgres_sql, statement), query)
    return str(store._all(f"EXPLAIN {text}", values))


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
    error = refused(lambda: service.page(page_token=token, applicant_reference="x"))
    assert "page_token" in error.message
    assert service.page(page_size=2, page_token=token).id_passes


@pytest.mark.parametrize("before_id", ["", "x", UNKNOWN_ID[1:], UNKNOWN_ID + "'"])
def test_a_token_that_names_no_pass_is_refused(before_id: str) -> None:
    query, _ = requests.list_query(ListRequest(), DEMO)
    token = requests.page_token(query, before_id, "")
    with pytest.raises(InvalidRequest):
        requests.list_query(ListRequest(page_token=token), DEMO)


@pytest.mark.parametrize(
    ("account", "other"),
    [
        ("another", {}),
        ("demo", {"statuses": []}),
        ("demo", {"statuses": [STATUS["opened"]]}),
        ("demo", {"idle_before": None}),
        ("demo", {"idle_before": Timestamp(seconds=1_000, nanos=1_000)}),
        ("demo", {"applicant_reference": ""}),
        ("demo", {"applicant_reference": "bob"}),
    ],
)
def test_a_token_is_good_for_its_own_account_and_every_part_of_its_filter(
    account: str, other: dict[str, Any]
) -> None:
    asked: dict[str, Any] = {
        "statuses": [STATUS["new"]],
        "idle_before": Timestamp(seconds=1_000),
        "applicant_reference": "ann",
    }
    query, _ = requests.list_query(ListRequest(**asked), DEMO)
    token = requests.page_token(query, UNKNOWN_ID, "")
    asked["page_token"] = token
    assert requests.list_query(ListRequest(**asked), DEMO)[0].before_id == UNKNOWN_ID
    with pytest.raises(InvalidRequest) as raised:
        requests.list_query(ListRequest(**asked | other), DEMO._replace(account=account))
    assert [violation.field for violation in raised.value.violations] == ["page_token"]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"page_size": -1}, "page_size"),
        ({"statuses": [99]}, "statuses[0]"),
        ({"statuses": [STATUS["new"], pb.ID_PASS_STATUS_UNSPECIFIED]}, "statuses[1]"),
        ({"idle_before": Timestamp(seconds=-(10**15))}, "idle_before"),
        ({"idle_before": Timestamp(seconds=5, nanos=-1)}, "idle_before"),
        ({"applicant_reference": "a\nb"}, "applicant_reference"),
        ({"applicant_reference": "x" * 129}, "applicant_reference"),
    ],
)
def test_a_malformed_request_names_the_field(
    service: Service, fields: dict[str, object], field: str
) -> None:
    error = refused(lambda: service.page(**fields))
    (violation,) = error.details["BadRequest"].field_violations  # type: ignore[attr-defined]
    assert violation.field == field
