"""A stage of the sandbox: a server with faults, made for a show, and what happens on it."""

import contextlib
import json
import socket
from collections.abc import Callable, Iterator
from typing import Any

import httpx

from idpass_server import addresses
from kit.http import Http
from kit.support import eventually


class Staged:
    """
    Args:
        server: the sandbox.
        response: the stream of its news.

    Attributes:
        news: what was read of them so far.
    """

    def __init__(self, server: Http, response: httpx.Response) -> None:
        self._server = server
        self._lines = response.iter_lines()
        self.news: list[dict[str, Any]] = []
        self.base = f"/sandbox/stage/{self.until('stage')['stage']}"

    def until(self, event: str) -> dict[str, Any]:
        """Reads on to the next news of a kind."""
        for line in self._lines:
            self.news.append(json.loads(line))
            if self.news[-1]["event"] == event:
                return self.news[-1]
        raise AssertionError(f"the stage ended without {event!r}: {self.news}")

    def ended(self) -> bool:
        """Reads to the end. Returns whether there was one."""
        self.news += [json.loads(line) for line in self._lines]
        return True

    def post(self, path: str, **fields: Any) -> httpx.Response:
        return self._server.http.post(f"{self.base}/{path}", json=fields)

    def account(self) -> dict[str, Any]:
        return dict(self._server.http.get(f"{self.base}/idpass/account").json())


@contextlib.contextmanager
def staged(server: Http, **faults: Any) -> Iterator[Staged]:
    """A stage, yet to serve; gone in the end, for the next one to begin."""
    with server.http.stream("POST", "/sandbox/stage", json=faults) as response:
        assert response.status_code == 200, response.read()
        stage = Staged(server, response)
        yield stage
    gone = stage.base.rpartition("/")[2]
    eventually(lambda: f"no stage {gone}" in stage.post("idpass/cancel").json()["message"])


def volley(post: Callable[..., httpx.Response], calls: list[dict[str, Any]]) -> list[Any]:
    """What became of calls that were sent together."""
    answer = post(calls=calls)
    assert answer.status_code == 200, answer.text
    return list(answer.json()["calls"])


def answers(address: str) -> bool:
    """Whether anybody listens at HOST:PORT."""
    try:
        socket.create_connection(addresses.split(address), timeout=5).close()
    except OSError:
        return False
    return True
