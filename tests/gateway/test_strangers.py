"""What somebody without credentials, or with a browser of yours, can try on the HTTP port."""

import json
import socket
from pathlib import Path

import pytest

from kit.guarded import caller
from kit.http import Http, detail, reason, served
from kit.raw_http import chunked, post, raw, request
from kit.support import UNKNOWN_ID, make_accounts

UPGRADE = b"\r\nConnection: upgrade\r\nUpgrade: h2c\r\n"
UPGRADES = [
    (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAEAAEAAAAIAAAAB"),
    (b"Connection: upgrade", b"Upgrade: foo/2, bar"),
]


@pytest.mark.parametrize("upgrade", UPGRADES)
def test_a_post_that_offers_another_protocol_keeps_its_body(
    server: Http, upgrade: tuple[bytes, ...]
) -> None:
    body = json.dumps({"id": server.pass_in("new")}).encode()
    again = json.dumps({"id": UNKNOWN_ID}).encode()
    with raw(server.url) as connection:
        connection.send(post(body, *upgrade) + post(again, *upgrade))
        assert connection.reply().json["fee_refunded"] is True
        assert connection.reply().status == 404
        whole = post(again, *upgrade)
        connection.send(*(whole[i : i + 7] for i in range(0, len(whole), 7)))
        assert connection.reply().status == 404
        connection.send(chunked(again[:9], again[9:]).replace(b"\r\n", UPGRADE, 1))
        assert connection.reply().status == 404


@pytest.mark.parametrize("path", [b"/", b"/idpass/events", b"/idpass/cancel"])
def test_websocket_is_refused_as_any_other_request_is(server: Http, path: bytes) -> None:
    headers = [b"Host: localhost", b"Connection: Upgrade", b"Upgrade: websocket"]
    headers += [b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="]
    with raw(server.url) as connection:
        connection.send(request(b"GET " + path + b" HTTP/1.1", headers))
        reply = connection.reply()
        assert (reply.status, reply.json["code"]) == (400, 3)
        assert connection.ends()


HOST = b"Host: localhost"
GET = b"GET /idpass/account HTTP/1.1"
TYPE = b"Content-Type: application/json"
AUTHORIZATION = b"Authorization: Bearer token"
ODD = {
    "no HTTP": b"hello\r\n\r\n",
    "another version": request(b"GET /idpass/account HTTP/2.0"),
    "an older version with chunks": request(
        b"POST /idpass/cancel HTTP/1.0",
        [HOST, TYPE, b"Transfer-Encoding: chunked"],
        b"2\r\n{}\r\n0\r\n\r\n",
    ),
    "a proxy's request": request(b"GET http://localhost/idpass/account HTTP/1.1"),
    "a tunnel": request(b"CONNECT localhost:80 HTTP/1.1"),
    "no path": request(b"OPTIONS * HTTP/1.1"),
    "a fragment": request(b"GET /idpass/account#x HTTP/1.1"),
    "no Host": request(GET, []),
    "two Hosts": request(GET, [HOST, HOST]),
    "two Hosts that differ": request(GET, [HOST, b"Host: evil.example"]),
    "two authorizations": request(GET, [HOST, AUTHORIZATION, AUTHORIZATION]),
    "two keys": request(GET, [HOST, b"Idempotency-Key: a", b"Idempotency-Key: b"]),
    "two types": request(GET, [HOST, TYPE, TYPE]),
    "a user in Host": request(GET, [b"Host: evil@localhost"]),
    "a path in Host": request(GET, [b"Host: localhost/x"]),
    "no port in Host": request(GET, [b"Host: localhost:"]),
    "a word for a port": request(GET, [b"Host: localhost:http"]),
    "two ports": request(GET, [b"Host: 127.0.0.1:1:2"]),
    "more than an address": request(GET, [b"Host: [::1]evil"]),
    "two lengths": post(b"{}", b"Content-Length: 3"),
    "a length and chunks": post(b"2\r\n{}\r\n0\r\n\r\n", b"Transfer-Encoding: chunked"),
    "chunks twice": chunked(b"{}").replace(TYPE, TYPE + b"\r\nTransfer-Encoding: chunked"),
    "chunks of another coding": chunked(b"{}").replace(b": chunked", b": gzip, chunked"),
    "an unknown coding": chunked(b"{}").replace(b": chunked", b": identity"),
    "a size that is none": chunked(b"{}").replace(b"\r\n2\r\n", b"\r\nx\r\n"),
    "a space before a colon": request(GET, [HOST, b"Accept : x"]),
    "a folded header": request(GET, [HOST, b"Accept: x", b" y"]),
    "a null in a header": request(GET, [HOST, b"Accept: \0"]),
}


@pytest.mark.parametrize("odd", ODD)
def test_what_can_be_read_in_two_ways_is_not_read(server: Http, odd: str) -> None:
    with raw(server.url) as connection:
        connection.send(ODD[odd])
        reply = connection.reply()
    assert reply.status in {400, 405, 421, 505}
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["idpass-reference"] == reply.reference


def test_a_trailer_is_no_header(server: Http) -> None:
    body = json.dumps({"id": server.pass_in("new")}).encode()
    trailers = b"Idempotency-Key: from-a-trailer\r\nX: y\r\n"
    with raw(server.url) as connection:
        for _ in range(2):
            connection.send(chunked(body, trailers=trailers))
            reply = connection.reply()
    assert reply.status == 400
    assert b"PASS_ALREADY_CANCELLED" in reply.body


@pytest.mark.parametrize("end", [b"", b"0\r"])
def test_half_a_request_is_not_carried_out(server: Http, end: bytes) -> None:
    pass_id = server.pass_in("new")
    body = json.dumps({"id": pass_id}).encode()
    with raw(server.url) as connection:
        connection.send(chunked(body).removesuffix(b"0\r\n\r\n") + end)
        connection.socket.shutdown(socket.SHUT_WR)
        assert connection.ends()
    with raw(server.url) as connection:
        connection.send(post(body + b"  ").removesuffix(b" "))
        connection.socket.shutdown(socket.SHUT_WR)
        assert connection.ends()
    assert server.cancel(pass_id).replayed is False


@pytest.mark.parametrize(
    ("piece", "times"),
    [(b"x" * 65_536, 5), (b"a: b\r\n" * 10_000, 2), (b"x", 17_000)],
    ids=["a long line", "many", "a trickle"],
)
def test_a_head_that_does_not_end_is_cut_off(server: Http, piece: bytes, times: int) -> None:
    with raw(server.url) as connection:
        connection.send(request(GET, [HOST, b"A: b"]).removesuffix(b"\r\n\r\n"), *[piece] * times)
        reply = connection.reply()
        assert (reply.status, reply.headers["idpass-reference"]) == (431, reply.reference)
        assert connection.ends()
        assert connection.flood(b"x" * 65_536, 10_000) < 10_000


def test_what_stands_around_a_body_is_bounded_as_well(server: Http) -> None:
    start = chunked(b"{}").removesuffix(b"\r\n")
    for endless in (b"a: b\r\n" * 10_000, b"x" * 65_536):
        with raw(server.url) as connection:
            connection.send(start)
            assert connection.flood(endless, 10_000) < 10_000
    with raw(server.url) as connection:
        connection.send(start.removesuffix(b"0\r\n") + b"1;")
        assert connection.flood(b"x" * 65_536, 10_000) < 10_000


@pytest.mark.parametrize("path", ["/idpass%2fcancel", "/idpass/c%61ncel", "/%69dpass/cancel"])
def test_an_encoded_path_is_another_path(server: Http, path: str) -> None:
    with raw(server.url) as connection:
        connection.send(post(b"{}", path=path.encode()))
        assert connection.reply().status == 404


@pytest.mark.parametrize("path", ["/idpass/cancel/", "/idpass/account/", "/idpass/events//"])
def test_a_path_too_long_is_told_the_right_one(server: Http, path: str) -> None:
    response = server.http.post(path, json={"id": UNKNOWN_ID}, follow_redirects=False)
    assert (response.status_code, reason(response)) == (404, "INVALID_REQUEST")
    assert f"the path is {path.rstrip('/')};" in response.json()["message"]
    assert "location" not in response.headers


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
@pytest.mark.parametrize(
    "path", ["/idpass/events", "/idpass/account", "/sandbox", "/openapi.json", "/static/docs.js"]
)
def test_a_page_of_another_site_gets_nothing(server: Http, path: str, site: str) -> None:
    response = server.http.get(path, headers={"sec-fetch-site": site})
    assert (response.status_code, reason(response)) == (403, "INVALID_REQUEST")


def test_a_page_of_this_site_and_a_link_from_another_get_what_they_ask_for(server: Http) -> None:
    for path, site in (
        ("/docs", "cross-site"),
        ("/idpass/account", "same-origin"),
        ("/idpass/account", "none"),
    ):
        assert server.http.get(path, headers={"sec-fetch-site": site}).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("GET", "/static/nothing.js", 404),
        ("POST", "/docs", 405),
        ("GET", "/idpass/cancel", 405),
        ("POST", "/idpass/events", 405),
        ("GET", "/idpass/events?after=1", 400),
    ],
)
def test_every_error_has_its_reference_and_is_taken_for_what_it_is(
    server: Http, method: str, path: str, status: int
) -> None:
    response = server.http.request(method, path)
    assert (response.status_code, reason(response)) == (status, "INVALID_REQUEST")
    reference = detail(response, "RequestInfo")["request_id"]
    assert response.headers["idpass-reference"] == reference
    assert response.headers["x-content-type-options"] == "nosniff"


