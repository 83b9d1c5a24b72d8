"""Whether the rival does what it is measured for: its answers are right, and so is what it stores.

The service answers the same requests on passes of its own, and both must say and store the same.

usage: rival_check.py
"""

import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parents[1]))

import grpc

from bench import rival
from bench.seed import seed
from bench.servers import Process, audited_s, idpass_server
from idpass.v1 import id_pass_pb2 as pb
from idpass.v1 import id_pass_service_pb2 as service_pb
from idpass_server.store.sqlite.file import connect
from kit.support import Calls

STATUSES: Final = ("new", "opened", "in_progress")
RACED: Final = 20
RACERS: Final = 8
UNKNOWN: Final = "00000000-0000-7000-8000-000000000000"
OF_ITS_OWN: Final = ("id", "time", "sequence", "reference", "digest")
"""What columns are named that differ from pass to pass."""

Answer = service_pb.CancelResponse | grpc.StatusCode


def check(program: Path, folder: Path) -> None:
    """Raises AssertionError: the rival is wrong."""
    seeded = seed(folder / "check.db", in_flight=4 * len(STATUSES) + RACED)
    ids = iter(seeded.in_flight)
    of = {who: {status: next(ids) for status in STATUSES} for who in ("service", "rival", "spare")}
    raced = [next(ids) for _ in range(RACED)]
    answers: dict[str, dict[str, Answer]] = {}

    def service(calls: Calls) -> None:
        for passes in of.values():
            calls.advance(passes["opened"], "opened")
            for status in ("opened", "in_progress"):
                calls.advance(passes["in_progress"], status)
        answers["service"] = _answers(calls, of["service"])

    def the_rival(calls: Calls) -> None:
        answers["rival"] = _answers(calls, of["rival"])
        for spare in of["spare"].values():
            assert _cancelled(calls, spare.upper()) is not None
        _race(calls, raced)

    _with(idpass_server(seeded.path), folder, service)
    _with(rival.command(program, seeded.path), folder, the_rival)
    for what, expected in answers["service"].items():
        assert answers["rival"][what] == expected, f"{what}: {answers['rival'][what]}, {expected}"
    audited_s(f"sqlite:///{seeded.path}")
    connection = connect(seeded.path, read_only=True)
    try:
        for status in STATUSES:
            stored = [_stored(connection, of[who][status]) for who in ("service", "rival")]
            assert stored[0] == stored[1], f"{status}: {stored[1]} is stored, not {stored[0]}"
    finally:
        connection.close()


def _with(command: list[str], folder: Path, work: Callable[[Calls], None]) -> None:
    process = Process(command, folder / "check.log")
    try:
        with grpc.insecure_channel(process.address) as channel:
            work(Calls(channel))
    finally:
        process.stop()


def _answers(calls: Calls, passes: dict[str, str]) -> dict[str, Answer]:
    """What a server says to the same requests, without what is of each pass's own."""
    found: dict[str, Answer] = {}

    def ask(what: str, pass_id: str, **fields: Any) -> None:
        found[what] = _answer(calls, pass_id, **fields)

    new = passes["new"]
    reason = pb.CANCEL_REASON_ABANDONED
    ask("no UUID", "pass")
    ask("unknown", UNKNOWN)
    ask("another status is expected", new, expected_status=pb.ID_PASS_STATUS_OPENED)
    ask("validated only", new, validate_only=True)
    ask("no refund is due", passes["in_progress"], require_refund=True)
    for status, pass_id in passes.items():
        request = {"request_id": f"of-{pass_id}", "reason": reason, "note": f"was {status}"}
        ask(status, pass_id, **request)
        first = calls.cancel(pass_id, **request)
        again = calls.cancel(pass_id, **request)
        assert again.replayed, again
        assert first == again, f"{first} and then {again}"
        ask(f"{status}, the same request again", pass_id, **request)
        ask(f"{status}, another with the request_id", pass_id, **request | {"note": "other"})
        ask(f"{status}, which has ended", pass_id, request_id="", reason=reason)
        ask(f"{status}, ended, another request", pass_id, request_id=f"second-{pass_id}")
    return found


def _answer(calls: Calls, pass_id: str, **fields: Any) -> Answer:
    try:
        answer = calls.cancel(pass_id, **fields)
    except grpc.RpcError as error:
        code = error.code()
        assert isinstance(code, grpc.StatusCode)
        return code
    assert len(answer.reference) == len(pass_id), answer
    assert answer.cancel_time.seconds > 0, answer
    answer.ClearField("reference")
    answer.ClearField("cancel_time")
    return answer


def _cancelled(calls: Calls, pass_id: str) -> service_pb.CancelResponse | None:
    try:
        return calls.cancel(pass_id)
    except grpc.RpcError as error:
        assert error.code() is grpc.StatusCode.FAILED_PRECONDITION, error
        return None


def _race(calls: Calls, raced: list[str]) -> None:
    """Many cancel each pass at the same time; one of them does."""
    with ThreadPoolExecutor(RACERS) as threads:
        tries = [pass_id for pass_id in raced for _ in range(RACERS)]
        answers = threads.map(lambda pass_id: _cancelled(calls, pass_id), tries)
        won = Counter(
            pass_id for pass_id, answer in zip(tries, answers, strict=True) if answer is not None
        )
    assert won == Counter(raced), f"passes were cancelled several times, or never: {won}"


def _stored(connection: Any, pass_id: str) -> list[dict[str, Any]]:
    """The pass's row and that of its cancellation, without what is of each pass's own."""
    found = []
    for query in (
        "SELECT * FROM passes WHERE account = 'demo' AND id = ?",
        "SELECT * FROM events WHERE account = 'demo' AND to_status = 'cancelled'"
        " AND id_pass_id = ?",
    ):
        rows = connection.execute(query, (pass_id,))
        names = [column[0] for column in rows.description]
        found.append(
            {
                # Whether there is a value, where the value is of the pass's own.
                name: value is not None if _is_own(name) else value
                for row in rows
                for name, value in zip(names, row, strict=True)
            }
        )
    return found


def _is_own(name: str) -> bool:
    return any(part in name for part in OF_ITS_OWN)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="idpass-rival-") as name:
        check(rival.build(), Path(name))
