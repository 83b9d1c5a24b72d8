"""The metrics of several workers as those of one server, shown by their supervisor.

Each worker reports all of its metrics every second, over the link by which it reports its checks.
So a scrape is answered from memory, whatever a worker does: one that hangs keeps its last counts,
and `idpass_worker_up` says so.

* Counters and histograms are summed up, and what a worker that has ended had counted stays in the
  sum: a sum that went down would be taken for a restart, and all that is left of it for new.
* A gauge is the sum, least or largest of those of the workers that report, as Metrics says.
* Gauges of which it says nothing, those of `process_*`, are each worker's, with the label `worker`.

The library's own mode for several processes keeps every value in a memory-mapped file, for all
time, and takes part in no collector of one's own, which tallies, figures and `process_*` are.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from idpass_server import logs
from idpass_server.api.metrics import PREFIX, Metrics

MAX_REPORT_BYTES: Final = 64 * 2**20
"""Limit of a report, bytes: a thousand times the size of a usual one."""
SILENT_S: Final = 5.0
"""Time without a report from a worker after which it counts as hung, seconds."""
_OWN: Final = "own"
"""What is done with a gauge of which nothing else is said: each worker's has a label."""
_TOGETHER: Final[dict[str, Callable[[list[float]], float]]] = {"sum": sum, "min": min, "max": max}
LINES_DROPPED: Final = f"{PREFIX}_log_lines_dropped"

Labels = tuple[tuple[str, str], ...]
Values = dict[tuple[str, Labels], float]
"""Values of one family, by the name and labels of the sample."""


def report(metrics: Metrics) -> bytes:
    """All metrics of this worker, on one line. Args: metrics: its own."""
    return json.dumps(
        [
            [
                family.name,
                family.type,
                family.documentation,
                metrics.over_workers.get(family.name, _OWN),
                [
                    [sample.name, list(sample.labels.items()), sample.value]
                    for sample in family.samples
                    if not sample.name.endswith("_created")
                ],
            ]
            for family in metrics.registry.collect()
        ]
    ).encode()


class _Kind(NamedTuple):
    """What is the same for a family in every worker."""

    type: str
    documentation: str
    together: str


class _Reported:
    """What a worker process has reported. Args: number: of the worker."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.heard_s = 0.0
        self.families: dict[str, Values] = {}

    def hung(self) -> bool:
        return time.monotonic() - self.heard_s > SILENT_S


class Gathering(Collector):
    """The metrics of all workers.

    Args:
        workers: number of them.

    Attributes:
        registry: what is shown.
        restarts: counts workers that have ended by themselves, and are replaced.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._kinds: dict[str, _Kind] = {}
        self._reported: dict[int, _Reported] = {}
        self._ended: dict[str, Values] = {}
        self.registry = CollectorRegistry()
        self.registry.register(self)
        self.restarts = Counter(
            f"{PREFIX}_worker_restarts",
            "Workers that died and were replaced",
            registry=self.registry,
        )

    def take(self, pid: int, number: int, line: bytes) -> None:
        """Takes in a worker's report.

        Args:
            pid: of its process; while it is replaced, two have the same number.
            number: of the worker.
            line: as `report` made it.
        """
        worker = self._reported.setdefault(pid, _Reported(number))
        worker.heard_s = time.monotonic()
        for name, kind, documentation, together, samples in json.loads(line):
            self._kinds.setdefault(name, _Kind(kind, documentation, together))
            worker.families[name] = {
                (sample, tuple(map(tuple, labels))): value for sample, labels, value in samples
            }

    def end(self, pid: int) -> None:
        """Keeps what a worker that has ended had counted. Args: pid: of its process."""
        worker = self._reported.pop(pid, None)
        if worker is None:
            return
        for name, values in worker.families.items():
            if self._kinds[name].type != "gauge":
                _add(self._ended.setdefault(name, {}), values)

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        heard = [each for each in self._reported.values() if not each.hung()]
        up = GaugeMetricFamily(
            f"{PREFIX}_worker_up", "Whether a worker serves, and reports", labels=["worker"]
        )
        numbers = {each.number for each in heard}
        for number in range(self._workers):
            up.add_metric([str(number)], number in numbers)
        yield up
        for name, kind in sorted(self._kinds.items()):
            family = Metric(name, kind.documentation, kind.type)
            values = self._gauge(name, kind, heard) if kind.type == "gauge" else self._sum(name)
            for (sample, labels), value in values.items():
                family.add_sample(sample, dict(labels), value)
            yield family

    def _sum(self, name: str) -> Values:
        total = dict(self._ended.get(name, {}))
        for worker in self._reported.values():
            _add(total, worker.families.get(name, {}))
        if name == LINES_DROPPED:
            _add(total, {(f"{name}_total", ()): logs.lines_dropped()})
        return total

    def _gauge(self, name: str, kind: _Kind, heard: list[_Reported]) -> Values:
        found: dict[tuple[str, Labels], list[float]] = {}
        for worker in heard:
            for (sample, labels), value in worker.families.get(name, {}).items():
                if kind.together == _OWN:
                    labels = (*labels, ("worker", str(worker.number)))  # noqa: PLW2901 its own
                found.setdefault((sample, labels), []).append(value)
        together = _TOGETHER.get(kind.together, sum)
        return {key: together(values) for key, values in found.items()}


def _add(total: Values, values: Values) -> None:
    for key, value in values.items():
        total[key] = total.get(key, 0) + value
