"""The OpenAPI document: what it says is so, as schemathesis finds out by trying."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from idpass.v1.error_reason_pb2 import ErrorReason
from idpass_server.gateway import app, openapi
from idpass_server.gateway.routes import EVENTS_PATH, routes
from idpass_server.gateway.schemas import LIMITS
from kit.http import Http
from kit.paths import ROOT

DOCUMENT: dict[str, Any] = json.loads(Path(openapi.__file__).with_name("openapi.json").read_text())
ERRORS = ROOT / "server/docs/errors.md"
ADVICE = app.STATIC / "advice.js"
SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")


def test_it_is_served_as_it_is_in_the_package(server: Http) -> None:
    response = server.http.get("/openapi.json")
    assert response.headers["content-type"].startswith("application/json")
    assert response.json() == DOCUMENT


def test_it_has_every_route_with_its_comment() -> None:
    assert set(DOCUMENT["paths"]) == {route.path for route in routes()} | {EVENTS_PATH}
    for path in DOCUMENT["paths"].values():
        for operation in path.values():
            assert operation["summary"]
            assert "Retry" in operation["description"]
    for name, schema in DOCUMENT["components"]["schemas"].items():
        assert schema["description"], name
        for field, each in schema.get("properties", {}).items():
            assert each.get("description") or name == "Status", f"{name}.{field}"


def test_limits_are_of_fields_that_exist() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    for name, limits in LIMITS.items():
        message, field = name.split(".")
        if message != "WatchRequest":
            assert limits.items() <= schemas[message]["properties"][field].items()


def test_references_lead_somewhere() -> None:
    for kind, name in re.findall(r'"#/components/(\w+)/(\w+)"', json.dumps(DOCUMENT)):
        assert name in DOCUMENT["components"][kind]


@pytest.mark.long
def test_schemathesis_finds_nothing(server: Http, tmp_path: Path) -> None:
    """Requests made from the document, right ones and wrong ones, and sequences of both."""
    config = tmp_path / "schemathesis.toml"
    config.write_text(
        "# An item that is not valid is refused by itself, in the results.\n"
        '[[operations]]\ninclude-path = "/idpass/batch-cancel"\n'
        "checks.negative_data_rejection.enabled = false\n"
    )
    hooks = Path(__file__).with_name("schemathesis_hooks.py")
    done = subprocess.run(
        [
            *(SCHEMATHESIS, "--config-file", config, "run", f"{server.url}/openapi.json"),
            *("--exclude-path", EVENTS_PATH),  # it would wait for the stream to end
            *("--max-examples", "12", "--max-failures", "5"),
            *("--generation-deterministic", "--no-color", "--request-timeout", "10"),
        ],
        cwd=tmp_path,
        env=os.environ | {"SCHEMATHESIS_HOOKS": str(hooks), "IDPASS_URL": server.url},
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_page_of_the_api_takes_nothing_from_elsewhere(server: Http) -> None:
    response = server.http.get("/docs")
    assert response.status_code == 200
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert not re.search(r"https?://", response.text)


@pytest.mark.parametrize("path", ["/sandbox/reset", "/sandbox/inbox", "/sandbox/inbox/switch"])
def test_without_a_sandbox_there_is_none(server: Http, path: str) -> None:
    assert server.http.post(path, json={}).status_code == 404
    assert server.http.get(path).status_code == 404
    assert server.http.get("/sandbox").json() == {"sandbox": False}


def test_the_page_of_the_api_advises_as_the_document_does() -> None:
    """`advice.js` has the words of errors.md, and each error that there is."""
    rows = re.findall(r"^\| `([A-Z_]+)` \| [A-Z_]+ \| (.+) \|$", ERRORS.read_text(), re.MULTILINE)
    told = {reason: re.sub(r": \[[^]]*\]\([^)]*\)", "", text) for reason, text in rows}
    advice = re.findall(r'^  ([A-Z_]+): "(.+)",$', ADVICE.read_text(), re.MULTILINE)
    assert dict(advice) == told
    prefix, names = "ERROR_REASON_", list(ErrorReason.keys())
    reasons = {name.removeprefix(prefix) for name in names} - {"UNSPECIFIED"}
    assert set(told) == reasons
