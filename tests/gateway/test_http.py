"""HTTP/JSON as its callers know it: the same service, in their own words."""

import json
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest

from idpass.v1 import id_pass_service_pb2 as service_pb
from kit.guarded import caller
from kit.http import JSON, Http, detail, reason, scripted, served, wrong_fields
from kit.support import UNKNOWN_ID, make_accounts
from kit.ways import WAYS

PASS_ID = "0198c0de-0000-7000-8000-000000000001"


@pytest.mark.parametrize("status", WAYS)
def test_cancelling_over_http_is_decided_by_the_status(server: Http, status: str) -> None:
    pass_id = server.pass_in(status)
    before = server.account().fees_refunded.units
    response = server.post("cancel", id=pass_id, reason="abandoned")
    if status in {"new", "opened", "in_progress"}:
        refunded = status != "in_progress"
        assert response.status_code == 200
        answer = response.json()
        assert answer["status"] == "cancelled"
        assert answer["fee_refunded"] is refunded
        assert answer["previous_status"] == status
        assert answer["replayed"] is False
        assert len(answer["reference"]) == 36
        assert answer["cancel_time"].endswith("Z")
        refund = {"currency": "AUD", "amount": "4.50"} if refunded else None
        assert answer.get("refund") == refund
        assert server.get(pass_id).cancellation.reason == 1
    else:
        assert response.status_code == 400
        ended = "ALREADY_CANCELLED" if status == "cancelled" else status.upper()
        assert reason(response) == f"PASS_{ended}"
        assert response.json()["code"] == 9
        assert detail(response, "ErrorInfo")["metadata"]["status"] == status
        assert server.account().fees_refunded.units == before


def test_the_whole_life_of_a_pass_over_http(server: Http) -> None:
    registered = server.post("register", applicant_reference="Zoë", link_validity_days=3).json()
    id_pass = registered["id_pass"]
    assert id_pass["applicant_reference"] == "Zoë"
    assert id_pass["fee"] == {"currency": "AUD", "amount": "4.50"}
    advanced = server.post("advance", id=id_pass["id"], to_status="opened").json()
    assert advanced["id_pass"]["status"] == "opened"
    found = server.post("details", id=id_pass["id"]).json()
    assert found["id_pass"] == advanced["id_pass"]
    listed = server.post("list", statuses=["opened"], page_size=1).json()
    assert listed["id_passes"] == [found["id_pass"]]
    again = server.post("register", supersedes=id_pass["id"]).json()
    assert again["superseded"]["fee_refunded"] is True
    assert again["id_pass"]["supersedes"] == id_pass["id"]
    account = server.http.get("/idpass/account").json()
    assert account["id"] == "demo"
    assert account["last_sequence"] == server.account().last_sequence
    assert server.http.head("/idpass/account").status_code == 200


def test_pages_follow_one_another(server: Http) -> None:
    ids = {server.register().id_pass.id for _ in range(5)}
    seen: list[str] = []
    token: dict[str, Any] = {}
    while True:
        page = server.post("list", page_size=2, **token).json()
        seen += [each["id"] for each in page["id_passes"]]
        if "next_page_token" not in page:
            break
        token = {"page_token": page["next_page_token"]}
    assert ids <= set(seen)
    assert len(seen) == len(set(seen))


def test_the_passes_of_an_applicant_are_listed(server: Http) -> None:
    pass_id = server.register(applicant_reference="someone").id_pass.id
    server.register(applicant_reference="someone else")
    (found,) = server.post("list", applicant_reference="someone").json()["id_passes"]
    assert found["id"] == pass_id


def test_a_batch_answers_each_item_by_itself(server: Http) -> None:
    new, complete = server.pass_in("new"), server.pass_in("complete")
    items = [{"id": new}, {"id": complete}, {"id": "x"}]
    answer = server.post("batch-cancel", requests=items).json()
    first, second, third = answer["results"]
    assert first["response"]["status"] == "cancelled"
    assert second["error"]["code"] == 9
    assert "PASS_COMPLETE" in json.dumps(second["error"]["details"])
    assert "INVALID_REQUEST" in json.dumps(third["error"]["details"])
    assert (answer["cancelled_count"], answer["refunded_count"]) == (1, 1)
    assert answer["refund_totals"] == [{"currency": "AUD", "amount": "4.50"}]


