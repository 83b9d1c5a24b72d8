"""Measures how much a SQLite file grows for each pass that is registered and cancelled."""

import argparse
import sys
import tempfile
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

from tabulate import tabulate

from idpass.v1 import id_pass_service_pb2 as service_pb
from idpass_server import logs
from kit.support import Service, set_slots

BATCH: Final = 250
WIDEST: Final = "\N{GRINNING FACE}"
"""A character of four bytes, the most that one takes in UTF-8."""


class Fields(NamedTuple):
    """What the requests for a pass carry, made from a number that no other request has."""

    register: Callable[[int], dict[str, Any]]
    cancel: Callable[[int], dict[str, Any]]


FIELDS: Final = {
    "none": Fields(lambda _: {}, lambda _: {}),
    "request_ids and a short reference": Fields(
        lambda n: {"request_id": str(uuid.uuid4()), "applicant_reference": f"applicant-{n:06}"},
        lambda _: {"request_id": str(uuid.uuid4())},
    ),
    "all at their longest": Fields(
        lambda n: {"request_id": f"r{n}".ljust(128, "-"), "applicant_reference": WIDEST * 128},
        lambda n: {"request_id": f"c{n}".ljust(128, "-"), "note": WIDEST * 500},
    ),
}


def growth(fields: Fields, passes: int, folder: Path) -> tuple[float, float]:
    """Bytes for each registration and each cancellation, after a stop: there is no WAL then."""
    file = folder / "idpass.db"

    def size_after(work: Callable[[Service], None]) -> int:
        service = Service(file)
        work(service)
        service.stop()
        return sum(path.stat().st_size for path in folder.glob("idpass.db*"))

    ids: list[str] = []

    def register(service: Service) -> None:
        def one(n: int) -> str:
            return service.register(**fields.register(n)).id_pass.id

        with ThreadPoolExecutor(24) as threads:
            ids.extend(threads.map(one, range(passes)))

    def cancel(service: Service) -> None:
        for start in range(0, passes, BATCH):
            numbered = enumerate(ids[start : start + BATCH], start)
            items = [service_pb.CancelRequest(id=each, **fields.cancel(n)) for n, each in numbered]
            assert service.batch(*items).cancelled_count == len(items)

    empty = size_after(lambda _: set_slots(file, passes))
    registered = size_after(register)
    cancelled = size_after(cancel)
    return (registered - empty) / passes, (cancelled - registered) / passes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--passes", type=int, default=20_000)
    passes = parser.parse_args().passes
    logs.configure_lines("critical")
    table = []
    for name, fields in FIELDS.items():
        with tempfile.TemporaryDirectory() as folder:
            register, cancel = growth(fields, passes, Path(folder))
        table.append((name, register, cancel, register + cancel))
    print(f"Growth of the SQLite file over {passes:,} passes, bytes for each")
    print(tabulate(table, ("fields", "register", "cancel", "together"), floatfmt=",.0f"))


if __name__ == "__main__":
    main()
