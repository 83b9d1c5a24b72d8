"""Signing in to the page of the passes, where there is a callers file.

Promise: nothing is shown without a token that the service takes; a token is sent as a header, and
is in no address, no storage that outlives the tab, no other tab and no log line; what it does not
permit is disabled and says why; withdrawn, it is out at once. A page of real passes has no reset
and no injected faults. Means: a real Chromium against a real server with a callers file. Blind
spots: what the browser itself keeps of a tab on disk to restore it after a crash.
"""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By

from kit.browser import WIDE, Page
from kit.callers import ACME, READS, guarded, write
from kit.guarded import caller
from kit.http import Http
from kit.states.signin import enter

ANN = {"authorization": "Bearer ann-token"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("guarded")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Http]:
    running = guarded(folder)
    try:
        running.http.post("/idpass/register", json={"applicant_reference": "Ada"}, headers=ANN)
        yield running
    finally:
        running.kill()


@pytest.fixture
def page(driver: webdriver.Chrome, server: Http) -> Iterator[Page]:
    """The page in a tab of its own, in which nobody has signed in."""
    first = driver.current_window_handle
    driver.switch_to.new_window("tab")
    shown = Page(driver, server.url)
    shown.size(*WIDE)
    shown.open(waits=False)
    yield shown
    assert shown.complaints() == []
    driver.close()
    driver.switch_to.window(first)


def test_nothing_is_shown_without_a_token(page: Page) -> None:
    page.until(lambda: page.by_id("token").is_displayed())
    assert page.focused() == page.by_id("token")
    assert page.rows() == []
    assert "acme" not in page.driver.page_source


@pytest.mark.parametrize(
    ("token", "told"),
    [
        ("", "Enter a token."),
        ("nobody", "knows no caller with this token"),
        ("two words", "This is no token"),
        ("\u00fcber-token", "This is no token"),
        ("<img/src=x/onerror=alert(1)>", "knows no caller with this token"),
        ("x" * 5_000, "This is no token"),
    ],
)
def test_a_wrong_token_is_said_beside_the_field(page: Page, token: str, told: str) -> None:
    enter(page, token)
    page.until(lambda: told in page.text("token-wrong"))
    assert page.by_id("token").get_attribute("aria-invalid") == "true"
    assert page.focused() == page.by_id("token")
    assert page.rows() == []


def test_a_token_shows_its_account_and_does_what_it_may(page: Page, server: Http) -> None:
    made = server.http.post("/idpass/register", json={"applicant_reference": "Bo"}, headers=ANN)
    enter(page, "ann-token")
    page.until(lambda: page.rows() and page.text("live") == "live")
    assert page.driver.title == "ID Pass acme"
    for absent in ("reset", "race-open", "guide"):
        assert not page.by_id(absent).is_displayed(), absent
    row = next(each for each in page.rows() if "Bo" in each.text)
    row.click()
    page.until(lambda: page.by_id("cancel").is_displayed())
    page.click("cancel")
    page.until(lambda: "cancelled" in row.text)
    details = {"id": made.json()["id_pass"]["id"]}
    found = server.http.post("/idpass/details", json=details, headers=ANN).json()
    assert found["id_pass"]["cancellation"]["caller"] == "ann"
    page.until(lambda: "by ann" in page.text("feed"))  # the stream is the token's too


def test_who_may_only_read_sees_what_is_barred_and_why(page: Page) -> None:
    enter(page, "rae-token")
    page.until(page.rows)
    page.rows()[0].click()
    page.until(lambda: page.text("barred"))
    assert page.text("barred") == "Your token lacks the permissions cancel, advance, register."
    for name in ("cancel", "reissue", "register"):
        assert not page.by_id(name).is_enabled(), name
        assert "lacks the permission" in str(page.by_id(name).get_attribute("title"))
    page.driver.find_element(By.TAG_NAME, "body").send_keys("c")  # the key does nothing either
    assert page.driver.find_elements(By.CSS_SELECTOR, ".toast") == []


def test_who_may_not_watch_is_told_that_nothing_is_live(page: Page) -> None:
    enter(page, "rio-token")
    page.until(page.rows)
    assert page.text("live") == "not live"
    page.until(lambda: "nothing is shown as it happens" in page.text("permits"))


def test_a_token_is_this_tabs_and_in_no_address(page: Page, driver: webdriver.Chrome) -> None:
    enter(page, "ann-token")
    page.until(page.rows)
    driver.refresh()
    page.until(page.rows)  # a reload keeps it
    driver.get(driver.current_url.split("?")[0] + "docs")
    page.until(lambda: "IDPASS_TOKEN" in page.text("CancelIdPass"))
    assert "ann-token" not in driver.page_source
    asked = driver.execute_script(
        "return performance.getEntriesByType('resource').map((e) => e.name).join()"
    )
    assert "ann-token" not in asked + driver.current_url
    kept = "return JSON.stringify({...localStorage}) + document.cookie"
    assert driver.execute_script(kept) == "{}"
    here = driver.current_window_handle
    driver.switch_to.new_window("tab")
    try:
        page.open(waits=False)
        page.until(lambda: page.by_id("token").is_displayed())
    finally:
        driver.close()
        driver.switch_to.window(here)


def test_who_signs_out_leaves_nothing(page: Page, driver: webdriver.Chrome) -> None:
    enter(page, "ann-token")
    page.until(page.rows)
    page.click("sign-out")
    page.until(lambda: page.driver.find_elements(By.ID, "token"))
    page.until(lambda: page.by_id("token").is_displayed())
    assert page.rows() == []
    assert driver.execute_script("return sessionStorage.getItem('idpass-token')") is None
    assert "Ada" not in driver.page_source


def test_a_token_that_is_withdrawn_is_out_at_once(page: Page, server: Http, folder: Path) -> None:
    write(folder, ACME + READS + caller("tom"))
    server.signal(signal.SIGHUP)
    server.wait_for("callers_loaded", count=2)
    enter(page, "tom-token")
    page.until(lambda: page.rows() and page.text("live") == "live")
    write(folder, ACME + READS)
    server.signal(signal.SIGHUP)
    page.until(lambda: page.driver.find_elements(By.ID, "token-wrong"))
    page.until(lambda: "no longer takes the token" in page.text("token-wrong"))
    assert page.rows() == []


def test_no_token_is_in_the_log(server: Http) -> None:
    assert "-token" not in str(server.log)