def test_the_idempotency_key_is_the_request_id(server: Http) -> None:
    pass_id = server.pass_in("new")
    body = json.dumps({"id": pass_id})
    first = server.send(body, Idempotency_Key="key-1").json()
    again = server.send(body, Idempotency_Key="key-1").json()
    assert (first["replayed"], again["replayed"]) == (False, True)
    assert again == first | {"replayed": True}
    assert server.cancel(pass_id, request_id="key-1").replayed
    other = server.send(json.dumps({"id": server.pass_in("new")}), Idempotency_Key="key-1")
    assert (other.status_code, reason(other)) == (400, "REQUEST_ID_REUSED")
    same = server.send(json.dumps({"id": pass_id, "request_id": "key-1"}), Idempotency_Key="key-1")
    assert same.json()["replayed"] is True


@pytest.mark.parametrize(
    ("path", "body", "key"),
    [
        ("cancel", {"id": PASS_ID, "request_id": "a"}, "b"),
        ("cancel", {"id": PASS_ID}, "with space"),
        ("cancel", {"id": PASS_ID}, "k" * 129),
        ("batch-cancel", {"requests": [{"id": PASS_ID}]}, "b"),
    ],
)
def test_an_idempotency_key_that_cannot_be_the_request_id_is_an_error(
    server: Http, path: str, body: dict[str, Any], key: str
) -> None:
    response = server.send(json.dumps(body), path, Idempotency_Key=key)
    assert (response.status_code, reason(response)) == (400, "INVALID_REQUEST")
    assert wrong_fields(response) == ["Idempotency-Key"]


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"id": PASS_ID, "unknown": 1}, ["unknown"]),
        ({"id": PASS_ID, "requestId": "a"}, ["requestId"]),
        ({"id": None}, ["id"]),
        ({"id": 7}, ["id"]),
        ({"id": PASS_ID, "note": "\ud800"}, ["note"]),
        ({"id": PASS_ID, "require_refund": "true"}, ["require_refund"]),
        ({"id": PASS_ID, "require_refund": 1}, ["require_refund"]),
        ({"id": PASS_ID, "expected_status": "NEW"}, ["expected_status"]),
        ({"id": PASS_ID, "expected_status": 1}, ["expected_status"]),
        ({"id": PASS_ID, "expected_status": "ID_PASS_STATUS_NEW"}, ["expected_status"]),
        ({"id": PASS_ID, "reason": "unspecified"}, ["reason"]),
        ({"id": PASS_ID, "reason": []}, ["reason"]),
        ({"id": [], "reason": "x", "<b>": {}}, ["id", "reason", "<b>"]),
    ],
)
def test_every_field_that_cannot_be_read_is_named(
    server: Http, fields: dict[str, Any], wrong: list[str]
) -> None:
    response = server.send(json.dumps(fields))
    assert (response.status_code, reason(response)) == (400, "INVALID_REQUEST")
    assert wrong_fields(response) == wrong


@pytest.mark.parametrize(
    ("path", "fields", "wrong"),
    [
        ("batch-cancel", {"requests": [{}, 1, {"x": 1}]}, ["requests[1]", "requests[2].x"]),
        ("batch-cancel", {"requests": {}}, ["requests"]),
        ("register", {"link_validity_days": 1.5}, ["link_validity_days"]),
        ("register", {"link_validity_days": 2**31}, ["link_validity_days"]),
        ("register", {"link_validity_days": True}, ["link_validity_days"]),
        ("list", {"statuses": ["new", "old"]}, ["statuses[1]"]),
        ("list", {"idle_before": "yesterday"}, ["idle_before"]),
        ("list", {"idle_before": 0}, ["idle_before"]),
    ],
)
def test_so_is_every_field_inside_others(
    server: Http, path: str, fields: dict[str, Any], wrong: list[str]
) -> None:
    response = server.post(path, **fields)
    assert (response.status_code, reason(response)) == (400, "INVALID_REQUEST")
    assert wrong_fields(response) == wrong


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"id"',
        b"null",
        b"1",
        b"\xff",
        b'{"id": "\xff"}',
        b"\xef\xbb\xbf{}",
        '{"id": "x"}'.encode("utf-16"),
        b'{"id": NaN}',
        b'{"id": Infinity}',
        b'{"id": "a", "id": "b"}',
        b'{"requests": [{"id": "a", "id": "b"}]}',
        b'{"id": "a"} {}',
        b"{'id': 'a'}",
        b'{"id": ' + b"9" * 5_000 + b"}",
        b'{"id": ' + b"[" * 8_000 + b"]" * 8_000 + b"}",
    ],
    ids=lambda body: repr(body[:24]),
)
def test_what_is_no_json_object_is_refused(server: Http, body: bytes) -> None:
    response = server.send(body)
    assert (response.status_code, reason(response)) == (400, "INVALID_REQUEST")
    assert all("BadRequest" not in each["@type"] for each in response.json()["details"])


def test_a_number_beyond_all_numbers_is_a_number(server: Http) -> None:
    response = server.send(b'{"id": 1e999999999}')
    assert (response.status_code, wrong_fields(response)) == (400, ["id"])


