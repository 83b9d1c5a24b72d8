"""A state of a page: where it is served, how a person gets there."""

from collections.abc import Callable
from dataclasses import dataclass

from kit.browser import Page
from kit.http import Http

Enter = Callable[[Page, Http], None]


def as_it_is(_page: Page, _server: Http) -> None:
    """For a state that is there once the page is."""


@dataclass(frozen=True)
class State:
    """A state that is measured and photographed, at every width, in the light and in the dark.

    Args:
        name: also of its pictures.
        enter: gets there from the page as it is opened; returns once the state is on the screen.
        path: of the page, with what belongs behind `?` and `#`.
        server: who serves it: a key of SERVERS in prove/test_page_states.py.
        script: runs before the page's own ones, to hold up or change what it asks for.
        waits: whether the page is there once its passes are; False leaves all waiting to `enter`.
    """

    name: str
    enter: Enter = as_it_is
    path: str = "/"
    server: str = "sandbox"
    script: str = ""
    waits: bool = True
