"""What the client logs: enough to see what happened, and nothing that is nobody's business."""

import logging
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from idpass import (
    AlreadyCancelled,
    IdPassError,
    OutcomeUnknown,
    Overloaded,
    RetryPolicy,
    _log,
)
from idpass.v1 import id_pass_pb2 as pb
from idpass.v1 import id_pass_service_pb2 as service_pb
from idpass.v1.id_pass_service_pb2_grpc import (
    IdPassServiceServicer,
    add_IdPassServiceServicer_to_server,
)
from kit.client import Connect
from kit.refusing import trailing

CODE = grpc.StatusCode
SECRETS = ("token-7f3a", "note-7f3a", "applicant-7f3a", "tenant-7f3a", "proxy-7f3a")
TOKEN, NOTE, APPLICANT, TENANT, SAID = SECRETS
QUICK = RetryPolicy(initial_backoff=0.001, max_backoff=0.001, max_attempts=3, reconnect_for=20)


class Refusing(IdPassServiceServicer):
    """A service that refuses as often as it is told to.

    Attributes:
        refusals: code, reason and metadata of each, the next one first.
    """

    def __init__(self) -> None:
        self.refusals: list[tuple[grpc.StatusCode, str | None, dict[str, str]]] = []

    def _refuse(self, context: Any) -> None:
        if self.refusals:
            code, reason, said = self.refusals.pop(0)
            context.set_trailing_metadata(trailing(code, reason, said, message=SAID))
            context.abort(code, SAID)

    def CancelIdPass(self, _request: Any, context: Any) -> Any:
        self._refuse(context)
        return service_pb.CancelResponse(status=pb.ID_PASS_STATUS_CANCELLED)

    def RegisterIdPass(self, _request: Any, context: Any) -> Any:
        self._refuse(context)
        return service_pb.RegisterResponse()

    def BatchCancelIdPasses(self, request: Any, context: Any) -> Any:
        self._refuse(context)
        answer = service_pb.BatchCancelResponse()
        for _ in request.requests:
            answer.results.add().response.status = pb.ID_PASS_STATUS_CANCELLED
        return answer

    def WatchIdPasses(self, request: Any, context: Any) -> Iterator[pb.IdPassEvent]:
        self._refuse(context)
        yield pb.IdPassEvent(sequence=request.after_sequence + 1)
        context.abort(CODE.UNAVAILABLE, SAID)


@pytest.fixture
def service() -> Iterator[Any]:
    service: Any = Refusing()  # type: ignore[abstract]  # these rpcs will do
    server = grpc.server(ThreadPoolExecutor(4))
    add_IdPassServiceServicer_to_server(service, server)
    service.address = f"localhost:{server.add_insecure_port('localhost:0')}"
    server.start()
    yield service
    server.stop(None).wait()


@pytest.fixture
def client(connect: Connect, service: Any) -> Any:
    return connect(
        service.address, timeout=20, retry=QUICK, token=TOKEN, metadata={"x-tenant": TENANT}
    )