@pytest.mark.parametrize(
    "content_type",
    ["", "text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin-1"],
)
def test_another_content_type_is_refused(server: Http, content_type: str) -> None:
    response = server.send(b"{}", content_type=content_type)
    assert (response.status_code, reason(response)) == (415, "INVALID_REQUEST")


def test_a_pass_is_found_at_its_path(server: Http) -> None:
    pass_id = server.pass_in("opened")
    found = server.http.get(f"/idpass/{pass_id}")
    assert found.status_code == 200
    assert found.json()["id_pass"] == server.post("details", id=pass_id).json()["id_pass"]
    assert found.headers["idpass-reference"] == found.json()["reference"]
    assert found.headers["cache-control"] == "no-store"
    assert not {"ratelimit", "ratelimit-policy"} & set(found.headers)  # there is no rate
    assert server.http.get(f"/idpass/{pass_id.upper()}").json()["id_pass"]["id"] == pass_id
    head = server.http.head(f"/idpass/{pass_id}")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == found.headers["content-length"]
    missing = server.http.get(f"/idpass/{UNKNOWN_ID}")
    assert (missing.status_code, reason(missing)) == (404, "PASS_NOT_FOUND")
    assert (
        missing.json()["details"][2] == server.post("details", id=UNKNOWN_ID).json()["details"][2]
    )
    assert server.http.head(f"/idpass/{UNKNOWN_ID}").status_code == 404


def test_only_a_uuid_is_the_path_of_a_pass(server: Http) -> None:
    assert server.http.get("/idpass/account").json()["id"] == "demo"
    assert server.http.get("/idpass/list").status_code == 405
    assert server.http.get("/idpass/webhooks").status_code == 200
    for path in (
        "/idpass/accounts",
        f"/idpass/{UNKNOWN_ID.replace('-', '')}",
        f"/idpass/%7B{UNKNOWN_ID}%7D",
        f"/idpass/{UNKNOWN_ID}%0A",
        f"/idpass/{UNKNOWN_ID}/events",
        f"/idpass/webhooks/{UNKNOWN_ID}",
        "/idpass/",
    ):
        response = server.http.get(path)
        assert (response.status_code, reason(response)) == (404, "INVALID_REQUEST"), path
    slash = server.http.get(f"/idpass/{UNKNOWN_ID}/")
    assert slash.status_code == 404
    assert f"the path is /idpass/{UNKNOWN_ID}" in slash.json()["message"]
    assert server.http.get(f"/idpass/{UNKNOWN_ID}?id={UNKNOWN_ID}").status_code == 400


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_the_path_of_a_pass_can_only_be_read(server: Http, method: str) -> None:
    response = server.http.request(method, f"/idpass/{UNKNOWN_ID}", json={})
    assert (response.status_code, reason(response)) == (405, "INVALID_REQUEST")
    assert response.headers["allow"] == "GET, HEAD"


def test_json_by_its_other_names_is_read(server: Http) -> None:
    body = json.dumps({"id": UNKNOWN_ID})
    for content_type in ("Application/JSON", 'application/json; charset="UTF-8"'):
        assert server.send(body, content_type=content_type).status_code == 404


def test_an_encoded_body_is_refused(server: Http) -> None:
    assert server.send(b"{}", content_encoding="gzip").status_code == 415


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_another_method_is_refused_with_the_right_one(server: Http, method: str) -> None:
    response = server.send(b"", method=method)
    assert (response.status_code, reason(response)) == (405, "INVALID_REQUEST")
    assert response.headers["allow"] == "POST"


def test_unknown_paths_and_query_strings_are_refused(server: Http) -> None:
    assert server.send(b"{}", "nothing").status_code == 404
    assert reason(server.http.get("/nothing/<b>here</b>")) == "INVALID_REQUEST"
    response = server.send(b"{}", "cancel?validate_only=true")
    assert (response.status_code, reason(response)) == (400, "INVALID_REQUEST")
    assert server.http.get("/idpass/account?account=acme").status_code == 400


def test_a_body_that_is_too_long_is_refused_whether_or_not_it_says_so(server: Http) -> None:
    body = b" " * 2_500_001
    response = server.send(body)
    assert (response.status_code, reason(response)) == (413, "INVALID_REQUEST")

    def chunks() -> Any:
        for _ in range(6):
            yield b" " * 500_000

    streamed = server.http.post(
        "/idpass/cancel", content=chunks(), headers={"content-type": "application/json"}
    )
    assert streamed.status_code == 413


