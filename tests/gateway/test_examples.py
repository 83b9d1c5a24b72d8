"""The OpenAPI document's examples are what a server answers, and its errors those that come."""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import pytest

from idpass.v1 import error_reason_pb2
from idpass_server.api import errors
from idpass_server.gateway import examples, openapi
from idpass_server.gateway.examples import STORY, Example
from idpass_server.gateway.routes import EVENTS_PATH, WATCH, routes
from idpass_server.rules import refusals
from idpass_server.rules.records import Status
from kit.contract import PASS, ROWS
from kit.hooked import key_file
from kit.http import Http, reason, served
from kit.receiver import Receiver
from kit.support import set_account

DOCUMENT: dict[str, Any] = json.loads(Path(openapi.__file__).with_name("openapi.json").read_text())
OPERATIONS = {
    operation["operationId"]: operation
    for path in DOCUMENT["paths"].values()
    for operation in path.values()
}
ROUTES = {
    **{route.method.name: (route.verb, route.path) for route in routes() if not route.variable},
    WATCH.name: ("GET", EVENTS_PATH),
}
UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
VARIES = {
    r"\d{4}-\d\d-\d\dT[\d:.]+Z": "TIME",
    r"whsec_[\w+/=]{44}": "SECRET",
    r"msg_[0-9a-f]{32}": "MESSAGE",
    r'("next_page_token": )"[\w-]+"': r"\1TOKEN",
    r'("duration_ms": )\d+': r"\1DURATION",
}
OF_WHAT_IS_DELIVERED = {"GetWebhook", "ListWebhooks", "ListWebhookDeliveries"}
"""Operations whose answer changes by itself for a moment, while events are on their way."""


class Story:
    """Tells the story to a server, whose ids are others than the examples'."""

    def __init__(self, server: Http, url: str) -> None:
        self._server = server
        self._real = {examples.URL: url}
        """What the server says, by what the examples say."""

    def tell(self, example: Example) -> httpx.Response | str:
        """Makes an example's request. Returns the answer; of a stream, up to its first event."""
        verb, path = ROUTES[example.operation]
        request = self._translated(example.request)
        if isinstance(example.answer, str):
            with self._server.http.stream(verb, path, params=request) as response:
                lines = response.iter_lines()
                return "".join(f"{next(lines)}\n" for _ in example.answer.splitlines())
        options = {"json": request} if verb == "POST" else {}
        return self._server.http.request(verb, path, **options)

    def compare(self, example: Example, answer: object) -> tuple[str, str]:
        """The two answers, with what varies from run to run put away.

        An id that the examples have for the first time stands for the server's in its place.
        """
        here, there = (
            text if isinstance(text, str) else json.dumps(text, sort_keys=True)
            for text in (example.answer, answer)
        )
        for ours, theirs in zip(UUID.findall(here), UUID.findall(there), strict=False):
            self._real.setdefault(ours, theirs)
        here = self._translated(here)
        for varying, name in VARIES.items():
            here, there = (re.sub(varying, name, text) for text in (here, there))
        return here, there

    def _translated(self, value: Any) -> Any:
        text = json.dumps(value)
        for ours, theirs in self._real.items():
            text = text.replace(ours, theirs)
        return json.loads(text)


def test_the_story_is_what_a_server_answers(tmp_path: Path) -> None:
    options = ("--webhook-key", str(key_file(tmp_path)), "--webhook-allow", "127.0.0.0/8")
    with Receiver() as receiver, served(tmp_path / "idpass.db", *options) as server:
        story = Story(server, receiver.url)
        for example in STORY:
            told, there, here = False, "", ""
            give_up_s = time.monotonic() + 30
            while not told:
                answer = story.tell(example)
                if isinstance(answer, httpx.Response):
                    assert answer.status_code == 200, (example.name, answer.text)
                    answer = answer.json()
                here, there = story.compare(example, answer)
                told = here == there or example.operation not in OF_WHAT_IS_DELIVERED
                assert told or time.monotonic() < give_up_s, (here, there)
            assert (example.name, there) == (example.name, here)


def test_every_operation_has_an_example() -> None:
    assert {example.operation for example in STORY} == set(ROUTES)
    assert set(OPERATIONS) == {*ROUTES, "GetIdPassById"}  # which has those of GetIdPass
    names = [(example.operation, example.name) for example in STORY]
    assert len(names) == len(set(names))


def resolved(value: dict[str, Any]) -> dict[str, Any]:
    """What a reference to one of the components stands for; anything else as it is."""
    if "$ref" not in value:
        return value
    kind, name = value["$ref"].rsplit("/", 2)[1:]
    return dict(DOCUMENT["components"][kind][name])


