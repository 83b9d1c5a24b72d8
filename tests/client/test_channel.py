"""How the service is spoken to: plain text, TLS and tokens; when a channel is made, and forks."""

import asyncio
import os
import socket
import socketserver
import subprocess
import sys
import textwrap
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

from idpass import (
    AsyncIdPassClient,
    IdPassClient,
    IdPassError,
    OutcomeUnknown,
    RetryPolicy,
    Unavailable,
)
from idpass._endpoint import is_loopback
from kit.client import Connect, Serve, server_credentials

CLIENTS = (IdPassClient, AsyncIdPassClient)


@pytest.mark.parametrize(
    ("address", "loopback"),
    [
        ("localhost:50051", True),
        ("127.0.0.1:50051", True),
        ("127.9.9.9:50051", True),
        ("[::1]:50051", True),
        ("unix:/run/idpass.sock", True),
        ("unix:///run/idpass.sock", True),
        ("unix-abstract:idpass", True),
        ("dns:localhost:50051", True),
        ("dns:///localhost:50051", True),
        ("ipv4:127.0.0.1:50051", True),
        ("ipv4:127.0.0.1:50051,10.0.0.1:50051", False),
        ("ipv6:[::1]:50051", True),
        ("dns:///idpass.example.com:50051", False),
        ("dns://127.0.0.1:53/idpass.example.com:50051", False),
        ("idpass.example.com:443", False),
        ("localhost.example.com:443", False),
        ("10.0.0.7:50051", False),
        ("0.0.0.0:50051", False),
        ("[2001:db8::1]:50051", False),
        ("xds:///idpass", False),
    ],
)
def test_what_is_on_this_machine_is_told_from_the_address(address: str, loopback: bool) -> None:
    assert is_loopback(address) is loopback


@pytest.mark.parametrize("address", ["", "localhost", "50051", "localhost:", "::1:50051", "a:b"])
@pytest.mark.parametrize("client", CLIENTS)
def test_what_is_no_address_is_refused_at_once(client: Any, address: str) -> None:
    with pytest.raises(ValueError, match="is not HOST:PORT"):
        client(address)


@pytest.mark.parametrize("client", CLIENTS)
def test_plain_text_to_another_machine_has_to_be_asked_for_by_name(client: Any) -> None:
    with pytest.raises(ValueError, match="allow_plaintext=True"):
        client("idpass.example.com:443")
    client("idpass.example.com:443", allow_plaintext=True)
    client("idpass.example.com:443", tls=True)
    with pytest.raises(ValueError, match="contradicts"):
        client("idpass.example.com:443", tls=True, allow_plaintext=True)


@pytest.mark.parametrize("client", CLIENTS)
def test_a_token_never_leaves_this_machine_in_plain_text(client: Any) -> None:
    with pytest.raises(ValueError, match="plain text"):
        client("idpass.example.com:443", token="secret", allow_plaintext=True)
    client("localhost:443", token="secret")
    client("idpass.example.com:443", token="secret", tls=True)


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("token", ["", " \n", "two\nlines", "geheim-é", "nul\0", "tab\there"])
def test_a_token_that_cannot_be_a_header_is_refused_and_not_told(client: Any, token: str) -> None:
    with pytest.raises(ValueError, match="cannot be sent in a header") as raised:
        client("localhost:443", token=token)
    assert token.strip() == "" or token not in str(raised.value)


@pytest.mark.parametrize(("given", "error"), [("a\nb", ValueError), (b"bytes", TypeError)])
def test_a_token_that_a_function_gives_is_looked_at_in_each_call(
    connect: Connect, address: str, given: Any, error: type[Exception]
) -> None:
    tokens = iter(["fine\n", given])
    client = connect(address, token=lambda: next(tokens))
    client.account()
    with pytest.raises(error, match="the token"):
        client.account()


