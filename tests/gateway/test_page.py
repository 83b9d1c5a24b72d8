"""The sandbox page in a real browser, driven as a person would; the rest is in tests/prove."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from kit.browser import WIDE, Page, axe
from kit.http import Http

STRANGE = {
    "markup": "<b onclick=alert(1)>Ōnuku</b> & <script>window.hurt = 1</script>",
    "quotes": '"O\'Brien" `${1}` \\" --',
    "right to left": "مريم (1) -> שלום",
    "emoji": "👩‍👩‍👧🏳️‍🌈" * 9,
}


SEEN_LEAVING = """
const row = document.getElementById(`row-${arguments[0]}`);
new MutationObserver(() => {
  if (row.matches(".leaving")) window.leaving = row.querySelector(".status").textContent;
}).observe(row, { attributes: true, subtree: true, childList: true });
"""
"""Notes what a row says while it stays to be seen, though it no longer fits the filter."""


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
    pass_id = page.choose()
    assert page.text("cancel") == "Cancel · refunds AUD 4.50"
    page.driver.execute_script(SEEN_LEAVING, pass_id)
    page.click("cancel")
    page.outcome("Cancelled from new, AUD 4.50 refunded.")
    assert "200 OK" in page.latest()
    reference = sandbox.events(id=pass_id)[-1].reference
    assert reference in page.latest()
    page.until(lambda: "AUD 4.50 refunded" in page.timeline()[-1])
    assert reference in page.timeline()[-1]
    assert "AUD 4.50 refunded" in page.text("pass")
    page.until(lambda: "AUD 4.50 refunded" in page.by_id("feed").text.split("#")[1])
    total = sandbox.http.get("/idpass/account").json()["fees_refunded"]["amount"]
    page.until(lambda: page.text("fees-refunded") == f"AUD {total}")
    assert page.text("fees-refunded") != refunded
    page.until(lambda: pass_id not in page.ids())
    assert page.driver.execute_script("return window.leaving") == "cancelled"
    assert page.text("cancel") == "Try to cancel (will be refused)"
    assert sandbox.get(pass_id).fee_refunded


def test_a_refusal_is_told_in_words_with_its_code_below(page: Page) -> None:
    page.show("complete")
    page.choose()
    assert page.text("cancel") == "Try to cancel (will be refused)"
    page.click("cancel")
    page.outcome("a complete pass cannot be cancelled, its fee is kept")
    assert "400 PASS_COMPLETE" in page.latest()
    page.show("new")
    page.choose()
    page.click("cancel")
    page.outcome("Cancelled from new")
    page.click("cancel")
    page.outcome("AUD 4.50 was refunded then.")
    assert "Already cancelled" in page.latest()


def test_the_applicant_goes_the_way_and_the_fee_is_then_kept(page: Page) -> None:
    page.click("register")
    page.click("register-now")
    page.outcome("Registered.")
    for to, name in (("opened", "opened"), ("in_progress", "in progress")):
        page.driver.find_element(By.CSS_SELECTOR, f"[data-to={to}]").click()
        page.outcome(f"Now {name}.")
        page.until(lambda to=to: not page.driver.find_elements(By.CSS_SELECTOR, f"[data-to={to}]"))
    assert page.text("cancel") == "Cancel · fee kept"
    page.click("cancel")
    page.outcome("Cancelled from in progress, fee kept.")
    page.until(lambda: "fee kept" in page.timeline()[-1])
    page.driver.find_element(By.CSS_SELECTOR, "[data-to=complete]").click()
    page.outcome("Already cancelled")


def test_a_replay_gets_the_first_answer(page: Page, sandbox: Http) -> None:
    page.show("new")
    page.choose()
    page.click("cancel")
    page.outcome("Cancelled from new")
    account = sandbox.account()
    page.in_toast("Replay").click()
    page.outcome("The first answer again")
    assert sandbox.account() == account
    page.in_toast("Show event").click()
    fresh = page.driver.find_element(By.CSS_SELECTOR, "#feed li.fresh")
    assert "cancelled" in fresh.text


def test_several_are_ticked_across_filters_and_cancelled_each_by_itself(
    page: Page, sandbox: Http
) -> None:
    page.show("opened")
    page.pick(0, 1)
    page.show("failed")
    page.pick(0)
    assert "3 selected" in page.text("bulk")
    assert "2 of them not shown" in page.text("bulk")
    failed = len(page.rows())
    assert page.text("select-all") == f"Select all {failed} failed"
    page.click("select-all")
    assert f"{failed + 2} selected" in page.text("bulk")
    page.click("untick")
    page.pick(0)
    page.show("opened")
    page.pick(0, 1)
    page.click("cancel-ticked")
    page.outcome("2 cancelled, AUD 9.00 refunded, 1 refused.")
    assert not page.by_id("bulk").is_displayed()
    account = sandbox.account()
    page.in_toast("Replay").click()
    page.outcome("The first answers again")
    assert sandbox.account() == account


def test_only_check_and_only_with_refund_change_nothing(page: Page, sandbox: Http) -> None:
    page.show("in_progress")
    pass_id = page.choose()
    page.driver.find_element(By.CSS_SELECTOR, ".options summary").click()
    page.click("require-refund")
    assert page.text("cancel") == "Try to cancel (will be refused)"
    page.click("cancel")
    page.outcome("Not cancelled: the applicant has consented")
    page.click("require-refund")
    page.click("validate-only")
    assert page.text("cancel") == "Check · fee kept"
    page.click("cancel")
    page.outcome("Only checked, nothing was changed.")
    assert sandbox.get(pass_id).end_time.seconds == 0


def test_issuing_again_hands_over_the_slot_and_links_both(page: Page) -> None:
    page.show("new")
    prior = page.choose()
    slots = page.text("slots")
    page.click("reissue")
    page.outcome("Registered in place of the prior one, AUD 4.50 refunded.")
    assert page.text("slots") == slots
    link = page.driver.find_element(By.CSS_SELECTOR, ".facts a")
    assert str(link.get_attribute("href")).endswith(f"?pass={prior}")
    link.click()
    page.until(lambda: prior in page.text("pass"))
    page.until(lambda: "Superseded by" in page.by_id("pass").text)


def test_what_is_registered_can_be_seen_whatever_was_looked_at(page: Page) -> None:
    page.show("complete")
    page.find("nobody is called this")
    page.until(lambda: page.by_id("none").is_displayed())
    page.click("register")
    page.click("register-now")
    page.outcome("Registered.")
    (row,) = page.driver.find_elements(By.CSS_SELECTOR, "#rows .current")
    assert "new" in row.text
    pressed = page.driver.find_element(By.CSS_SELECTOR, "#filters [aria-pressed=true]")
    assert pressed.text.startswith("all")


def test_an_empty_list_has_a_way_out(page: Page) -> None:
    page.find("nobody is called so")
    page.until(lambda: "nobody is called so" in page.text("none"))
    page.click("show-all")
    page.until(lambda: page.text("range") == str(len(page.ids())) or page.rows())
    assert page.by_id("search").get_attribute("value") == ""


def test_what_the_server_refuses_is_said_beside_the_field(page: Page) -> None:
    page.click("register")
    page.by_id("register-dialog").find_element(By.NAME, "link_validity_days").send_keys("99")
    page.click("register-now")
    page.until(lambda: "99 is not 1 to 14" in page.text("wrong-link_validity_days"))
    assert page.by_id("register-dialog").is_displayed()
    page.keys(Keys.ESCAPE)
    page.show("new")
    page.choose()
    page.driver.find_element(By.CSS_SELECTOR, ".options summary").click()
    page.driver.execute_script("document.getElementById('note').value = 'x'.repeat(501)")
    page.click("cancel")
    page.until(lambda: "500" in page.text("wrong-note"))
    assert page.by_id("note").get_attribute("aria-invalid") == "true"


@pytest.mark.parametrize("name", STRANGE)
def test_what_a_stranger_writes_is_shown_as_text_and_turns_nothing(
    page: Page, sandbox: Http, name: str
) -> None:
    text = STRANGE[name]
    made = sandbox.register(applicant_reference=text).id_pass
    sandbox.cancel(made.id, note=text)
    page.find(made.id)
    page.until(lambda: [made.id] == page.ids())
    page.choose()
    page.until(lambda: len(page.timeline()) == 2)
    shown = page.driver.execute_script(
        "return [...document.querySelectorAll('.row .who, #pass-name, .timeline bdi:last-of-type')]"
        ".map((each) => [each.tagName, each.textContent, each.children.length])"
    )
    assert shown[:2] == [["BDI", text, 0]] * 2
    assert ["BDI", text, 0] in shown[2:]
    assert not page.driver.execute_script("return 'hurt' in window")
    in_feed = "return document.querySelector('#feed li bdi').textContent"
    page.until(lambda: page.driver.execute_script(in_feed) == text)


def test_the_keyboard_is_enough(page: Page, sandbox: Http) -> None:
    page.keys("?")
    assert page.by_id("keys").is_displayed()
    page.keys(Keys.ESCAPE)
    page.keys("/")
    assert page.focused().get_attribute("id") == "search"
    page.keys(Keys.ESCAPE)
    page.show("new")
    page.keys(Keys.ARROW_DOWN)
    first = page.chosen()
    page.keys(Keys.ARROW_DOWN)
    second = page.chosen()
    assert first != second
    assert first in page.ids()[0]
    assert second in page.ids()[1]
    page.keys("x", Keys.ARROW_UP, "x")
    page.until(lambda: "2 selected" in page.text("bulk"))
    page.keys("c")
    page.outcome("2 cancelled, AUD 9.00 refunded.")
    page.keys("r")
    page.outcome("The first answers again")
    assert sandbox.get(first).fee_refunded
    assert sandbox.get(second).fee_refunded


def test_the_address_keeps_what_is_looked_at(page: Page) -> None:
    page.show("cancelled")
    page.find("a")
    chosen = page.choose()
    looked = page.ids()
    page.driver.refresh()
    page.until(lambda: chosen in page.text("pass"))
    assert page.ids() == looked
    assert page.by_id("search").get_attribute("value") == "a"
    assert page.statuses() == {"cancelled"}


def test_two_tabs_see_each_others_events_and_resets(page: Page, sandbox: Http) -> None:
    first = page.driver.current_window_handle
    page.driver.switch_to.new_window("tab")
    try:
        page.size(*WIDE)
        page.open()
        page.show("new")
        pass_id = page.choose()
        page.click("cancel")
        page.outcome("Cancelled from new")
        page.driver.switch_to.window(first)
        page.find(pass_id)
        page.until(lambda: page.statuses() == {"cancelled"})
        refunded = sandbox.http.get("/idpass/account").json()["fees_refunded"]["amount"]
        page.until(lambda: page.text("fees-refunded") == f"AUD {refunded}")
        page.driver.switch_to.window(page.driver.window_handles[-1])
        page.click("reset")
        page.outcome("as they were in the beginning")
    finally:
        page.driver.close()
        page.driver.switch_to.window(first)
    page.until(lambda: page.text("live") == "live" and page.by_id("none").is_displayed())


def test_axe_finds_no_serious_fault(page: Page, tmp_path: Path) -> None:
    """In every other state too: tests/prove/test_page_states.py."""
    page.show("in_progress")
    page.choose()
    page.click("cancel")
    page.outcome("Cancelled")
    page.driver.execute_script(axe(tmp_path))
    found = page.driver.execute_async_script(
        "const done = arguments[0]; axe.run().then((result) => done(result.violations))"
    )
    serious = [v for v in found if v["impact"] in {"serious", "critical"}]
    assert not serious, json.dumps(serious, indent=1)[:5_000]
