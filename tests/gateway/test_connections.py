"""Connections that take their time, or too much room. Limits are short here; rules are the same."""

import asyncio
import contextlib
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from idpass.v1 import id_pass_pb2 as pb
from idpass.v1 import id_pass_service_pb2 as service_pb
from idpass_server.gateway import api, pace
from idpass_server.gateway.app import App
from idpass_server.gateway.connections import Limits
from idpass_server.gateway.pace import Pace
from kit.http import detail, reason, scripted, served
from kit.raw_http import Raw, post, raw, request

GET = request()
PASS_ID = "0198c0de-0000-7000-8000-000000000001"
BODY = b'{"id": "%b"}' % PASS_ID.encode()


async def answer(_request: Any, _context: Any) -> service_pb.CancelResponse:
    return service_pb.CancelResponse(reference="ref-1")


async def quiet(_request: Any, context: Any) -> AsyncIterator[pb.IdPassEvent]:
    await context.send_initial_metadata(())
    await asyncio.Event().wait()
    yield pb.IdPassEvent()


@pytest.fixture
def hasty() -> Iterator[httpx.URL]:
    with scripted(answer, quiet, Limits(head_s=0.3, idle_s=0.3)) as http:
        yield http.base_url


@pytest.mark.parametrize("start", [b"", b"\r\n", GET[:1], GET[:-2]], ids=repr)
def test_a_connection_without_a_request_ends(hasty: httpx.URL, start: bytes) -> None:
    with raw(hasty) as connection:
        connection.send(start)
        if start.strip():
            assert connection.reply().status == 408
        assert connection.ends()


@pytest.mark.parametrize("more", [b"", b"\r\n", GET[:-2]], ids=repr)
def test_so_does_one_after_its_request(hasty: httpx.URL, more: bytes) -> None:
    with raw(hasty) as connection:
        connection.send(post(BODY))
        assert connection.reply().status == 200
        connection.send(more)
        if more.strip():
            assert connection.reply().status == 408
        assert connection.ends()


@pytest.mark.parametrize("drop", [b"\r\n", b"a"])
def test_bytes_that_trickle_in_add_no_time(hasty: httpx.URL, drop: bytes) -> None:
    with raw(hasty) as connection:
        connection.send(b"" if drop.isspace() else GET[:-2])
        connection.socket.settimeout(0.02)
        while True:
            try:
                connection.socket.sendall(drop)
                if not connection.socket.recv(65_536):
                    break
            except TimeoutError:
                continue
            except OSError:
                break


def test_a_request_that_is_answered_slowly_is_not_hurried() -> None:
    going = asyncio.Event()

    async def slow(_request: Any, _context: Any) -> service_pb.CancelResponse:
        await asyncio.wait_for(going.wait(), 30)
        return service_pb.CancelResponse(reference="ref-1")

    with (
        scripted(slow, quiet, Limits(connections=2, head_s=0.1, idle_s=0.1)) as http,
        raw(http.base_url) as patient,
    ):
        patient.send(post(BODY))
        for _ in range(3):
            with raw(http.base_url) as silent:
                assert silent.ends()
        going._loop.call_soon_threadsafe(going.set)  # type: ignore[attr-defined]
        assert patient.reply().status == 200


@pytest.mark.parametrize("path", [b"/idpass/cancel", b"/idpass/batch-cancel"])
def test_a_body_that_does_not_come_is_not_awaited_for_ever(
    monkeypatch: pytest.MonkeyPatch, path: bytes
) -> None:
    monkeypatch.setattr(api, "BODY_S", 0.2)
    with scripted(answer) as http, raw(http.base_url) as connection:
        connection.send(post(b"{}", path=path).removesuffix(b"}"))
        reply = connection.reply()
        assert reply.status == 408
        assert connection.ends()


def test_a_body_that_nobody_asked_for_is_not_awaited(hasty: httpx.URL) -> None:
    with raw(hasty) as connection:
        connection.send(request(b"POST /nowhere HTTP/1.1", [b"Host: localhost"], b"Content-L"))
        assert connection.reply().status == 404
    with raw(hasty) as connection:
        headers = [b"Host: localhost", b"Content-Length: 9"]
        connection.send(request(b"POST /nowhere HTTP/1.1", headers, b"1234"))
        assert connection.reply().status == 404
        assert connection.ends()


def test_a_connection_too_many_takes_the_place_of_one_that_is_waited_for() -> None:
    with scripted(answer, quiet, Limits(connections=3)) as http:
        url = http.base_url
        with raw(url) as silent, raw(url) as half, raw(url) as busy, raw(url) as body:
            busy.send(request(b"GET /idpass/events HTTP/1.1"))
            assert busy.reply().status == 200
            assert silent.ends()
            half.send(GET[:9])
            body.send(post(b"{}").removesuffix(b"}"))
            with raw(url) as one, raw(url) as another:
                for each in (one, another):
                    each.send(post(BODY))
                    assert each.reply().status == 200
                assert half.ends()
                assert body.ends()
            assert busy.goes_on()