def test_the_longest_batch_fits(server: Http) -> None:
    items = [{"id": PASS_ID, "request_id": f"{n:0128}", "note": "é" * 500} for n in range(1000)]
    response = server.http.post(
        "/idpass/batch-cancel",
        content=json.dumps({"requests": items}, ensure_ascii=False),
        headers=JSON,
    )
    assert response.status_code == 200
    assert len(response.json()["results"]) == 1000


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "10.0.0.1", "[::2]", "[", ""],
)
def test_a_host_that_is_not_this_machine_is_refused(server: Http, host: str) -> None:
    response = server.http.get("/idpass/account", headers={"host": host})
    assert (response.status_code, reason(response)) == (421, "INVALID_REQUEST")


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:1", "127.0.0.1", "127.8.8.8:80", "[::1]:8080"]
)
def test_this_machine_goes_by_several_names(server: Http, host: str) -> None:
    assert server.http.get("/idpass/account", headers={"host": host}).status_code == 200


def test_answers_are_not_kept_by_caches(server: Http) -> None:
    assert server.http.get("/idpass/account").headers["cache-control"] == "no-store"


def test_two_requests_on_one_connection_are_answered_in_turn(server: Http) -> None:
    address = httpx.URL(server.url)
    request = b"GET /idpass/account HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with socket.create_connection((address.host, address.port or 0)) as connection:
        connection.sendall(request * 2)
        received = b""
        while received.count(b'"last_sequence"') < 2:
            received += connection.recv(65_536)
    assert received.count(b"HTTP/1.1 200 OK") == 2


def test_authorization_is_passed_on_as_it_is() -> None:
    async def echo(_request: Any, context: Any) -> service_pb.CancelResponse:
        metadata = dict(context.invocation_metadata())
        return service_pb.CancelResponse(reference=metadata.get("authorization", "none"))

    with scripted(echo) as http:
        body = {"id": PASS_ID}
        assert http.post("/idpass/cancel", json=body).json()["reference"] == "none"
        headers = {"authorization": "Bearer a.b-c=="}
        passed = http.post("/idpass/cancel", json=body, headers=headers).json()
        assert passed["reference"] == "Bearer a.b-c=="
        for bad in (b"Bearer \xfc", b"Bearer " + b"x" * 5_000, b""):
            refused = http.post("/idpass/cancel", json=body, headers={b"authorization": bad})
            assert (refused.status_code, reason(refused)) == (400, "INVALID_REQUEST")


def test_callers_are_known_over_http_as_they_are_over_grpc(tmp_path: Path) -> None:
    file, db = tmp_path / "callers.toml", tmp_path / "idpass.db"
    make_accounts(db, "acme")
    file.write_text(caller("ann") + caller("eve", permissions="read"))
    with served(db, "--callers", str(file)) as server:
        for headers in ({}, {"authorization": "Bearer nobody"}, {"authorization": "ann-token"}):
            for path in ("account", "events"):
                response = server.http.get(f"/idpass/{path}", headers=headers)
                assert (response.status_code, reason(response)) == (401, "UNAUTHENTICATED_CALLER")
                assert response.headers["www-authenticate"] == "Bearer"
        ann, eve = ({"authorization": f"Bearer {name}-token"} for name in ("ann", "eve"))
        assert server.http.get("/idpass/account", headers=ann).json()["id"] == "acme"
        response = server.http.post("/idpass/register", json={}, headers=eve)
        assert (response.status_code, reason(response)) == (403, "METHOD_NOT_PERMITTED")
        # The page is there for whoever has a token; by itself it holds nothing.
        assert "acme" not in server.http.get("/").text
        assert server.http.get("/sandbox").json() == {"sandbox": False}
        assert server.http.post("/sandbox/reset", json={}).status_code == 404
        assert server.http.get("/sandbox/inbox").status_code == 404


def test_who_has_to_wait_is_told_why(tmp_path: Path) -> None:
    with served(tmp_path / "idpass.db", "--rate", "0.1", "--burst", "1") as server:
        assert server.http.get("/idpass/account").status_code == 200
        response = server.http.get("/idpass/account")
    assert (response.status_code, reason(response)) == (429, "OVERLOADED")
    assert detail(response, "ErrorInfo")["metadata"] == {"cause": "rate"}
    assert "more than 0.1 calls a second" in response.json()["message"]
    assert int(response.headers["retry-after"]) > 1


def test_a_request_that_the_service_finds_too_large_is_not_to_be_sent_again(tmp_path: Path) -> None:
    with served(tmp_path / "idpass.db", "--max-message-bytes", "20000") as server:
        items = [{"id": PASS_ID, "note": "n" * 400}] * 100
        response = server.post("batch-cancel", requests=items)
    assert (response.status_code, reason(response)) == (413, "INVALID_REQUEST")
    assert "retry-after" not in response.headers