def test_every_answer_has_a_reference_of_its_own(server: Http) -> None:
    body = {"id": server.pass_in("new"), "request_id": "reference-1"}
    first, again = (server.post("cancel", **body) for _ in range(2))
    assert first.headers["idpass-reference"] == first.json()["reference"]
    assert again.json() == first.json() | {"replayed": True}
    own = again.headers["idpass-reference"]
    assert own != first.headers["idpass-reference"]
    server.wait_for_line(lambda line: line.get("reference") == own)
    for path in ("account", "events"):
        with server.http.stream("GET", f"/idpass/{path}") as response:
            assert len(response.headers["idpass-reference"]) == 36
    refused = server.post("cancel", id=UNKNOWN_ID)
    assert refused.headers["idpass-reference"] == detail(refused, "RequestInfo")["request_id"]


LARGE = b"Content-Length: 1200000"


def test_a_stranger_is_refused_before_a_large_body_is_read(tmp_path: Path) -> None:
    file, db = tmp_path / "callers.toml", tmp_path / "idpass.db"
    make_accounts(db, "acme")
    file.write_text(caller("ann") + caller("eve", permissions="read"))
    with served(db, "--callers", str(file)) as server:
        line = b"POST /idpass/batch-cancel HTTP/1.1"
        for token, status in ((b"nobody", 401), (b"eve-token", 403)):
            with raw(server.url) as connection:
                authorization = b"Authorization: Bearer " + token
                connection.send(request(line, [HOST, TYPE, LARGE, authorization]))
                reply = connection.reply()
                assert (reply.status, reply.headers["connection"]) == (status, "close")
                # What it still sends is not answered with a reset, which would hide the answer.
                assert connection.flood(b"x" * 60_000, 20) == 20
            with raw(server.url) as connection:
                headers = [HOST, TYPE, b"Transfer-Encoding: chunked", authorization]
                chunk = b"%x\r\n%b\r\n" % (20_000, b" " * 20_000)
                connection.send(request(line, headers, chunk))
                assert connection.reply().status == status
        items = [{"id": UNKNOWN_ID, "note": "n" * 400} for _ in range(1000)]
        response = server.http.post(
            "/idpass/batch-cancel",
            json={"requests": items},
            headers={"authorization": "Bearer ann-token"},
        )
        assert (response.status_code, len(response.json()["results"])) == (200, 1000)


