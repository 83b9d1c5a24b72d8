"""HTTP as a kubelet or Prometheus speaks it, and what Prometheus reads."""

import contextlib
import http.client
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families

VERBOSE = "/readyz?verbose"

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]
"""Values by name and labels, which are sorted by their names."""


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


def scrape(listen: str) -> Samples:
    """What Prometheus gets at an address."""
    answer = get(listen, "/metrics")
    assert answer.status == 200
    return samples(answer.body)


def samples(page: str) -> Samples:
    """What stands on a page of metrics."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def total(samples: Samples, name: str, **labels: str) -> float:
    """Sum of the samples of a name that have these labels."""
    wanted = set(labels.items())
    return sum(
        value for (found, has), value in samples.items() if found == name and wanted <= set(has)
    )
