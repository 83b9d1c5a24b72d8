"""Counters and histograms of what every call or batch does, in the cheapest form there is.

The library's own take a lock for each observation, because any thread may make one: 0.7 µs for a
counter, 2 µs for a histogram. A cancel has ten of them. A tally is written by one thread only, and
whoever reads it may miss what happens meanwhile; so it needs no lock, and takes 0.2 µs. It is a
collector of the library's, which names, escapes and encodes it as any other.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Final

from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.utils import floatToGoString

CALL_SECONDS: Final = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
"""Upper bounds of the buckets for calls, reads and waits, seconds."""
STEP_SECONDS: Final = (0.00005, 0.0001, 0.00025, *CALL_SECONDS)
"""Upper bounds of the buckets for the steps of a commit, seconds: an fdatasync may take 0.1 ms."""
SIZES: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1_024.0)
"""Upper bounds of the buckets for numbers of commands."""

Key = tuple[str, ...]
"""The values of a family's labels, in their order."""


class Counts:
    """A family of counters.

    Args:
        name: without `_total`.
        help_text: for people.
        labels: their names.
        known: keys that are shown as 0 from the start, so that the first increase is seen.
    """

    def __init__(
        self, name: str, help_text: str, labels: Sequence[str] = (), known: Sequence[Key] = ()
    ) -> None:
        self._family = (name, help_text, labels)
        self._values: dict[Key, float] = dict.fromkeys(known, 0)

    def add(self, key: Key, amount: float = 1) -> None:
        """Adds to the counter with these values of the labels."""
        self._values[key] = self._values.get(key, 0) + amount

    def know(self, key: Key) -> None:
        """Shows a counter as 0 before its first increase; on any thread."""
        self._values.setdefault(key, 0)

    def collect(self) -> Iterator[Metric]:
        name, help_text, labels = self._family
        family = CounterMetricFamily(name, help_text, labels=labels)
        for key, value in self._values.copy().items():
            family.add_metric(key, value)
        yield family


class Buckets:
    """One histogram. Args: bounds: upper bounds of its buckets, ascending."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Counts a value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def add_to(self, family: HistogramMetricFamily, key: Key) -> None:
        """Adds it to a family, under these values of the labels."""
        bounds = [*map(floatToGoString, self._bounds), "+Inf"]
        family.add_metric(
            key, list(zip(bounds, accumulate(self._counts), strict=True)), sum_value=self._sum
        )


class Histograms:
    """A family of histograms; arguments as those of Counts.

    Args:
        bounds: upper bounds of the buckets, ascending.
    """

    def __init__(
        self,
        name: str,
        help_text: str,
        labels: Sequence[str] = (),
        *,
        bounds: Sequence[float] = CALL_SECONDS,
    ) -> None:
        self._family = (name, help_text, labels)
        self._bounds = bounds
        self._by_key: dict[Key, Buckets] = {}

    def of(self, key: Key = ()) -> Buckets:
        """The histogram with these values of the labels."""
        found = self._by_key.get(key)
        if found is None:
            found = self._by_key[key] = Buckets(self._bounds)
        return found

    def collect(self) -> Iterator[Metric]:
        name, help_text, labels = self._family
        family = HistogramMetricFamily(name, help_text, labels=labels)
        for key, buckets in self._by_key.copy().items():
            buckets.add_to(family, key)
        yield family
