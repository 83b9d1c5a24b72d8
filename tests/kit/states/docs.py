"""States of the API page."""

from selenium.webdriver.common.keys import Keys

from kit.browser import Page
from kit.http import Http
from kit.states.state import Enter, State


def drawn(page: Page, _server: Http) -> None:
    page.until(lambda: page.driver.find_elements("id", "WatchIdPasses"))


def sent(operation: str, text: str = "", told: str = " ms") -> Enter:
    """Sends an example. Args: text: in place of the request; told: waited for."""

    def enter(page: Page, server: Http) -> None:
        drawn(page, server)
        example = page.driver.find_element("css selector", f"#{operation} .try")
        if text:
            box = example.find_element("tag name", "textarea")
            box.send_keys(Keys.CONTROL, "a")
            box.send_keys(text)
        button = example.find_element("css selector", ".send button")
        page.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
        button.click()
        page.until(lambda: told in example.text)

    return enter


def folded_out(page: Page, server: Http) -> None:
    drawn(page, server)
    page.driver.find_element("css selector", "#CancelIdPass summary").click()
    reason = page.driver.find_element("css selector", "#CancelIdPass .reason")
    page.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", reason)
    reason.click()
    page.until(lambda: "an example" in page.text("CancelIdPass"))


STATES = [
    State("docs", drawn, path="/docs", waits=False),
    State("docs, a request", drawn, path="/docs#RegisterIdPass", waits=False),
    State("docs, a message", drawn, path="/docs#IdPass", waits=False),
    State("docs, errors", folded_out, path="/docs#CancelIdPass", waits=False),
    State("docs, answered", sent("CancelIdPass"), path="/docs#CancelIdPass", waits=False),
    State("docs, refused", sent("CancelIdPass", "{}"), path="/docs#CancelIdPass", waits=False),
    State(
        "docs, no JSON",
        sent("CancelIdPass", "{", "no JSON"),
        path="/docs#CancelIdPass",
        waits=False,
    ),
    State("docs, events", sent("WatchIdPasses"), path="/docs#WatchIdPasses", waits=False),
    State("docs of real passes", drawn, path="/docs", server="guarded", waits=False),
]
