"""The sandbox's shows over HTTP: calls that are sent together, and a server that is killed."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kit.http import Http, reason, served
from kit.staged import answers, staged, volley


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shows")


@pytest.fixture(scope="module")
def sandbox(folder: Path) -> Iterator[Http]:
    with served(folder / "not-used.db", "--sandbox") as running:
        yield running


def fire(sandbox: Http, **fields: Any) -> Any:
    return sandbox.http.post("/sandbox/volley", json=fields)


def test_twenty_callers_are_in_flight_at_once_and_one_of_them_cancels(sandbox: Http) -> None:
    pass_id = sandbox.register().id_pass.id
    body = {"id": pass_id}
    calls = [{"path": "/idpass/cancel", "body": body | {"request_id": f"r{n}"}} for n in range(20)]
    done = volley(lambda **fields: fire(sandbox, **fields), calls)
    reasons = Counter(
        "" if each["status"] == 200 else each["answer"]["details"][0]["reason"] for each in done
    )
    assert reasons == {"": 1, "PASS_ALREADY_CANCELLED": 19}
    # The last was sent before the first was answered.
    assert max(each["sent_ms"] for each in done) < min(each["answered_ms"] for each in done)


BAD_VOLLEYS: list[tuple[Any, str]] = [
    ({}, "calls is no array of 2 to 20 objects"),
    ({"calls": [{}]}, "calls is no array"),
    ({"calls": [{}] * 21}, "calls is no array"),
    ({"calls": [1, {"path": 2}]}, "calls[0].path: is none of"),
    ({"calls": [{"path": "/idpass/batch-cancel", "body": {}}] * 2}, "calls[0].path: is none of"),
    ({"calls": [{"path": "/idpass/cancel"}] * 2}, "calls[0].body: is null, not an object"),
    ({"calls": [{"path": "/idpass/cancel", "body": {"id": 3}}] * 2}, "calls[1].body.id: is a num"),
    ({"calls": [{"path": "/idpass/cancel", "body": {}}] * 2, "spread_ms": 2_001}, "spread_ms is"),
    ({"calls": [{"path": "/idpass/cancel", "body": {}}] * 2, "spread_ms": True}, "spread_ms is"),
    ({"calls": [], "callers": 3}, "callers is not a field here"),
]
BAD_STAGES: list[tuple[Any, str]] = [
    ({"kills": 1}, "kills is not true or false"),
    ({"slow_ms": -1}, "slow_ms is no whole number from 0 to 1000"),
    ({"slow_ms": 0.5}, "slow_ms is no whole number"),
    ({"slots": 0}, "slots is no whole number from 1 to 1000"),
    ({"db": "/etc/passwd"}, "db is not a field here"),
]


@pytest.mark.parametrize(
    ("path", "body", "text"),
    [
        *(("volley", *each) for each in BAD_VOLLEYS),
        *(("stage", *each) for each in BAD_STAGES),
        ("volley", [], "the body is an array, not a JSON object"),
    ],
)
def test_what_is_wrong_is_said(sandbox: Http, path: str, body: Any, text: str) -> None:
    refused = sandbox.http.post(f"/sandbox/{path}", json=body)
    assert (refused.status_code, reason(refused)) == (400, "INVALID_REQUEST")
    assert text in refused.json()["message"]


@pytest.mark.parametrize("path", ["/sandbox/volley", "/sandbox/stage", "/sandbox/stage/1/volley"])
def test_a_page_of_another_site_cannot_play(sandbox: Http, path: str) -> None:
    form = {"content-type": "text/plain"}
    answer = sandbox.http.post(path, content=b'{"slots": 1}', headers=form)
    assert answer.status_code in {404, 415}
    assert sandbox.http.get(path).status_code == 405
    foreign = {"sec-fetch-site": "cross-site"}
    assert sandbox.http.post(path, json={}, headers=foreign).status_code == 403


def test_shows_exist_only_in_a_sandbox(server: Http) -> None:
    for path in ("/sandbox/volley", "/sandbox/stage", "/sandbox/stage/1/idpass/cancel"):
        assert server.http.post(path, json={}).status_code == 404


def test_after_a_kill_between_commit_and_answer_the_retry_gets_the_first_answer(
    sandbox: Http, folder: Path
) -> None:
    with staged(sandbox, kills=True) as stage:
        first = stage.until("serving")
        pass_id = stage.post("idpass/register").json()["id_pass"]["id"]
        cancel = {"id": pass_id, "request_id": "once"}
        lost = stage.post("idpass/cancel", **cancel)
        assert (lost.status_code, reason(lost)) == (503, "STORE_UNAVAILABLE")
        assert lost.json()["details"][0]["metadata"] == {"outcome": "unknown"}
        killed, second = stage.until("killed"), stage.until("serving")
        assert (killed["pid"], killed["signal"]) == (first["pid"], "SIGKILL")
        assert second["listen"] == first["listen"]
        assert second["pid"] != first["pid"]
        retried = stage.post("idpass/cancel", **cancel)
        assert retried.status_code == 200, retried.text
        assert retried.json()["replayed"]
        assert retried.json()["refund"] == stage.account()["fees_refunded"]
        with sandbox.http.stream("POST", "/sandbox/stage", json={}) as other:
            assert other.status_code == 429
            told = json.loads(other.read())
        assert "Another show" in told["message"]
    # Its reader has left, and with it the process and its files are gone.
    assert not answers(second["listen"])
    assert list(folder.glob("*/stage-*")) == []
