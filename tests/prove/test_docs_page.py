"""The API page: what it shows can be pasted, and does what it says.

Promise: the examples have ids of the sandbox's passes and work as they stand; a request can be
changed and sent; what is wrong with it is said beside it; errors are a table; each request has an
address; a phone gets a select. Where there is no sandbox, the document's own examples stand, and
nothing is sent that changes something without asking twice. Means: a real Chromium, real servers.
Blind spots: of the commands only curl's are run, and only where curl is installed.
"""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from kit.browser import NARROW, WIDE, Page
from kit.http import Http, served


@pytest.fixture
def page(driver: webdriver.Chrome, sandbox: Http) -> Iterator[Page]:
    shown = Page(driver, sandbox.url)
    yield opened(shown, "/docs")
    assert shown.complaints() == []


def opened(page: Page, path: str) -> Page:
    page.size(*WIDE)
    page.dark(False)
    page.driver.get("about:blank")  # or a page that differs in its fragment is not loaded anew
    page.open(path)
    page.until(lambda: page.driver.find_elements(By.ID, "WatchIdPasses"))
    return page


def part(page: Page, operation: str, selector: str) -> Any:
    return page.driver.find_element(By.CSS_SELECTOR, f"#{operation} {selector}")


def send(page: Page, operation: str) -> str:
    """Sends an example as it stands. Returns the line above its answer."""
    line = part(page, operation, ".try .line")
    button = part(page, operation, ".send button")
    page.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
    button.click()
    page.until(lambda: line.text.endswith(" ms"))
    return str(line.text)


def answer(page: Page, operation: str) -> Any:
    return json.loads(part(page, operation, "pre[aria-label=Answer]").text)


CHANGING = ["AdvanceIdPass", "RegisterIdPass", "BatchCancelIdPasses", "CancelIdPass"]
READING = ["GetIdPass", "GetIdPassById", "ListIdPasses", "GetAccount", "WatchIdPasses"]
HOOKS = ["GetWebhook", "ListWebhooks", "TestWebhook", "ListWebhookDeliveries", "UpdateWebhook"]


@pytest.mark.parametrize("operation", [*READING, *HOOKS, *CHANGING])
def test_an_example_works_as_it_stands(page: Page, operation: str) -> None:
    assert send(page, operation).startswith("200 OK")
    assert answer(page, operation)