class Kept(logging.Handler):
    """Keeps all records."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def records() -> Iterator[list[logging.LogRecord]]:
    """All records of the client; in the end no one has a secret in any part of it."""
    logger, kept = logging.getLogger("idpass"), Kept()
    before = logger.level
    logger.setLevel(logging.DEBUG)
    logger.addHandler(kept)
    yield kept.records
    logger.removeHandler(kept)
    logger.setLevel(before)
    for record in kept.records:
        shown = f"{record.getMessage()} {vars(record)}"
        assert not [secret for secret in SECRETS if secret in shown], shown
        assert "\n" not in record.getMessage()


def facts(record: logging.LogRecord) -> dict[str, Any]:
    own = {k: v for k, v in vars(record).items() if k.startswith("idpass_")}
    return {k.removeprefix("idpass_"): v for k, v in own.items()}


Refusal = tuple[grpc.StatusCode, str | None, dict[str, str]]
LOST: Refusal = (CODE.UNAVAILABLE, None, {})
BUSY: Refusal = (CODE.RESOURCE_EXHAUSTED, "OVERLOADED", {"delay": "1", "pushback": "1"})


def test_a_call_that_goes_well_is_not_worth_a_word(client: Any, records: Any) -> None:
    client.cancel("id")
    assert records == []


def test_retries_are_told_with_their_delay_and_a_give_up_with_its_error(
    client: Any, service: Any, records: Any
) -> None:
    service.refusals = [LOST, BUSY, LOST]
    with pytest.raises(OutcomeUnknown):
        client.cancel("id", note=NOTE, request_id="mine", metadata={"x-more": TENANT})
    assert [(r.name, r.levelname, facts(r)["attempt"]) for r in records] == [
        ("idpass.retry", "INFO", 1),
        ("idpass.retry", "INFO", 2),
        ("idpass.retry", "WARNING", 3),
    ]
    first, second, last = map(facts, records)
    assert (first["method"], first["request_id"]) == ("CancelIdPass", "mine")
    assert (first["code"], first["reason"], first["reference"]) == ("UNAVAILABLE", None, None)
    assert 0 < first["delay_s"] <= 0.001
    assert (second["code"], second["reason"]) == ("RESOURCE_EXHAUSTED", "OVERLOADED")
    assert second["reference"] == "0193-reference"
    assert 0.001 < second["delay_s"] < 1
    assert (last["error"], last["delay_s"]) == ("OutcomeUnknown", None)
    assert records[0].getMessage() == (
        "CancelIdPass: attempt 1 failed with UNAVAILABLE (request_id mine); the next one in 0.00 s"
    )
    assert "gave up after 3 attempts with OutcomeUnknown" in records[2].getMessage()


def test_what_was_retried_and_then_answered_or_refused_is_not_given_up(
    client: Any, service: Any, records: Any
) -> None:
    service.refusals = [LOST]
    client.register(applicant_reference=APPLICANT)
    service.refusals = [LOST, (CODE.FAILED_PRECONDITION, "PASS_ALREADY_CANCELLED", {})]
    with pytest.raises(AlreadyCancelled):
        client.cancel("id", note=NOTE)
    assert [r.levelname for r in records] == ["INFO", "INFO"]


def test_a_batch_is_told_as_one_call(client: Any, service: Any, records: Any) -> None:
    service.refusals = [LOST]
    assert all(result.receipt for result in client.cancel_many(["a", "b"], note=NOTE))
    assert [facts(r)["method"] for r in records] == ["BatchCancelIdPasses"]


def test_a_stream_that_breaks_and_comes_back_is_told(
    client: Any, service: Any, records: Any
) -> None:
    events = client.watch()
    next(events)
    service.refusals = [LOST]
    next(events)
    events.close()
    told = [(r.name, r.levelname, facts(r)["method"], facts(r)["attempt"]) for r in records]
    assert told == [
        ("idpass.watch", "INFO", "WatchIdPasses", 1),
        ("idpass.watch", "INFO", "WatchIdPasses", 2),
        ("idpass.watch", "INFO", "WatchIdPasses", 3),
    ]
    assert "open again, at attempt 3" in records[2].getMessage()


def test_a_stream_that_is_given_up_is_told(client: Any, service: Any, records: Any) -> None:
    service.refusals = [BUSY]
    with pytest.raises(Overloaded):
        next(client.watch())
    assert [(r.name, r.levelname) for r in records] == [("idpass.watch", "WARNING")]
    assert facts(records[0])["reason"] == "OVERLOADED"


def test_what_could_be_taken_for_another_line_is_not_repeated(
    client: Any, service: Any, records: Any
) -> None:
    service.refusals = [(CODE.UNAVAILABLE, "NEW\nLINE", {})] * 3
    with pytest.raises(IdPassError):
        client.cancel("id", request_id="a request\nid")
    assert all(facts(r)["request_id"] == "[unprintable]" for r in records)
    assert all(facts(r)["reason"] == "[unprintable]" for r in records)
    assert len(records) == 3


def test_records_of_callers_that_have_such_facts_themselves_are_no_trouble(
    client: Any, service: Any, records: Any
) -> None:
    made = logging.getLogRecordFactory()

    def with_request_id(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = made(*args, **kwargs)
        record.request_id = record.method = record.reason = "the framework's"
        return record

    logging.setLogRecordFactory(with_request_id)
    try:
        service.refusals = [LOST]
        client.cancel("id")
    finally:
        logging.setLogRecordFactory(made)
    assert len(records) == 1


def test_nothing_is_printed_where_logging_is_not_set_up() -> None:
    code = (
        "import idpass\n"
        "client = idpass.IdPassClient('127.0.0.1:1', timeout=0.3)\n"
        "try:\n    client.account()\nexcept idpass.Unavailable:\n    pass\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout + done.stderr == ""


def test_the_module_names_the_loggers_that_there_are() -> None:
    for logger in (_log.RETRY, _log.WATCH):
        assert f"    {logger.name} " in (_log.__doc__ or "")
