"""States of the page of the passes where there is a callers file."""

from selenium.webdriver.common.by import By

from kit.browser import Page
from kit.http import Http
from kit.states.state import State


def asked(page: Page, _server: Http) -> None:
    page.until(lambda: page.driver.find_elements(By.ID, "token"))
    page.until(lambda: page.by_id("token").is_displayed())


def enter(page: Page, token: str) -> None:
    """Enters a token where it is asked for."""
    page.until(lambda: page.by_id("token").is_displayed())
    page.by_id("token").clear()
    page.by_id("token").send_keys(token)
    page.click("sign-in")


def wrong(page: Page, _server: Http) -> None:
    enter(page, "nobody")
    page.until(lambda: "knows no caller" in page.text("token-wrong"))


def empty(page: Page, _server: Http) -> None:
    enter(page, "ann-token")
    page.until(lambda: "No passes yet" in page.text("none"))


def read_only(page: Page, server: Http) -> None:
    for name in ("Ann Abel", "Ben Bell"):
        fields = {"applicant_reference": name, "request_id": name.replace(" ", "-")}
        headers = {"authorization": "Bearer ann-token"}
        server.http.post("/idpass/register", json=fields, headers=headers).raise_for_status()
    enter(page, "rae-token")
    page.until(page.rows)
    page.rows()[0].click()
    page.until(lambda: "lacks the permission" in page.text("barred"))


STATES = [
    State("signed out", asked, server="guarded", waits=False),
    State("wrong token", wrong, server="guarded", waits=False),
    State("signed in, no passes", empty, server="guarded", waits=False),
    State("read only", read_only, server="guarded, with passes", waits=False),
]
