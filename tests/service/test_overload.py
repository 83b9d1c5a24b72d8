"""More calls than the server can take: what waits is bounded, the rest is turned away at once."""

import contextlib
import math
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from idpass.v1.id_pass_service_pb2 import CancelRequest
from idpass_server.api.call_log import CallRecord
from idpass_server.api.identity import Permission
from idpass_server.hosting.channel_options import MAX_UNTAKEN
from idpass_server.rules.commands import Command
from kit.http2 import Connection, call, call_headers, message
from kit.support import Service

DEADLINE_S = 30
GET_ACCOUNT = call_headers("GetAccount")
CANCELLED_BY_GRPC = "1"


@contextlib.contextmanager
def busy(server: Service) -> Iterator[None]:
    """The server's event loop takes nothing meanwhile."""
    stuck, go_on = threading.Event(), threading.Event()

    def block() -> None:
        stuck.set()
        go_on.wait(DEADLINE_S)

    server.loop.call_soon_threadsafe(block)
    assert stuck.wait(DEADLINE_S)
    try:
        yield
    finally:
        go_on.set()


def send_calls(connection: Connection, count: int) -> list[int]:
    """Begins calls on a connection. Returns their streams, once the server has received them."""
    streams = list(range(1, 2 * count, 2))
    connection.send(b"".join(call(n, message(b""), GET_ACCOUNT) for n in streams))
    connection.wait_quiet()
    return streams


def statuses(connection: Connection, streams: list[int]) -> Counter[str]:
    return Counter(connection.ended(n, DEADLINE_S).status for n in streams)


def test_calls_beyond_those_that_may_wait_are_turned_away_while_the_server_is_busy(
    service: Service,
) -> None:
    with contextlib.ExitStack() as stack:
        crowd = [
            stack.enter_context(contextlib.closing(Connection(service.address))) for _ in "123"
        ]
        late = stack.enter_context(contextlib.closing(Connection(service.address)))
        with busy(service):
            waiting = [send_calls(connection, MAX_UNTAKEN // 2) for connection in crowd]
            # Answered although the event loop stands still: it costs no time of the service's.
            turned_away = statuses(late, send_calls(late, 100))
        assert turned_away == {CANCELLED_BY_GRPC: 100}
        answered = Counter[str]()
        for connection, streams in zip(crowd, waiting, strict=True):
            answered += statuses(connection, streams)
    # The one that the event loop asked for before it stood still, and gRPC's "more than".
    assert 0 <= answered["0"] - MAX_UNTAKEN <= 2
    assert answered["0"] + answered[CANCELLED_BY_GRPC] == 3 * (MAX_UNTAKEN // 2)


def test_a_client_that_begins_800_calls_at_once_has_them_all_answered(service: Service) -> None:
    with contextlib.closing(Connection(service.address)) as connection:
        with busy(service):
            streams = send_calls(connection, 800)
        assert statuses(connection, streams) == {"0": 800}


def test_a_call_whose_deadline_passed_while_it_waited_is_not_started(service: Service) -> None:
    class Late:
        def time_remaining(self) -> float:
            return 0.0

        def invocation_metadata(self) -> tuple[()]:
            return ()

    calls = service.server._calls
    with pytest.raises(TimeoutError, match="before it was started"):
        calls.admit(CallRecord("GetIdPass"), Permission.READ, 0, Late())


def test_the_deadline_of_every_change_reaches_the_engine(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which drops what nobody waits for any more, even where the event loop is late."""
    engine = service.server._engine
    submit, left_s = engine.submit, list[float]()

    def recorded(commands: Sequence[Command], deadline_s: float = math.inf) -> Any:
        left_s.append(deadline_s - time.monotonic())
        return submit(commands, deadline_s)

    monkeypatch.setattr(engine, "submit", recorded)
    first, second = (service.register().id_pass.id for _ in range(2))
    service.advance(first, "opened")
    service.cancel(first)
    service.batch(CancelRequest(id=second))
    timeout_s = service._options["timeout"]
    assert len(left_s) == 5
    # gRPC sends a deadline in few digits, rounded up.
    assert all(0 < each <= 1.05 * timeout_s for each in left_s), left_s