def test_what_is_shown_can_be_pasted_into_a_shell(page: Page) -> None:
    if shutil.which("curl") is None:
        pytest.skip("no curl here")
    for operation in ("GetIdPass", "CancelIdPass", "GetIdPassById"):
        command = part(page, operation, "pre[aria-label*=curl]").text
        done = subprocess.run(
            ["sh", "-c", f"{command} --silent --noproxy '*'"],
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
        found = json.loads(done.stdout)
        assert found.get("status", "") == "cancelled" or "id_pass" in found, (command, found)


def test_examples_are_of_passes_that_exist_and_their_answers_are_the_services(
    page: Page, sandbox: Http
) -> None:
    asked = json.loads(part(page, "GetIdPass", "textarea").get_attribute("value"))
    shown = answer(page, "GetIdPass")["id_pass"]
    assert shown["id"] == asked["id"]
    assert shown["applicant_reference"] == sandbox.get(asked["id"]).applicant_reference
    cancel = json.loads(part(page, "CancelIdPass", "textarea").get_attribute("value"))
    assert answer(page, "CancelIdPass")["fee_refunded"]
    assert not sandbox.get(cancel["id"]).fee_refunded  # it was only asked what would be


def test_sent_again_an_example_with_a_request_id_is_answered_as_before(page: Page) -> None:
    which = Select(part(page, "CancelIdPass", "select"))
    which.select_by_index(1)
    send(page, "CancelIdPass")
    first = answer(page, "CancelIdPass")
    which.select_by_index(2)
    send(page, "CancelIdPass")
    assert answer(page, "CancelIdPass") == {**first, "replayed": True}


def test_what_is_wrong_is_said_beside_the_request(page: Page) -> None:
    box = part(page, "CancelIdPass", "textarea")
    wrong = part(page, "CancelIdPass", ".wrong")
    for text, told in (("{", "This is no JSON"), ("[]", "no object"), ("3", "no object")):
        box.clear()
        box.send_keys(text)
        part(page, "CancelIdPass", ".send button").click()
        page.until(lambda told=told: told in wrong.text)
        assert box.get_attribute("aria-invalid") == "true"
        assert page.focused() == box
    box.clear()
    box.send_keys('{"id": "x"}', Keys.CONTROL, Keys.ENTER)
    page.until(lambda: "400 INVALID_REQUEST" in part(page, "CancelIdPass", ".line").text)
    assert wrong.text == ""


def test_errors_are_a_table_and_each_can_be_looked_at(page: Page) -> None:
    rows = page.driver.find_elements(By.CSS_SELECTOR, "#CancelIdPass .errors tbody tr")
    cells = [[cell.text for cell in row.find_elements(By.CSS_SELECTOR, "td, th")] for row in rows]
    found = {reason: (status, todo) for status, reason, _, todo in cells if status}
    assert found["PASS_CHANGED"] == ("409", "Read the pass and decide again")
    assert found["PASS_ALREADY_CANCELLED"][0] == "400"
    assert "TRANSITION_NOT_ALLOWED" not in found
    page.driver.find_element(By.XPATH, "//*[@id='CancelIdPass']//button[.='PASS_CHANGED']").click()
    assert part(page, "CancelIdPass", ".line").text == "409 PASS_CHANGED · an example"
    assert answer(page, "CancelIdPass")["details"][0]["reason"] == "PASS_CHANGED"


def test_each_request_and_message_has_an_address(page: Page) -> None:
    for name in ("RegisterIdPass", "CancelResponse", "IdPassEvent"):
        opened(page, f"/docs#{name}")
        top = page.by_id(name).rect["y"] - page.driver.execute_script("return scrollY")
        assert -1 <= top < 400, name
    opened(page, "/docs#%3Cimg%20src=x%3E")  # no such thing, and no fault


def test_a_phone_gets_a_select_and_the_way_back_is_there(page: Page) -> None:
    assert not page.by_id("go").is_displayed()
    page.size(*NARROW)
    assert not page.by_id("contents").is_displayed()
    Select(page.by_id("go")).select_by_visible_text("/idpass/list")
    page.until(lambda: "#ListIdPasses" in page.driver.current_url)
    page.until(lambda: abs(_top(page, "ListIdPasses")) < 120)
    page.driver.find_element(By.LINK_TEXT, "Back to the passes")
    assert page.driver.execute_script("return document.documentElement.scrollWidth") <= NARROW[0]


def _top(page: Page, name: str) -> float:
    script = "return document.getElementById(arguments[0]).getBoundingClientRect().top"
    return float(page.driver.execute_script(script, name))


def test_without_a_sandbox_real_data_are_changed_only_when_it_was_said_twice(
    driver: webdriver.Chrome, tmp_path: Path
) -> None:
    with served(tmp_path / "idpass.db") as real:
        page = opened(Page(driver, real.url), "/docs")
        asked = json.loads(part(page, "CancelIdPass", "textarea").get_attribute("value"))
        assert asked["id"].startswith("01a207")  # the document's
        assert "Changes real data" in part(page, "RegisterIdPass", ".send").text
        part(page, "RegisterIdPass", ".send button").click()
        page.until(lambda: "Really" in part(page, "RegisterIdPass", ".send button").text)
        assert real.account().slots_in_use == 0
        assert send(page, "RegisterIdPass").startswith("200 OK")
        assert real.account().slots_in_use == 1
        assert page.complaints() == []
