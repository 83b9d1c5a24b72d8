"""The sandbox page in a real browser, driven as a person would."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from kit.browser import NARROW, WIDE, Page, axe, chromium
from kit.http import Http, served
from kit.many import register_many
from kit.support import report

LOOKS = {"light": (WIDE, False), "dark": (WIDE, True), "narrow": (NARROW, False)}
PAGE = "The sandbox page with 10,130 passes, times taken in it"
TYPED = """
const [text, done] = arguments;
const start = performance.now();
const search = document.getElementById("search");
search.value = text;
search.dispatchEvent(new Event("input"));
requestAnimationFrame(() => setTimeout(() => done(performance.now() - start)));
"""
"""Searches for a text; gives the milliseconds until that is on the screen."""


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Http]:
    with served(tmp_path_factory.mktemp("sandbox") / "not-used.db", "--sandbox") as running:
        yield running


@pytest.fixture(scope="module")
def browser(sandbox: Http) -> Iterator[Page]:
    driver = chromium()
    try:
        yield Page(driver, sandbox.url)
    finally:
        driver.quit()


@pytest.fixture
def page(browser: Page) -> Iterator[Page]:
    """The page as it is opened; the browser has nothing to complain of in the end."""
    browser.size(*WIDE)
    browser.dark(False)
    browser.open()
    yield browser
    assert browser.complaints() == []


def test_cancelling_a_new_pass_shows_the_refund_everywhere(page: Page, sandbox: Http) -> None:
    refunded = page.text("fees-refunded")
    page.show("new")
    (pass_id,) = page.pick(0)
    assert "is new" in page.text("selection")
    page.click("cancel")
    page.outcome("Cancelled from new, AUD 4.50 refunded.")
    assert "200 OK" in page.text("exchange")
    assert '"fee_refunded": true' in page.text("exchange")
    page.until(lambda: page.text("fees-refunded") != refunded)
    page.until(lambda: "new → cancelled; AUD 4.50 refunded" in page.text("way"))
    page.until(lambda: "AUD 4.50 refunded" in page.by_id("feed").text.split("#")[1])
    assert "is cancelled" in page.text("selection")
    assert page.statuses() == {"new"}
    assert sandbox.get(pass_id).fee_refunded


def test_cancelling_a_complete_pass_shows_the_400(page: Page) -> None:
    page.show("complete")
    page.pick(0)
    page.click("cancel")
    page.outcome("Refused: 400 PASS_COMPLETE")
    assert "its status can no longer change" in page.text("exchange")
    page.until(lambda: "new → opened → in progress → complete" in page.text("way"))


def test_several_are_cancelled_together_each_by_itself(page: Page) -> None:
    page.show("opened")
    page.pick(0, 1)
    page.show("failed")
    page.pick(0)
    assert page.by_id("cancel").text == "Cancel 3 passes"
    page.click("cancel")
    page.outcome("2 cancelled, AUD 9.00 refunded, 1 refused.")


def test_the_applicant_goes_the_way_and_the_fee_is_then_kept(page: Page) -> None:
    page.click("register")
    page.outcome("Registered.")
    for to, name in (("opened", "opened"), ("in_progress", "in progress")):
        page.driver.find_element(By.CSS_SELECTOR, f"[data-to={to}]").click()
        page.outcome(f"Now {name}.")
    page.click("cancel")
    page.outcome("Cancelled from in progress, fee kept.")
    page.until(lambda: "in progress → cancelled; fee kept" in page.text("way"))
    page.driver.find_element(By.CSS_SELECTOR, "[data-to=complete]").click()
    page.outcome("Refused: 400 PASS_ALREADY_CANCELLED")


def test_a_replay_gets_the_first_answer(page: Page) -> None:
    page.show("new")
    page.pick(0)
    page.click("cancel")
    page.outcome("Cancelled from new")
    page.click("replay")
    page.outcome("The first answer again")
    assert '"replayed": true' in page.text("exchange")


def test_a_batch_that_is_replayed_refunds_nothing_again(page: Page, sandbox: Http) -> None:
    page.show("new")
    page.pick(0, 1)
    page.click("cancel")
    page.outcome("2 cancelled, AUD 9.00 refunded.")
    account = sandbox.account()
    page.click("replay")
    page.outcome("The first answers again, nothing changed now: 2 cancelled, AUD 9.00 refunded.")
    assert sandbox.account() == account


def test_a_replay_after_a_race_sends_the_race_again(page: Page) -> None:
    page.show("new")
    page.pick(0)
    page.click("cancel")
    page.outcome("Cancelled from new")
    page.show("opened")
    (raced,) = page.pick(0)
    page.driver.find_element(By.CSS_SELECTOR, "#rows tr .who").click()  # it alone
    page.click("race")
    page.outcome("One of the two cancelled")
    page.click("replay")
    page.outcome("The first answer again, nothing changed now: Cancelled from opened")
    page.outcome("Refused: 400 PASS_ALREADY_CANCELLED")
    requests = page.driver.find_element(By.CSS_SELECTOR, "#exchange pre").text
    assert requests.count(f'"id": "{raced}"') == 2


def test_of_two_cancels_that_race_one_wins(page: Page) -> None:
    page.show("opened")
    page.pick(0)
    page.click("race")
    page.outcome("One of the two cancelled")
    assert "200 OK" in page.text("exchange")
    assert "400 PASS_ALREADY_CANCELLED" in page.text("exchange")


def test_only_check_and_only_with_refund_change_nothing(page: Page, sandbox: Http) -> None:
    page.show("in_progress")
    (pass_id,) = page.pick(0)
    page.click("require-refund")
    page.click("cancel")
    page.outcome("Refused: 400 REFUND_NOT_AVAILABLE")
    page.click("require-refund")
    page.click("validate-only")
    page.click("cancel")
    page.outcome("Checked only")
    assert sandbox.get(pass_id).end_time.seconds == 0


def test_issuing_again_hands_over_the_slot(page: Page) -> None:
    page.show("new")
    page.pick(0)
    slots = page.text("slots")
    page.click("reissue")
    page.outcome("Registered in place of the prior one, AUD 4.50 refunded.")
    assert page.text("slots") == slots


def test_what_is_registered_can_be_seen_whatever_was_looked_at(page: Page) -> None:
    page.show("complete")
    page.click("next")
    page.by_id("search").send_keys("nobody is called this")
    page.until(lambda: page.by_id("none").is_displayed())
    page.click("register")
    page.outcome("Registered.")
    (row,) = page.driver.find_elements(By.CSS_SELECTOR, "#rows tr.picked")
    assert "new" in row.text
    pressed = page.driver.find_element(By.CSS_SELECTOR, "#filters [aria-pressed=true]")
    assert pressed.text.startswith("all")
    page.show("new")
    page.click("register")
    page.until(lambda: page.rows()[0].get_attribute("class") == "picked")
    assert page.statuses() == {"new"}  # where it can be seen, nothing else moves


def test_the_commands_are_those_of_the_request(page: Page, sandbox: Http) -> None:
    page.show("complete")
    (pass_id,) = page.pick(0)
    page.by_id("reason").send_keys("fraud suspected")
    page.click("cancel")
    page.outcome("Refused")
    for form, parts in {
        "curl": ["curl http://127.0.0.1", "/idpass/cancel", '"reason":"fraud_suspected"'],
        "grpcurl": ["CANCEL_REASON_FRAUD_SUSPECTED", sandbox.address, "IdPassService/CancelIdPass"],
    }.items():
        page.driver.find_element(By.XPATH, f"//label[text()='{form}']").click()
        shown = page.driver.find_element(By.CSS_SELECTOR, "#exchange pre").text
        assert pass_id in shown
        assert all(part in shown for part in parts)


def test_passes_are_found_by_name_and_id(page: Page, sandbox: Http) -> None:
    pass_id = sandbox.register(applicant_reference="Ōnuku <b>Te Ao</b>").id_pass.id
    page.by_id("search").send_keys("ōnuku <b>")
    page.until(lambda: page.text("range") == "1–1 of 1")
    assert "<b>Te Ao</b>" in page.rows()[0].text  # as text, and nothing else
    page.by_id("search").clear()
    page.by_id("search").send_keys(pass_id[-12:])
    page.until(lambda: page.text("range") == "1–1 of 1")
    page.by_id("search").clear()
    page.by_id("search").send_keys("nobody is called so")
    page.until(lambda: page.by_id("none").is_displayed())


def test_the_keyboard_is_enough(page: Page) -> None:
    """From the top of the page to a cancelled pass, and the focus can always be seen."""
    page.keys(Keys.TAB)
    assert page.focused().text == "Skip to the passes"
    page.keys(Keys.ENTER)

    def tab_to(found: Any) -> None:
        for _ in range(60):
            page.keys(Keys.TAB)
            style = "return getComputedStyle(document.activeElement).outlineStyle"
            assert page.driver.execute_script(style) != "none"
            if found(page.focused()):
                return
        pytest.fail("not reached by the keyboard")

    tab_to(lambda element: element.text.startswith("opened"))
    page.keys(Keys.ENTER)
    page.until(lambda: page.statuses() == {"opened"})
    tab_to(lambda element: "opened" in (element.get_attribute("aria-label") or ""))
    page.keys(Keys.SPACE)
    page.until(lambda: "is opened" in page.text("selection"))
    tab_to(lambda element: element.get_attribute("id") == "cancel")
    page.keys(Keys.ENTER)
    page.outcome("Cancelled from opened, AUD 4.50 refunded.")
    assert page.focused().get_attribute("id") == "cancel"


def test_two_tabs_see_each_others_events(page: Page, sandbox: Http) -> None:
    first = page.driver.current_window_handle
    page.driver.switch_to.new_window("tab")
    try:
        page.size(*WIDE)
        page.open()
        page.show("new")
        (pass_id,) = page.pick(0)
        page.click("cancel")
        page.outcome("Cancelled from new")
    finally:
        page.driver.close()
        page.driver.switch_to.window(first)
    page.by_id("search").send_keys(pass_id)
    page.until(lambda: page.statuses() == {"cancelled"})
    refunded = sandbox.http.get("/idpass/account").json()["fees_refunded"]["amount"]
    page.until(lambda: page.text("fees-refunded") == f"AUD {refunded}")


def test_a_reset_reaches_every_tab(page: Page) -> None:
    page.click("register")
    page.outcome("Registered.")
    charged = page.text("fees-charged")
    first = page.driver.current_window_handle
    page.driver.switch_to.new_window("tab")
    try:
        page.open()
        page.click("reset")
        page.outcome("as they were in the beginning")
    finally:
        page.driver.close()
        page.driver.switch_to.window(first)
    page.until(lambda: page.text("fees-charged") not in {charged, "–"})
    page.until(lambda: page.text("live") == "live")


SLOW_FIRST_LIST = """
{
  const { fetch } = window;
  let first = true;
  window.fetch = async (path, options) => {
    const response = await fetch(path, options);
    if (path !== "/idpass/list" || !first) return response;
    first = false;
    const body = await response.text();
    await new Promise((release) => { window.release = release; });
    return new Response(body, response);
  };
}
"""
"""The first list is answered when the test says so, with what it was at once."""


def test_a_reset_is_not_undone_by_what_was_asked_before(page: Page, sandbox: Http) -> None:
    old = sandbox.register(applicant_reference="From before").id_pass.id
    with page.on_every_page(SLOW_FIRST_LIST):
        page.driver.refresh()
        page.until(lambda: page.driver.execute_script("return Boolean(window.release)"))
        page.click("reset")
        page.outcome("as they were in the beginning")
        page.driver.execute_script("window.release()")
        page.click("register")
        page.outcome("Registered.")
    page.by_id("search").send_keys("From before")
    page.until(lambda: page.by_id("none").is_displayed())
    page.by_id("search").clear()
    page.by_id("search").send_keys(old)
    page.until(lambda: page.by_id("none").is_displayed())


def test_a_reset_is_done_when_the_new_data_are_shown(page: Page) -> None:
    """Though the first answers after it are refusals, as of a service that has just begun."""
    before = page.text("fees-charged")
    page.click("register")
    page.outcome("Registered.")
    charged = page.until(lambda: (text := page.text("fees-charged")) != before and text)
    page.driver.execute_script(REFUSED_AFTER_RESET)
    page.click("reset")
    page.outcome("as they were in the beginning")
    assert page.driver.execute_script("return window.refused") == 2
    assert page.text("fees-charged") not in {charged, "–"}
    assert page.by_id("replay").get_attribute("disabled")  # of what is no more


REFUSED_AFTER_RESET = """
const { fetch } = window;
window.refused = 0;
let reset = false;
window.fetch = async (path, options) => {
  if (reset && path === "/idpass/account" && window.refused < 2) {
    window.refused += 1;
    return new Response('{"message": "not yet", "details": []}', { status: 503 });
  }
  const response = await fetch(path, options);
  reset ||= path === "/sandbox/reset";
  return response;
};
"""


@pytest.mark.parametrize("path", ["/", "/docs"])
@pytest.mark.parametrize("look", LOOKS)
def test_axe_finds_no_serious_fault(
    page: Page, path: str, look: str, tmp_path: Path, axe_script: str
) -> None:
    size, dark = LOOKS[look]
    page.size(*size)
    page.dark(dark)
    page.open(path)
    if path == "/":
        page.show("in_progress")
        page.pick(0)
        page.click("cancel")
        page.outcome("Cancelled")
    else:
        page.until(lambda: page.driver.find_elements(By.ID, "CancelRequest"))
    page.driver.execute_script(axe_script)
    found = page.driver.execute_async_script(
        "const done = arguments[0]; axe.run().then((result) => done(result.violations))"
    )
    page.screenshot(tmp_path / "page.png")
    serious = [v for v in found if v["impact"] in {"serious", "critical"}]
    assert not serious, json.dumps(serious, indent=1)[:5_000]
    width = "return document.documentElement.scrollWidth"
    assert page.driver.execute_script(width) <= size[0]


@pytest.fixture(scope="module")
def axe_script(tmp_path_factory: pytest.TempPathFactory) -> str:
    return axe(tmp_path_factory.mktemp("axe"))


def test_ten_thousand_passes_are_filtered_as_one_types(
    browser: Page, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    with served(tmp_path / "not-used.db", "--sandbox") as many:
        register_many(many)
        page = Page(browser.driver, many.url)
        page.size(*WIDE)
        page.open()
        paint = "return performance.getEntriesByName('first-contentful-paint')[0].startTime"
        report(request, PAGE, f"{page.driver.execute_script(paint):6.1f} ms: first content")
        page.until(lambda: page.text("range").endswith("of 10,130"))
        for text, found in (("applicant 77", "1–12 of 111"), ("", "1–12 of 10,130")):
            took_ms = page.driver.execute_async_script(TYPED, text)
            assert page.text("range") == found
            report(request, PAGE, f"{took_ms:6.1f} ms: {found} shown")
        page.pick(0)
        page.click("cancel")
        page.outcome("Cancelled from new")


# -- the inbox


def delivery(page: Page, number: int = 0) -> str:
    """What the inbox says of a delivery, the newest event first."""
    script = "return document.querySelectorAll('#deliveries li')[arguments[0]]?.textContent ?? ''"
    return str(page.driver.execute_script(script, number))


def test_the_inbox_gets_each_event_signed_and_shows_what_is_tried_again(
    page: Page, sandbox: Http
) -> None:
    page.show("new")
    (pass_id,) = page.pick(0)
    name = sandbox.get(pass_id).applicant_reference
    page.click("cancel")
    page.outcome("Cancelled from new")
    expected = f"id_pass.cancelled {name}signature checked · answered 204delivered"
    page.until(lambda: expected in delivery(page))
    page.click("inbox-fails")
    page.until(lambda: sandbox.http.get("/sandbox/inbox").json()["fails"])
    page.pick(1)
    page.click("cancel")
    page.until(lambda: "answered 500 · again in" in delivery(page))
    assert "pending" in delivery(page)
    assert expected in delivery(page, 1)
    page.click("inbox-fails")
    # The second attempt follows after five seconds and a little.
    page.until(lambda: "answered 204 · 2 attemptsdelivered" in delivery(page))
    page.driver.find_element(By.CSS_SELECTOR, "#deliveries li button").click()
    page.until(lambda: "answered 204delivered" in delivery(page))


def test_the_inbox_refuses_what_is_not_signed(sandbox: Http) -> None:
    answer = sandbox.http.post("/sandbox/inbox", content=b"{}")
    assert answer.status_code == 400
    (received, *_) = sandbox.http.get("/sandbox/inbox").json()["received"]
    assert not received["verified"]
    assert "webhook-id is missing" in received["why"]
    assert sandbox.http.post("/sandbox/inbox", content=b"x" * 70_000).status_code == 413
    assert sandbox.http.post("/sandbox/inbox/switch", json={"fails": 1}).status_code == 400
