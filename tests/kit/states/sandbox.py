"""States of the sandbox page: its list, its passes, what is answered."""

from kit.browser import Page
from kit.http import Http
from kit.states.state import State

NEVER_LISTED = """
{
  const { fetch } = window;
  window.fetch = (path, options) =>
    path === "/idpass/list" ? new Promise(() => {}) : fetch(path, options);
}
"""


def one(page: Page, _server: Http) -> None:
    page.show("new")
    page.choose()


def many(page: Page, _server: Http) -> None:
    page.show("opened")
    page.pick(0, 1, 2)


def cancelled(page: Page, _server: Http) -> None:
    page.show("new")
    page.choose()
    page.click("cancel")
    page.outcome("Cancelled")


def refused(page: Page, _server: Http) -> None:
    page.show("complete")
    page.choose()
    page.click("cancel")
    page.outcome("PASS_COMPLETE")


def nothing_found(page: Page, _server: Http) -> None:
    page.by_id("search").send_keys("nobody is called this")
    page.until(lambda: page.by_id("none").is_displayed())


def server_away(page: Page, server: Http) -> None:
    server.kill()
    page.until(lambda: page.text("live") != "live")


STATES = [
    State("list"),
    State("one selected", one),
    State("several selected", many),
    State("cancelled", cancelled),
    State("refused", refused),
    State("nothing found", nothing_found),
    State("loading", script=NEVER_LISTED, waits=False),
    State("server away", server_away, server="its own"),
    State("10,000 passes", server="many"),
]