def contents() -> Iterator[tuple[str, Any]]:
    """Where there are examples, and what has them."""
    for name, operation in OPERATIONS.items():
        if "requestBody" in operation:
            yield name, operation["requestBody"]["content"]["application/json"]
        for status, response in operation["responses"].items():
            for content in resolved(response).get("content", {}).values():
                assert content.get("examples") or status in {"4XX", "5XX"}
                yield f"{name} {status}", content


def test_examples_fit_their_schemas() -> None:
    for where, content in contents():
        schema = {**content["schema"], "components": DOCUMENT["components"]}
        check = jsonschema_rs.Draft202012Validator(schema, validate_formats=True)
        for each in content.get("examples", {}).values():
            found = [error.message for error in check.iter_errors(resolved(each)["value"])]
            assert found == [], where


def without_facts(value: Any) -> str:
    """An error with what depends on the case put away: ids, times, numbers and some words."""
    text = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME", UUID.sub("UUID", json.dumps(value)))
    text = re.sub(r"\b(new|opened|in_progress|cancel|acme|demo)\b|\b\d+\b", "_", text)
    return re.sub(r'can become [\w,]+|"[\w,]+"', "WORDS", text)


# With the facts of the protos' samples, where the words of a message depend on them.
LIKE_THE_SAMPLES: dict[str, refusals.Refusal] = {
    "INVALID_REQUEST": refusals.InvalidRequest(
        [refusals.Violation("id", "'pass-7' is not a UUID")]
    ),
    "REQUEST_ID_REUSED": refusals.RequestIdReused("order-7-cancel"),
    "PASS_CHANGED": refusals.PassChanged(PASS, Status.NEW),
}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[1][2])
def test_examples_of_errors_are_what_the_service_tells(row: Any) -> None:
    refusal, (code, http_status, why), metadata, further = row
    example = DOCUMENT["components"]["examples"][why]["value"]
    told = errors.tell(LIKE_THE_SAMPLES.get(why, refusal), "ref-1")
    assert set(example["details"][0].get("metadata", {})) == metadata
    assert {each["@type"].rpartition(".")[2] for each in example["details"][2:]} == further
    if why == "OVERLOADED":
        exact = refusals.Overloaded("this caller makes more than 100 calls a second")
        exact.cause = "rate"
        told = errors.tell(exact, "ref-1")
    assert without_facts(example["message"]) == without_facts(told.status.message)
    assert example["code"] == told.status.code
    assert code in str(told.code).upper()
    assert http_status


def test_there_is_an_example_of_every_reason() -> None:
    reasons = {
        name.removeprefix("ERROR_REASON_")
        for name, number in error_reason_pb2.ErrorReason.items()
        if number
    }
    assert set(DOCUMENT["components"]["examples"]) == reasons


def documented(operation: str, response: httpx.Response) -> bool:
    """Whether an operation's description has an error's status and reason."""
    found = resolved(OPERATIONS[operation]["responses"].get(str(response.status_code), {}))
    return reason(response) in found["content"]["application/json"]["examples"]


def test_refusals_are_as_documented(tmp_path: Path) -> None:
    """Of a disabled account, of a server without webhooks, and of the gateway itself."""
    with served(tmp_path / "idpass.db") as server:
        pass_id = server.register().id_pass.id
        set_account(tmp_path / "idpass.db", disabled=True)
        for name, (verb, path) in ROUTES.items():
            request = next(each.request for each in STORY if each.operation == name)
            request = {key: pass_id if key == "id" else value for key, value in request.items()}
            request.pop("supersedes", None)
            if verb == "POST":
                response = server.http.post(path, json=request)
                if response.status_code != 200:
                    assert documented(name, response), (name, response.text)
        for name in ("CancelIdPass", "RegisterIdPass", "AdvanceIdPass"):
            assert "ACCOUNT_DISABLED" in str(OPERATIONS[name]["responses"]["403"])
        response = server.http.get("/idpass/webhooks")
        assert documented("ListWebhooks", response)
        assert reason(response) == "WEBHOOKS_DISABLED"
        text = server.send("hello", content_type="text/plain")
        long = server.send('{"note": "%s"}' % ("x" * 17_000))
        for response, status in ((text, 415), (long, 413)):
            assert response.status_code == status
            assert documented("CancelIdPass", response)
            found = resolved(OPERATIONS["CancelIdPass"]["responses"][str(status)])
            (example,) = found["content"]["application/json"]["examples"].values()
            assert without_facts(response.json()["message"]) == without_facts(
                example["value"]["message"]
            )
