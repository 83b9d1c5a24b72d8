"""Nothing that the pages show becomes markup, and nothing takes the place of what stands beside it.

Promise: whatever a business writes in an applicant's reference or a note, whatever a server says
in an error, and whatever an OpenAPI document holds is text: nothing of it is executed, no element
comes of it, and the layout stays. Means: a real Chromium; a real server for what it accepts, and
answers that are replaced on their way for what a real one would never say. Blind spots: text that
looks like another text (homographs) is shown as it is.
"""

import json
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By

from kit.browser import NARROW, WIDE, Page
from kit.http import Http
from kit.looks import overflow, settle

MARKUP = '<img src=x onerror="window.injected=1"><script>window.injected=1</script>\'"`${1}</bdi>'
ACCEPTED = {
    "markup": MARKUP,
    "quotes": "\"'`\\\u201c\u2019&quot;&lt;b&gt;",
    "right to left": "\u05d0\u05d1\u05d2 \u0645\u0631\u062d\u0628\u0627 (12)",
    "a right-to-left mark": "\u200fabc\u200f 123",
    "emoji": "\U0001f469" * 128,
    "no space": "W" * 128,
    "combining": "Z" + "\u0335\u0322\u0308" * 42,
}
"""References that the service takes, 128 characters at most."""


def harmless(page: Page) -> None:
    """Nothing was executed, and no element came of a text."""
    assert not page.driver.execute_script("return window.injected")
    assert page.driver.find_elements(By.CSS_SELECTOR, "body img, body script") == []
    assert page.complaints() == []


@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize("kind", ACCEPTED)
def test_an_applicants_reference_is_text(
    driver: webdriver.Chrome, sandbox: Http, kind: str, width: tuple[int, int]
) -> None:
    text = ACCEPTED[kind][:128]
    note = ACCEPTED[kind] * 3
    pass_id = sandbox.register(applicant_reference=text).id_pass.id
    page = Page(driver, sandbox.url)
    page.size(*width)
    page.open(f"/?pass={pass_id}")
    page.until(lambda: text in page.text("pass-name"))
    sandbox.cancel(pass_id, note=note[:500])
    page.until(lambda: note[:100] in page.text("pass"))  # the timeline has the note
    (row,) = driver.find_elements(By.CSS_SELECTOR, f".row[data-id='{pass_id}']")
    assert text in str(row.get_attribute("textContent"))
    assert row.rect["height"] < 60
    settle(page)
    name, status, age = (row.find_element(By.CSS_SELECTOR, f".{c}").rect for c in COLUMNS)
    assert name["x"] + name["width"] <= status["x"] + 9  # its pill has a margin
    assert status["x"] + status["width"] <= age["x"] + 1
    assert age["x"] + age["width"] <= width[0]
    assert overflow(page) == []
    harmless(page)


COLUMNS = ("who", "status", "old")


REPLACED = """
{
  const { fetch } = window;
  const [wanted, status, body] = %s;
  window.fetch = async (path, options) => (new URL(path, location).pathname === wanted
    ? new Response(JSON.stringify(body), { status, headers: { "content-type": "text/plain" } })
    : fetch(path, options));
}
"""
"""Answers one path in the server's place."""


def replaced(path: str, status: int, body: Any) -> str:
    return REPLACED % json.dumps([path, status, body])


def error(reason: str, text: str, **metadata: str) -> dict[str, Any]:
    kind = "type.googleapis.com/google.rpc."
    fields = (f"note{text}", "note")
    violations = [{"field": field, "description": text} for field in fields]
    return {
        "code": 3,
        "message": text,
        "details": [
            {"@type": f"{kind}ErrorInfo", "reason": reason, "domain": "x", "metadata": metadata},
            {"@type": f"{kind}RequestInfo", "request_id": text},
            {"@type": f"{kind}BadRequest", "field_violations": violations},
        ],
    }


@pytest.mark.parametrize(
    "body",
    [
        error("INVALID_REQUEST", MARKUP),
        error(MARKUP, MARKUP),
        error("PASS_CHANGED", MARKUP, status=MARKUP),
        error("TRANSITION_NOT_ALLOWED", MARKUP, status=MARKUP, allowed=MARKUP),
    ],
    ids=["violations", "reason", "metadata", "transitions"],
)
def test_what_a_server_says_in_an_error_is_text(
    driver: webdriver.Chrome, sandbox: Http, body: dict[str, Any]
) -> None:
    page = Page(driver, sandbox.url)
    page.size(*WIDE)
    with page.on_every_page(replaced("/idpass/cancel", 400, body)):
        page.open()
        page.rows()[0].click()
        page.until(lambda: page.by_id("cancel").is_displayed())
        page.click("cancel")
        page.until(lambda: driver.find_elements(By.CSS_SELECTOR, ".toast"))
        assert "<img" in page.text("toasts")
        harmless(page)


def test_what_the_openapi_document_holds_is_text(driver: webdriver.Chrome, sandbox: Http) -> None:
    document = json.loads(
        sandbox.http.get("/openapi.json").text.replace("the pass", MARKUP_IN_JSON)
    )
    operation = document["paths"]["/idpass/cancel"]["post"]
    operation["operationId"] = operation["summary"] = operation["description"] = MARKUP
    document["tags"] = [{"name": MARKUP}]
    operation["tags"] = [MARKUP]
    document["components"]["schemas"][MARKUP] = {"type": "object", "description": MARKUP}
    page = Page(driver, sandbox.url)
    page.size(*WIDE)
    with page.on_every_page(replaced("/openapi.json", 200, document)):
        page.open("/docs")
        page.until(lambda: driver.find_elements(By.ID, "WatchIdPasses"))
        assert "<script>" in page.text("api")
        harmless(page)


MARKUP_IN_JSON = json.dumps(MARKUP)[1:-1]


def test_what_an_answer_holds_is_text_on_the_api_page(
    driver: webdriver.Chrome, sandbox: Http
) -> None:
    page = Page(driver, sandbox.url)
    page.size(*WIDE)
    body = {"id_pass": {"id": MARKUP, MARKUP: [MARKUP]}, "reference": MARKUP}
    with page.on_every_page(replaced("/idpass/details", 200, body)):
        page.open("/docs#GetIdPass")
        page.until(lambda: driver.find_elements(By.ID, "WatchIdPasses"))
        assert "<script>" in page.text("GetIdPass")
        harmless(page)


@pytest.mark.parametrize("path", ["/?pass={}&q={}&status={}#{}", "/docs?q={}#{}"])
def test_what_an_address_holds_is_text(driver: webdriver.Chrome, sandbox: Http, path: str) -> None:
    page = Page(driver, sandbox.url)
    page.size(*WIDE)
    text = "%3Cimg%20src%3Dx%20onerror%3Dwindow.injected%3D1%3E"
    page.open(path.format(*[text] * 4), waits=False)
    page.until(lambda: driver.execute_script("return document.readyState") == "complete")
    page.until(lambda: driver.find_elements(By.CSS_SELECTOR, "#filters button, #WatchIdPasses"))
    harmless(page)
