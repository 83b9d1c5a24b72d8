"""The ports for probes and for Prometheus: two paths or one, and nothing that strangers can do."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from idpass_server.engine.readiness import Check
from idpass_server.hosting import plain_http
from idpass_server.hosting.pages import probe
from kit.probing import VERBOSE, get
from kit.secure import Secure
from kit.support import Process, cli, process

ANY_PORT = "127.0.0.1:0"


def raw(listen: str, request: bytes) -> bytes:
    """What comes back for bytes that no client would send."""
    host, _, port = listen.partition(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(request)
        answer = b""
        with contextlib.suppress(ConnectionError):
            while piece := connection.recv(65_536):
                answer += piece
        return answer


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Process]:
    with process(tmp_path / "idpass.db", "--probe", ANY_PORT, "--metrics", ANY_PORT) as running:
        yield running


def listens(server: Process) -> tuple[str, str]:
    """Where a server answers probes, and Prometheus."""
    return server.wait_for("probe")["listen"], server.wait_for("metrics")["listen"]


def test_a_server_that_serves_is_live_and_ready(server: Process) -> None:
    place, _ = listens(server)
    assert get(place, "/livez")[:2] == (200, "ok\n")
    assert get(place, "/readyz")[:2] == (200, "ok\n")
    verbose = get(place, VERBOSE)
    assert verbose.status == 200
    assert {"[+] store: ok", "[+] schema: ok", "[+] draining: ok"} <= set(verbose.body.splitlines())
    assert raw(place, b"HEAD /livez HTTP/1.1\r\n\r\n").endswith(b"\r\n\r\n")


async def test_what_cannot_store_is_live_and_not_ready() -> None:
    checks = {"store": Check("the database is out of reach: no route"), "clock": Check()}
    with probe(lambda: checks) as pages:
        place = await pages.listen("127.0.0.1", 0)
        live, ready, verbose = await asyncio.gather(
            *(asyncio.to_thread(get, place, path) for path in ("/livez", "/readyz", VERBOSE))
        )
    assert live[:2] == (200, "ok\n")
    assert ready[:2] == (503, "not ready\n")
    lines = "[-] store: the database is out of reach: no route\n[+] clock: ok\n"
    assert verbose[:2] == (503, lines)


async def test_a_warning_is_shown_and_leaves_it_ready() -> None:
    checks = {"store": Check(), "clock": Check(warning="it has jumped")}
    with probe(lambda: checks) as pages:
        place = await pages.listen("127.0.0.1", 0)
        ready, verbose = await asyncio.gather(
            *(asyncio.to_thread(get, place, path) for path in ("/readyz", VERBOSE))
        )
    assert ready[:2] == (200, "ok\n")
    assert verbose[:2] == (200, "[+] store: ok\n[!] clock: it has jumped\n")


async def test_what_has_not_begun_to_serve_is_not_ready() -> None:
    with probe(dict) as pages:
        place = await pages.listen("127.0.0.1", 0)
        assert (await asyncio.to_thread(get, place, "/readyz")).status == 503


def test_nothing_else_is_on_these_ports(server: Process) -> None:
    for place, own in zip(listens(server), ("/readyz", "/metrics"), strict=True):
        for path in ("/", "/metricsx", "/idpass/cancel", "/readyz/", "//readyz"):
            assert get(place, path).status == 404
        assert get(place, own, "POST").status == 405
        assert raw(place, b"GARBAGE\r\n\r\n").startswith(b"HTTP/1.1 400 ")
        assert raw(place, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").startswith(b"HTTP/1.1 400 ")
        long = b"GET /readyz HTTP/1.1\r\nX: " + b"x" * 10_000 + b"\r\n\r\n"
        assert raw(place, long)[:13] in {b"HTTP/1.1 431 ", b""}


def test_silent_connections_keep_nobody_out_and_cost_no_thread(server: Process) -> None:
    """Neither those that say nothing, nor those that never end their request."""
    tasks = Path(f"/proc/{server.process.pid}/task")
    server.account()
    before = len(list(tasks.iterdir()))
    with contextlib.ExitStack() as stack:
        for place in listens(server):
            host, _, port = place.partition(":")
            for number in range(2 * plain_http.MAX_CONNECTIONS):
                silent = socket.create_connection((host, int(port)), timeout=30)
                stack.enter_context(silent)
                if number % 2:
                    silent.sendall(b"GET /livez HTTP/1.1\r\nX: ")
            assert get(place, "/none").status == 404
        # gRPC has more or fewer threads as it likes.
        assert len(list(tasks.iterdir())) < before + plain_http.MAX_CONNECTIONS // 2


async def test_a_connection_has_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_http, "PATIENCE_S", 0.05)
    with probe(dict) as pages:
        place = await pages.listen("127.0.0.1", 0)
        assert await asyncio.to_thread(raw, place, b"GET /livez HTTP/1.1\r\n") == b""


def test_prometheus_gets_the_form_it_asks_for(server: Process) -> None:
    _, place = listens(server)
    plain = get(place, "/metrics")
    assert plain.content_type.startswith("text/plain")
    assert "idpass_pending_commands 0.0" in plain.body
    open_metrics = get(place, "/metrics", accept="application/openmetrics-text; version=1.0.0")
    assert open_metrics.content_type.startswith("application/openmetrics-text")
    assert open_metrics.body.endswith("# EOF\n")


def test_a_server_that_speaks_mutual_tls_only_can_be_probed(tmp_path: Path) -> None:
    secure = Secure(tmp_path, probe=ANY_PORT)
    try:
        assert get(secure.server.listens["probe"], "/readyz").status == 200
    finally:
        secure.stop()


def test_a_port_in_use_is_said_so(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        db = f"sqlite:///{tmp_path / 'idpass.db'}"
        done = cli("serve", "--listen", ANY_PORT, "--db", db, "--probe", place)
    assert done.returncode == 1
    assert f"{place} cannot be listened on" in done.stderr
