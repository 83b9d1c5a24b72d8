"""The sandbox's data and endpoints, and what its pages are made of."""

import re
import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from idpass_server.gateway import app
from idpass_server.trying.sandbox import FEE, SLOTS, STORIES, seed
from kit.http import EventStream, Http, reason, served
from kit.support import cli, problems
from kit.ways import WAYS

STATIC = sorted(app.STATIC.iterdir())


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Http]:
    not_used = tmp_path_factory.mktemp("sandbox") / "not-used.db"
    with served(not_used, "--sandbox") as running:
        yield running
        assert not not_used.exists()


def passes(server: Http) -> list[dict[str, Any]]:
    return list(server.post("list", page_size=1000).json()["id_passes"])


def test_the_seed_has_passes_in_every_status_and_passes_an_audit(tmp_path: Path) -> None:
    db = tmp_path / "seed.db"
    seed(db)
    assert problems(db) == []


def test_mock_data_are_believable(sandbox: Http) -> None:
    found = passes(sandbox)
    assert len(found) == sum(story.passes for story in STORIES)
    counts = Counter(each["status"] for each in found)
    assert set(counts) == set(WAYS)
    assert len({each["applicant_reference"] for each in found}) == len(found)
    days = {each["create_time"][:10] for each in found}
    assert len(days) > 5
    assert len({each["fee"]["amount"] for each in found}) == 2
    account = sandbox.http.get("/idpass/account").json()
    in_flight = counts["new"] + counts["opened"] + counts["in_progress"]
    assert (account["slots_in_use"], account["slot_limit"]) == (in_flight, SLOTS)
    assert account["fee"]["amount"] == f"{FEE.micros / 1e6:.2f}"


def test_a_reset_makes_the_data_anew_for_all(sandbox: Http) -> None:
    before = passes(sandbox)
    new = next(each for each in before if each["status"] == "new")
    sandbox.post("cancel", id=new["id"])
    sandbox.post("register")
    with ThreadPoolExecutor() as pool:
        answers = list(pool.map(lambda _: sandbox.http.post("/sandbox/reset", json={}), range(3)))
    assert [each.status_code for each in answers] == [200, 200, 200]
    after = passes(sandbox)
    assert Counter(each["status"] for each in after) == Counter(each["status"] for each in before)
    assert sandbox.http.get("/sandbox").json() == {"sandbox": True, "grpc_address": sandbox.address}
    assert sandbox.account().id == "demo"  # gRPC is where it was


def test_a_stream_across_a_reset_ends_and_cannot_be_resumed(sandbox: Http) -> None:
    last = sandbox.account().last_sequence
    with sandbox.http.stream("GET", "/idpass/events", params={"after_sequence": last}) as response:
        sandbox.register()
        stream = EventStream(response)
        seen = stream.next()["id"]
        with ThreadPoolExecutor() as pool:
            resetting = pool.submit(sandbox.http.post, "/sandbox/reset", json={})
            assert stream.next()["event"] == "error"
            assert resetting.result().status_code == 200
    resumed = sandbox.http.get("/idpass/events", headers={"last-event-id": seen})
    assert (resumed.status_code, reason(resumed)) == (400, "INVALID_REQUEST")


def test_a_page_of_another_site_cannot_reset(sandbox: Http) -> None:
    form = {"content-type": "application/x-www-form-urlencoded"}
    assert sandbox.http.post("/sandbox/reset", content=b"", headers=form).status_code == 415
    assert sandbox.http.get("/sandbox/reset").status_code == 405


def test_a_sandbox_stops_as_any_server_does(tmp_path: Path) -> None:
    with served(tmp_path / "x.db", "--sandbox") as running:
        assert running.http.post("/sandbox/reset", json={}).status_code == 200
        running.signal(signal.SIGTERM)
        assert running.wait() == 0


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/", "text/html"), ("/docs", "text/html"), *((f"/static/{f.name}", "") for f in STATIC)],
)
def test_pages_and_their_parts_are_locked_down(sandbox: Http, path: str, kind: str) -> None:
    response = sandbox.http.get(path)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith(kind)
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    again = sandbox.http.get(path, headers={"if-none-match": response.headers["etag"]})
    assert again.status_code in {200, 304}


