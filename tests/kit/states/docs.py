"""States of the API page."""

from kit.browser import Page
from kit.http import Http
from kit.states.state import State


def drawn(page: Page, _server: Http) -> None:
    page.until(lambda: page.driver.find_elements("id", "CancelRequest"))


STATES = [State("docs", drawn, path="/docs", waits=False)]
