"""What metrics take of one cancellation that is alone in its batch, measured by itself.

Between two servers the difference drowns in what else a cancellation takes.
"""

import statistics
import time
from typing import Final

import grpc

from idpass_server.api.call_log import CallRecord
from idpass_server.api.identity import DEMO
from idpass_server.api.metrics import Metrics
from idpass_server.hosting.observing import EngineMetrics, StoreMetrics
from idpass_server.rules.records import Event, Status

CANCELLATIONS: Final = 20_000
ROUNDS: Final = 9
METHOD: Final = "CancelIdPass"
EVENT: Final = Event(
    *("demo", 2, "id", Status.NEW, Status.CANCELLED, 1, "demo", None, None, "reference"),
    *("AUD", None, 4_500_000, "", 1),
)


def per_cancel_s() -> float:
    """Processor time, seconds: the median of several rounds."""
    metrics = Metrics()
    engine, store = EngineMetrics(metrics), StoreMetrics(metrics, sqlite=True)
    record = CallRecord(METHOD)
    record.caller, record.code = DEMO, grpc.StatusCode.OK
    rounds = []
    for _ in range(ROUNDS):
        begun_s = time.process_time()
        for _ in range(CANCELLATIONS):
            metrics.started(METHOD)
            submitted_s = time.monotonic()
            waited_s = time.monotonic() - submitted_s
            store.committed(
                time.perf_counter(), time.perf_counter(), time.perf_counter(), time.perf_counter()
            )
            engine.batch(waited_s, 1, (EVENT,))
            metrics.ended(record)
        rounds.append((time.process_time() - begun_s) / CANCELLATIONS)
    return statistics.median(rounds)