@pytest.mark.parametrize(
    ("path", "body", "told"),
    [
        ("batch-cancel", {"requests": [1] * 19_998}, "has 19998 items"),
        ("batch-cancel", {"requests": [1] * 600_000}, "more than 20000 names and values"),
        ("batch-cancel", {"requests": [[]] * 600_000}, "more than 20000 names and values"),
        ("batch-cancel", {"requests": [1] * 1000}, "and 980 more"),
        ("batch-cancel", {"requests": [{}] * 600_000}, "more than 20000 names and values"),
        ("batch-cancel", {"requests": [{"x": 1}] * 100}, "and 80 more"),
        ("batch-cancel", {"requests": [{f"x{n}": 1 for n in range(9_999)}]}, "and 9979 more"),
        ("batch-cancel", {f"x{n}": 1 for n in range(9_999)}, "and 9979 more"),
        ("batch-cancel", {f"x{n}": 1 for n in range(99_999)}, "more than 20000 names and values"),
        ("batch-cancel", {"requests": [""] * 600_000}, "more than 20000 names and values"),
        ("list", {"statuses": [1] * 1_001}, "has 1001 items"),
        ("list", {"statuses": ["x"] * 100}, "and 80 more"),
    ],
)
def test_what_is_wrong_is_told_in_a_few_lines(
    server: Http, path: str, body: dict[str, object], told: str
) -> None:
    response = server.send(json.dumps(body), path)
    assert (response.status_code, reason(response)) == (400, "INVALID_REQUEST")
    assert told in response.json()["message"]
    assert len(response.content) < 20_000


@pytest.mark.parametrize("path", ["cancel", "register", "advance", "details", "list"])
def test_a_body_without_items_is_small(server: Http, path: str) -> None:
    with raw(server.url) as connection:
        target = f"POST /idpass/{path} HTTP/1.1".encode()
        connection.send(request(target, [HOST, TYPE, LARGE]))
        assert connection.reply().status == 413


def test_the_longest_of_each_that_is_valid_fits(server: Http) -> None:
    emoji = "\\ud83d\\ude00"
    note = f'{{"id": "{UNKNOWN_ID}", "request_id": "{"r" * 128}", "note": "{emoji * 500}"}}'
    assert server.send(note).status_code == 404
    assert server.send(f'{{"applicant_reference": "{emoji * 128}"}}', "register").status_code == 200


def test_refusals_that_come_fast_are_few_lines_in_the_log(server: Http) -> None:
    with raw(server.url) as connection:
        for _ in range(50):
            connection.send(request(b"GET /nowhere HTTP/1.1"))
            assert connection.reply().status == 404
    server.wait_for_line(lambda line: line["event"] == "folded" and line["of"] == "unreadable")
    assert sum(1 for line in server.log if "/nowhere" in line.get("why", "")) <= 40
