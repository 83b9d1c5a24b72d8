"""Every state of the pages can be read by everybody, and stays where it is.

Promise: in each state, at 1440, 1024 and 390 pixels, in the light and in the dark, axe-core finds
no serious fault (contrast is one of its rules), nothing moves by itself, nothing stands out at the
side. Means: a real Chromium, a real server; the states are a table (`kit/states`), to which each
part of the pages adds its own; in short runs each state has one of the widths, in turn.
SCREENSHOTS=FOLDER keeps a picture of each. Blind spots: axe-core sees what a program can see;
whether a page is beautiful, somebody has to look. Only Chromium.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from selenium import webdriver

from kit.browser import Page, axe
from kit.callers import guarded
from kit.http import Http
from kit.looks import (
    SHIFT,
    WATCH_SHIFTS,
    WIDTHS,
    faults,
    overflow,
    photograph,
    settle,
    shift,
    told,
)
from kit.many import register_many
from kit.proving import MINUTES
from kit.states import docs, race, sandbox, signin
from kit.states.state import State

STATES = [*sandbox.STATES, *race.STATES, *docs.STATES, *signin.STATES]
TRIED = [
    (state, width)
    for number, state in enumerate(STATES)
    for at, width in enumerate(WIDTHS)
    if MINUTES > 3 or at == number % len(WIDTHS)
]


def _sandbox(folder: Path) -> Http:
    return Http(folder / "not-used.db", "--sandbox")


def _many(folder: Path) -> Http:
    server = _sandbox(folder)
    register_many(server)
    return server


SERVERS: dict[str, Callable[[Path], Http]] = {
    "sandbox": _sandbox,
    "its own": _sandbox,
    "many": _many,
    "guarded": guarded,
    "guarded, with passes": guarded,
}
"""How a server is started, by what a state calls it; "its own" is started for every state."""


class Servers:
    """Starts servers when they are asked for. Args: folder: theirs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: dict[str, Http] = {}

    def get(self, kind: str) -> Http:
        if kind == "its own" and kind in self._running:
            self._running.pop(kind).kill()
        if kind not in self._running:
            folder = (
                self._folder / f"{kind.replace(' ', '-').replace(',', '')}-{time.monotonic_ns()}"
            )
            folder.mkdir()
            self._running[kind] = SERVERS[kind](folder)
        server = self._running[kind]
        if kind == "sandbox":
            server.http.post("/sandbox/reset", json={}).raise_for_status()
        return server

    def end(self) -> None:
        for server in self._running.values():
            server.kill()


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    started = Servers(tmp_path_factory.mktemp("servers"))
    yield started
    started.end()


@pytest.fixture(scope="module")
def axe_script(tmp_path_factory: pytest.TempPathFactory) -> str:
    return axe(tmp_path_factory.mktemp("axe"))


def _new_tab(driver: webdriver.Chrome) -> None:
    """In place of the one before, so that a state inherits no token."""
    before = driver.current_window_handle
    driver.switch_to.new_window("tab")
    after = driver.current_window_handle
    driver.switch_to.window(before)
    driver.close()
    driver.switch_to.window(after)


@pytest.mark.parametrize(
    ("state", "width"),
    TRIED,
    ids=[f"{state.name.replace(' ', '-')}-{width}" for state, width in TRIED],
)
def test_a_state_can_be_read_and_stays_where_it_is(
    state: State, width: int, driver: webdriver.Chrome, servers: Servers, axe_script: str
) -> None:
    server = servers.get(state.server)
    _new_tab(driver)
    page = Page(driver, server.url)
    page.size(width, WIDTHS[width])
    page.dark(False)
    with page.on_every_page(WATCH_SHIFTS + state.script):
        page.open(state.path, waits=state.waits)
        state.enter(page, server)
        settle(page)
        moved, what = shift(page)
        found = []
        for dark in (False, True):
            page.dark(dark)
            settle(page)
            photograph(page, f"{state.name}/{width}-{'dark' if dark else 'light'}")
            found += faults(page, axe_script)
        assert not found, told(found)
        assert moved <= SHIFT, what
        assert overflow(page) == []
