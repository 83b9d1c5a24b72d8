"""Server-sent events: every event, once, in order, resumed where the reader stopped."""

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import uvicorn

from idpass.v1 import id_pass_pb2 as pb
from idpass_server.api import errors
from idpass_server.gateway.serving import Gateway
from idpass_server.rules.refusals import StoreUnavailable
from kit.http import (
    EventStream,
    Http,
    reason,
    scripted,
    scripted_service,
    served,
    wrong_fields,
)

EVENTS = "/idpass/events"


def test_events_come_as_they_happen(server: Http) -> None:
    last = server.account().last_sequence
    with server.http.stream("GET", EVENTS, params={"after_sequence": last}) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        stream = EventStream(response)
        pass_id = server.register().id_pass.id
        assert stream.json()["to_status"] == "new"
        answer = server.post(
            "cancel", id=pass_id, request_id=f"events-{pass_id}", reason="duplicate"
        )
        event = stream.next()
        assert event["id"] == str(last + 2)
    with server.http.stream("GET", EVENTS, params={"after_sequence": last + 1}) as response:
        told = EventStream(response).json()
    assert told.pop("event_time").endswith("Z")
    assert told == {
        "sequence": last + 2,
        "id_pass_id": pass_id,
        "from_status": "new",
        "to_status": "cancelled",
        "caller": "demo",
        "request_id": f"events-{pass_id}",
        "refund": {"currency": "AUD", "amount": "4.50"},
        "reason": "duplicate",
        "erased": False,
        "reference": answer.json()["reference"],
    }


def test_last_event_id_resumes_before_what_the_address_says(server: Http) -> None:
    pass_ids = [server.register().id_pass.id for _ in range(3)]
    last = server.account().last_sequence
    headers = {"last-event-id": str(last - 1)}
    with server.http.stream(
        "GET", EVENTS, params={"after_sequence": last - 3}, headers=headers
    ) as response:
        assert EventStream(response).json()["id_pass_id"] == pass_ids[-1]


def test_the_events_of_one_pass_end_with_it(server: Http) -> None:
    pass_id = server.pass_in("failed")
    with server.http.stream("GET", EVENTS, params={"id": pass_id}) as response:
        stream = EventStream(response)
        way = [stream.json()["to_status"] for _ in range(4)]
        assert way == ["new", "opened", "in_progress", "failed"]
        with pytest.raises(EOFError):
            stream.next()
    # Or a browser would come back for ever.
    last = {"last-event-id": str(server.account().last_sequence)}
    again = server.http.get(EVENTS, params={"id": pass_id}, headers=last)
    assert (again.status_code, again.content) == (204, b"")


@pytest.mark.parametrize(
    ("query", "status", "wrong"),
    [
        ("after_sequence=x", 400, ["after_sequence"]),
        ("after_sequence=-1", 400, ["after_sequence"]),
        ("after_sequence=" + "9" * 19, 400, ["after_sequence"]),
        ("after_sequence=" + "9" * 5_000, 400, ["after_sequence"]),
        ("after_sequence=", 400, ["after_sequence"]),
        ("after=1", 400, ["after"]),
        ("id=x", 400, ["id"]),
        ("id=00000000-0000-7000-8000-000000000000", 404, None),
        ("after_sequence=0&after_sequence=0", 400, None),
        ("id=%ff", 400, ["id"]),
    ],
)
def test_a_refusal_is_the_answer_and_not_a_stream(
    server: Http, query: str, status: int, wrong: list[str] | None
) -> None:
    response = server.http.get(f"{EVENTS}?{query}")
    assert response.status_code == status
    assert reason(response) == ("PASS_NOT_FOUND" if status == 404 else "INVALID_REQUEST")
    if wrong is not None:
        assert wrong_fields(response) == wrong


def test_only_get_is_for_events(server: Http) -> None:
    response = server.http.post(EVENTS, json={})
    assert (response.status_code, response.headers["allow"]) == (405, "GET")


def test_a_stream_that_breaks_says_why() -> None:
    async def watch(_request: Any, context: Any) -> AsyncIterator[pb.IdPassEvent]:
        yield pb.IdPassEvent(sequence=7, to_status=pb.ID_PASS_STATUS_NEW)
        error = errors.tell(StoreUnavailable("the server is stopping"), "ref-1")
        await context.abort(error.code, error.status.message, error.trailing_metadata)

    with scripted(watch=watch) as http, http.stream("GET", EVENTS) as response:
        stream = EventStream(response)
        assert stream.next()["id"] == "7"
        end = stream.next()
        assert end["event"] == "error"
        assert "STORE_UNAVAILABLE" in end["data"]
        with pytest.raises(EOFError):
            stream.next()


def test_a_reader_that_leaves_ends_its_call(server: Http) -> None:
    server.register()
    with server.http.stream("GET", EVENTS) as response:
        EventStream(response).next()
    ended = ("WatchIdPasses", "CANCELLED")
    server.wait_for_line(lambda line: (line.get("method"), line.get("code")) == ended)


def test_a_server_that_stops_ends_its_streams_and_exits_at_once(tmp_path: Path) -> None:
    with served(tmp_path / "idpass.db") as server:
        server.register()
        with server.http.stream("GET", EVENTS) as response:
            stream = EventStream(response)
            stream.next()
            server.signal(signal.SIGTERM)
            with pytest.raises(EOFError):
                stream.next()
        assert server.wait() == 0
        with pytest.raises(grpc.RpcError):
            server.account()


async def test_a_stream_that_comes_while_the_gateway_stops_does_not_hold_it_up() -> None:
    async def watch(_request: Any, _context: Any) -> AsyncIterator[pb.IdPassEvent]:
        yield pb.IdPassEvent(sequence=7, to_status=pb.ID_PASS_STATUS_NEW)
        await asyncio.Event().wait()

    service, address = scripted_service(watch=watch)
    await service.start()
    gateway = Gateway("127.0.0.1", 0)
    gateway.start(address, drain_s=600)
    late: list[asyncio.Task[httpx.Response]] = []
    async with httpx.AsyncClient(base_url=f"http://{gateway.address}", trust_env=False) as http:
        assert (await http.get("/docs")).status_code == 200
        close = gateway._app.close

        def close_and_open() -> None:
            close()
            if not late:
                late.append(asyncio.create_task(http.get(EVENTS, timeout=30)))

        gateway._app.close = close_and_open  # type: ignore[method-assign]
        await asyncio.wait_for(gateway.stop(), 30)
        assert "id: 7" in (await late[0]).text
    await service.stop(None)


async def test_a_gateway_that_does_not_end_is_not_waited_for_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def never(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(uvicorn.Server, "serve", never)
    gateway = Gateway("127.0.0.1", 0)
    gateway.start("127.0.0.1:1", drain_s=0.01)
    await asyncio.wait_for(gateway.stop(), 30)
    gateway._socket.close()
