"""HTTP as a kubelet or Prometheus speaks it."""

import contextlib
import http.client
from typing import NamedTuple

VERBOSE = "/readyz?verbose"


class Answer(NamedTuple):
    status: int
    body: str
    content_type: str


def get(listen: str, path: str, method: str = "GET", **headers: str) -> Answer:
    connection = http.client.HTTPConnection(listen, timeout=30)
    with contextlib.closing(connection):
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return Answer(answer.status, answer.read().decode(), answer.getheader("content-type", ""))