def test_the_page_asks_for_all_its_modules_at_once() -> None:
    """And not for one after the other, as each turns out to import the next."""

    needed: set[str] = set()
    names = ["sandbox.js"]
    while names:
        text = (app.STATIC / names.pop()).read_text()
        found = set(re.findall(r'^(?:import .*|}) from "\./([a-z]+\.js)"', text, re.MULTILINE))
        names += found - needed
        needed |= found
    page = (app.STATIC / "sandbox.html").read_text()
    preloaded = re.findall(r'rel="modulepreload" href="/static/([a-z]+\.js)"', page)
    assert sorted(preloaded) == sorted(needed - {"sandbox.js"})


@pytest.mark.parametrize("path", ["/", "/static/sandbox.js", "/openapi.json"])
def test_pages_are_compressed_for_those_who_take_it(sandbox: Http, path: str) -> None:
    plain = sandbox.http.get(path, headers={"accept-encoding": "identity"})
    packed = sandbox.http.get(path, headers={"accept-encoding": "br, gzip"})
    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert "accept-encoding" in packed.headers["vary"]
    assert int(packed.headers["content-length"]) < int(plain.headers["content-length"])
    assert packed.content == plain.content
    known = {"if-none-match": packed.headers["etag"]}
    assert sandbox.http.get(path, headers=known).status_code == 304


@pytest.mark.parametrize(
    ("accepted", "packed"),
    [("gzip", True), ("br, GZIP;q=0.5", True), ("gzip; q=0", False), ("identity", False)],
)
def test_a_long_answer_is_compressed_for_those_who_take_it(
    sandbox: Http, accepted: str, packed: bool
) -> None:
    headers = {"accept-encoding": accepted}
    answer = sandbox.http.post("/idpass/list", json={"page_size": 1000}, headers=headers)
    assert ("content-encoding" in answer.headers) == packed
    assert len(answer.json()["id_passes"]) > 100
    short = sandbox.http.post("/idpass/list", json={"page_size": 1}, headers=headers)
    assert "content-encoding" not in short.headers


def test_nothing_comes_from_elsewhere_and_no_text_becomes_html() -> None:
    for file in STATIC:
        text = file.read_text()
        for address in re.findall(r"https?://[^\s\"'`]+", text):
            assert address == "http://www.w3.org/2000/svg", file.name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text)
        assert not re.search(r"\son\w+=|style=|javascript:", text), file.name
        assert len(text.splitlines()) <= 350, file.name


def test_files_outside_the_folder_are_not_served(sandbox: Http) -> None:
    for path in ("/static/../app.py", "/static/%2e%2e/app.py", "/static/..%2fapp.py", "/static/"):
        assert sandbox.http.get(path).status_code == 404


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("serve", "--sandbox"), "give its address with --http"),
        (
            ("serve", "--sandbox", "--http", "127.0.0.1:0", "--metrics", "127.0.0.1:0"),
            "cannot be used with --sandbox",
        ),
        (("serve", "--http", "0.0.0.0:8080"), "can be reached from other machines"),
        (("serve", "--http", "8080"), "is not HOST:PORT"),
        (("gateway", "--http", "0.0.0.0:8080"), "can be reached from other machines"),
        (("gateway", "--target", "10.0.0.1:50051"), "can be reached from other machines"),
    ],
)
def test_what_http_cannot_be_is_said_in_a_line(
    arguments: tuple[str, ...], text: str, tmp_path: Path
) -> None:
    done = cli(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert text in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_beside_another_a_sandbox_takes_the_next_free_ports_and_says_so(
    sandbox: Http, tmp_path: Path
) -> None:
    taken = {"--listen": sandbox.address, "--http": sandbox.url.removeprefix("http://")}
    options = [word for pair in taken.items() for word in pair]
    with served(tmp_path / "x.db", "--sandbox", *options) as second:
        told = second.wait_for("port_taken")
        assert (told["wanted"], told["takes"]) == (sandbox.address, second.address)
        opened = second.wait_for("sandbox")["open_in_a_browser"]
        assert opened == f"{second.url}/"
        assert "ID Pass sandbox" in second.http.get("/").text
        assert second.http.get("/sandbox").json()["grpc_address"] == second.address
        assert second.url != sandbox.url


def test_an_address_that_is_taken_is_said_so(sandbox: Http, tmp_path: Path) -> None:
    taken = sandbox.url.removeprefix("http://")
    done = cli("serve", "--listen", "127.0.0.1:0", "--http", taken, cwd=tmp_path)
    assert done.returncode == 1
    assert "cannot be listened on" in done.stderr
    assert "Traceback" not in done.stderr
