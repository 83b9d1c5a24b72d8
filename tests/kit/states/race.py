"""States of the sandbox page: races, faults, the guide, the code panel."""

from collections.abc import Callable

from selenium.webdriver.common.by import By

from kit.browser import Page
from kit.http import Http
from kit.states.state import Enter, State

PLAYED = "return document.querySelector('#race .result.fine, #race .result.refused') !== null"


def played(page: Page, _server: Http) -> None:
    page.click("race-start")
    page.until(lambda: page.driver.execute_script(PLAYED))


def with_its_table(page: Page, server: Http) -> None:
    played(page, server)
    page.driver.find_element(By.CSS_SELECTOR, "#race .times summary").click()


def acted(*labels: str) -> Enter:
    """Presses the guide's button as often as it is named, once it says so."""

    def enter(page: Page, _server: Http) -> None:
        for label in labels:
            page.until(pressed(page, label))

    return enter


def pressed(page: Page, label: str) -> Callable[[], bool]:
    def press() -> bool:
        button = page.driver.find_element(By.CSS_SELECTOR, "#guide .act")
        if not button.is_enabled() or label not in button.text:
            return False
        button.click()
        return True

    return press


def with_code_in(language: str) -> Enter:
    def enter(page: Page, _server: Http) -> None:
        page.show("complete")
        page.choose()
        page.click("cancel")
        page.outcome("PASS_COMPLETE")
        for by, where in (
            (By.XPATH, f"//*[@id='code']//label[text()='{language}']"),
            (By.CSS_SELECTOR, "#code .answer summary"),
        ):  # wherever they are: a toast may lie over them
            element = page.driver.find_element(by, where)
            page.driver.execute_script("arguments[0].click()", element)

    return enter


STATES = [
    State("race", path="/#race"),
    State("race run", played, path="/#race"),
    State("race as a table", with_its_table, path="/#race"),
    State("cancel against completion", played, path="/#completion"),
    State("lost answer", played, path="/#lost"),
    State("server killed", played, path="/#killed"),
    State("slow disk", played, path="/#slow"),
    State("full slots", played, path="/#slots"),
    State("guide", path="/#supersede"),
    State("abandoned passes", acted("Preview"), path="/#cleanup"),
    State("error in Python", with_code_in("Python")),
]