def test_where_all_are_busy_a_connection_is_refused() -> None:
    with scripted(answer, quiet, Limits(connections=2)) as http:
        url = http.base_url
        with raw(url) as first, raw(url) as second:
            for busy in (first, second):
                busy.send(request(b"GET /idpass/events HTTP/1.1"))
                assert busy.reply().status == 200
            with raw(url) as third:
                reply = third.reply()
                assert (reply.status, reply.headers["retry-after"]) == (503, "1")
                assert reply.headers["idpass-reference"] == reply.reference
                assert b"OVERLOADED" in reply.body
                assert third.ends()
        with raw(url) as again:
            again.send(post(BODY))
            assert again.reply().status == 200


def test_requests_behind_a_bad_one_get_no_answer_those_before_it_do() -> None:
    with scripted(answer) as http, raw(http.base_url) as connection:
        connection.send(post(BODY) * 3 + b"nonsense\r\n\r\n" + post(BODY))
        assert [connection.reply().status for _ in range(3)] == [200] * 3
        assert connection.ends()


def test_requests_that_do_not_await_their_answers_are_few() -> None:
    with scripted(answer) as http, raw(http.base_url) as connection:
        connection.send(post(BODY) * 500)
        answers = 0
        with contextlib.suppress(EOFError):
            while connection.reply().status == 200:
                answers += 1
    assert 1 <= answers < 100


@pytest.mark.parametrize("close", [b"", b"Connection: close"])
def test_an_answer_that_nobody_takes_in_is_given_up(close: bytes) -> None:
    async def long(_request: Any, _context: Any) -> service_pb.CancelResponse:
        return service_pb.CancelResponse(reference="r" * 3_500_000)

    gone = []

    async def endless(_request: Any, context: Any) -> AsyncIterator[pb.IdPassEvent]:
        context.add_done_callback(lambda _context: gone.append(True))
        event = pb.IdPassEvent(sequence=1, request_id="r" * 100_000)
        while True:
            yield event

    limits = Limits(connections=1, stalled_s=0.3, idle_s=0.1)
    with scripted(long, endless, limits) as http:
        for blind in (post(BODY, close), request(b"GET /idpass/events HTTP/1.1")):
            with raw(http.base_url) as connection:
                connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
                connection.send(blind)
                while connection.flood(b"", 1) and not _is_free(http.base_url):
                    pass


def _is_free(url: httpx.URL) -> bool:
    """Whether the one connection that may be open is gone."""
    with raw(url) as another:
        another.send(request(b"GET /nowhere HTTP/1.1"))
        return another.reply().status == 404


def test_refusals_have_a_pace() -> None:
    paced = Pace()
    assert [paced.wait_s(100.0) for _ in range(pace.AT_ONCE + 1)] == [0.0] * (pace.AT_ONCE + 1)
    waits = [paced.wait_s(100.0) for _ in range(pace.PER_S)]
    assert waits == sorted(waits)
    assert waits[-1] == pytest.approx(1.0)
    assert paced.wait_s(110.0) == 0.0


async def test_a_fault_is_answered_as_one_and_says_nothing_else() -> None:
    async def reset() -> None:
        raise RuntimeError("a secret")

    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        transport = httpx.ASGITransport(App(channel, "127.0.0.1:1", reset))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            response = await http.post("/sandbox/reset", json={})
    assert (response.status_code, reason(response)) == (500, "INTERNAL")
    assert response.headers["idpass-reference"] == detail(response, "RequestInfo")["request_id"]
    assert response.headers["x-content-type-options"] == "nosniff"
    assert "secret" not in response.text


def limited(soft: int, hard: int, db: Path, *options: str) -> list[str]:
    serve = f"{sys.executable} -m idpass_server serve --db sqlite:///{db} --listen 127.0.0.1:0"
    return ["bash", "-c", f"ulimit -Sn {soft}; ulimit -Hn {hard}; exec {serve} {' '.join(options)}"]


def test_a_server_that_may_not_open_enough_files_does_not_start(tmp_path: Path) -> None:
    done = subprocess.run(
        limited(200, 600, tmp_path / "idpass.db"),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode not in {0, 74}
    assert "628 open files" in done.stderr
    assert "Traceback" not in done.stderr


def test_strangers_who_connect_leave_descriptors_for_everybody_else(tmp_path: Path) -> None:
    with served(tmp_path / "idpass.db", "--max-connections", "40") as server:
        silent = [Raw(server.url) for _ in range(300)]
        assert server.post("register").status_code == 200
        assert server.account().slots_in_use == 1
        assert len(list(Path(f"/proc/{server.process.pid}/fd").iterdir())) < 120
        for each in silent:
            each.close()