@pytest.mark.parametrize("client", CLIENTS)
def test_a_pem_file_that_is_missing_is_told_at_once(client: Any, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        client("localhost:1", tls=tmp_path / "none.pem")


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


def test_a_token_is_sent_as_bearer_over_tls(
    connect: Connect, serve: Serve, ca: trustme.CA, tmp_path: Path
) -> None:
    recorder, address = serve(server_credentials(ca, mutual=False))
    roots = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(str(roots))
    for tls in (roots, str(roots), ca.cert_pem.bytes()):
        assert connect(address, tls=tls, token="secret").account().id == "recorded"
        assert recorder.metadata["authorization"] == "Bearer secret"
    assert recorder.metadata["user-agent"].startswith("idpass-client/")


def test_mutual_tls_takes_one_argument(connect: Connect, serve: Serve, ca: trustme.CA) -> None:
    recorder, address = serve(server_credentials(ca, mutual=True))
    issued = ca.issue_cert("caller.example.com")
    certificate = (issued.cert_chain_pems[0].bytes(), issued.private_key_pem.bytes())
    roots = ca.cert_pem.bytes()
    client = connect(address, tls=roots, client_certificate=certificate)
    assert client.account().id == "recorded"
    assert b"caller.example.com" in recorder.peer["x509_subject_alternative_name"]
    with pytest.raises(Unavailable):
        connect(address, tls=roots, timeout=0.3).account()


def test_a_server_of_another_authority_is_not_spoken_to(
    connect: Connect, serve: Serve, ca: trustme.CA
) -> None:
    recorder, address = serve(server_credentials(trustme.CA(), mutual=False))
    for tls in (ca.cert_pem.bytes(), True):
        with pytest.raises(Unavailable):
            connect(address, tls=tls, token="secret", timeout=0.3).account()
    assert recorder.metadata == {}


def test_channel_options_come_last(connect: Connect, serve: Serve) -> None:
    recorder, address = serve()
    options = [("grpc.primary_user_agent", "mine/1")]
    connect(address, channel_options=options).account()
    assert recorder.metadata["user-agent"].startswith("mine/1 ")


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """An HTTP proxy in the environment that refuses everything. Yields what it was asked for."""
    asked: list[str] = []

    class Refusing(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            asked.append(self.rfile.readline().decode().split()[1])
            self.wfile.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for name in ("grpc_proxy", "http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{server.server_address[1]}")
        for name in ("no_grpc_proxy", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        yield asked
        server.shutdown()


def test_a_proxy_in_the_environment_sees_nothing_of_this_machine(
    connect: Connect, serve: Serve, ca: trustme.CA, proxy: list[str]
) -> None:
    _, plain = serve()
    _, tls = serve(server_credentials(ca, mutual=False))
    assert connect(plain).account().id == "recorded"
    assert connect(plain.replace("localhost", "dns:///localhost")).account().id == "recorded"
    assert connect(plain.replace("localhost", "ipv4:127.0.0.1")).account().id == "recorded"
    assert connect(tls, tls=ca.cert_pem.bytes()).account().id == "recorded"
    assert proxy == []


def test_a_proxy_in_the_environment_is_used_for_other_machines_and_named_when_it_refuses(
    connect: Connect, proxy: list[str]
) -> None:
    once = RetryPolicy(max_attempts=1)
    for settings in ({"allow_plaintext": True}, {"tls": True}):
        client = connect("idpass.invalid:443", timeout=5, retry=once, **settings)
        with pytest.raises(Unavailable, match=r"Nothing was sent.*403.*in no_proxy") as raised:
            client.cancel(uuid.uuid4())
        assert "grpc.enable_http_proxy" in str(raised.value)
    assert set(proxy) == {"idpass.invalid:443"}


@pytest.mark.parametrize("way", ["no_proxy", "channel_options"])
def test_a_proxy_can_be_passed_by(
    connect: Connect, proxy: list[str], monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    options: list[tuple[str, Any]] = []
    if way == "no_proxy":
        monkeypatch.setenv("no_proxy", "example.com,idpass.invalid")
    else:
        options = [("grpc.enable_http_proxy", 0)]
    client = connect(
        "idpass.invalid:443", timeout=0.3, allow_plaintext=True, channel_options=options
    )
    with pytest.raises(Unavailable, match=r"Nothing was sent.*Is the name right\?"):
        client.account()
    assert proxy == []


@pytest.mark.parametrize("client", CLIENTS)
def test_making_a_client_does_nothing_that_can_be_seen(
    client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (grpc, grpc.aio):
        monkeypatch.setattr(module, "insecure_channel", lambda *_: pytest.fail("made a channel"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        client(f"127.0.0.1:{listener.getsockname()[1]}")
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_a_closed_client_says_so(address: str) -> None:
    with IdPassClient(address) as client:
        events = client.watch(after_sequence=client.account().last_sequence)
    with pytest.raises(RuntimeError, match="closed"):
        client.account()
    with pytest.raises(RuntimeError, match="closed"):
        next(events)
    client.close()


def test_a_client_that_another_thread_closes_in_the_very_moment_says_so(address: str) -> None:
    client = IdPassClient(address)
    client.account()
    transport: Any = client._transport

    def closed_meanwhile(*_: Any, **__: Any) -> Any:
        client.close()
        raise ValueError("Cannot invoke RPC on closed channel!")

    transport.channel._stub.GetAccount = closed_meanwhile
    with pytest.raises(RuntimeError, match="the client is closed"):
        client.account()


def test_closing_a_client_ends_its_iterations(address: str) -> None:
    client = IdPassClient(address)
    start = client.account().last_sequence
    client.register()
    events = client.watch(after_sequence=start)
    next(events)
    with ThreadPoolExecutor(1) as pool:
        rest = pool.submit(list, events)
        client.close()
        rest.result(timeout=5)


def test_closing_an_async_client_ends_its_iterations_and_cancels_no_task(address: str) -> None:
    async def use() -> None:
        client = AsyncIdPassClient(address)
        start = (await client.account()).last_sequence
        receipt = await client.register()
        seen = asyncio.Event()
        after: list[str] = []

        async def watch() -> None:
            async for event in client.watch(after_sequence=start):
                if event.id == receipt.id_pass.id:
                    seen.set()
            after.append("the task goes on")

        watching = asyncio.create_task(watch())
        await seen.wait()
        await client.close()
        await asyncio.wait_for(watching, 30)
        assert after

    asyncio.run(use())


def test_a_task_that_is_cancelled_while_it_watches_is_cancelled(address: str) -> None:
    async def use() -> None:
        async with AsyncIdPassClient(address) as client:
            start = (await client.account()).last_sequence
            waiting = asyncio.ensure_future(anext(client.watch(after_sequence=start)))
            await client.account()
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting

    asyncio.run(use())


def test_closing_an_async_client_fails_its_calls_and_cancels_no_task(silent: str) -> None:
    async def use() -> list[Any]:
        client = AsyncIdPassClient(silent)
        calls = [client.account(), client.cancel(uuid.uuid4()), anext(client.watch(), None)]
        tasks = [asyncio.ensure_future(call) for call in calls]
        await asyncio.wait(tasks, timeout=0.05)
        await client.close()
        return await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 30)

    read, change, event = asyncio.run(use())
    assert (type(read), read.code) == (IdPassError, grpc.StatusCode.CANCELLED)
    assert isinstance(change, OutcomeUnknown)
    assert event is None


def test_an_async_client_may_be_used_in_one_event_loop_after_the_other(address: str) -> None:
    client = AsyncIdPassClient(address)

    async def use() -> str:
        return (await client.account()).id

    assert [asyncio.run(use()) for _ in range(3)] == ["demo"] * 3


FORK = """
    import asyncio, os, signal, sys
    from idpass import AsyncIdPassClient, IdPassClient

    address, first_call = sys.argv[1:]
    client = IdPassClient(address)
    async_client = AsyncIdPassClient(address)
    if first_call == "before":
        client.account()

    def use():
        assert client.account().id == "demo"

        async def use_async():
            async with async_client:
                assert (await async_client.account()).id == "demo"

        asyncio.run(use_async())

    child = os.fork()
    if child == 0:
        signal.alarm(20)  # gRPC hangs where it fails
        try:
            use()
        except RuntimeError as error:
            print(error, flush=True)
            os._exit(3)
        os._exit(0)
    use()
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.parametrize(
    ("support", "first_call", "ends_with"),
    [("0", "after", 0), ("1", "after", 0), ("1", "before", 0), ("0", "before", 3)],
)
def test_a_forked_child_makes_a_channel_of_its_own_or_says_why_it_cannot(
    address: str, support: str, first_call: str, ends_with: int
) -> None:
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FORK), address, first_call],
        env=os.environ | {"GRPC_ENABLE_FORK_SUPPORT": support},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == ends_with, run.stdout + run.stderr
    assert ("GRPC_ENABLE_FORK_SUPPORT=1" in run.stdout) is (ends_with == 3)
