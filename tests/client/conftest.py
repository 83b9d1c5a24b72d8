"""Fixtures of the client's tests.

The service runs in a process of its own, and may be of another Python than the tests: the client
is tested against it in environments in which no server could be installed (see matrix.py).
"""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from idpass import AsyncIdPassClient, IdPassClient, Status
from idpass.v1.id_pass_service_pb2_grpc import add_IdPassServiceServicer_to_server
from kit.client import Blocking, Connect, PutPass, Recorder, Serve, ServerProcess
from kit.ways import WAYS


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the service is that the tests share."""
    server = ServerProcess(tmp_path_factory.mktemp("server") / "idpass.db")
    server.set_slots(1_000_000)
    yield server.address
    server.stop()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[ServerProcess]:
    """A service that a test may stop and start."""
    server = ServerProcess(tmp_path / "idpass.db")
    yield server
    server.kill()


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


@pytest.fixture(params=["sync", "async"])
def connect(request: pytest.FixtureRequest) -> Iterator[Connect]:
    """Makes a client of either kind; both are used in the same way."""
    with contextlib.ExitStack() as stack:

        def connect(address: str, **settings: Any) -> Any:
            if request.param == "sync":
                return stack.enter_context(IdPassClient(address, **settings))
            loop = request.getfixturevalue("loop")
            client = AsyncIdPassClient(address, **settings)
            stack.callback(lambda: loop.run_until_complete(client.close()))
            return Blocking(client, loop)

        if request.param == "async":
            request.getfixturevalue("loop")
        yield connect


@pytest.fixture
def client(connect: Connect, address: str) -> Any:
    """A client of either kind, of the shared service."""
    return connect(address)


@pytest.fixture(scope="session")
def setup_client(address: str) -> Iterator[IdPassClient]:
    with IdPassClient(address) as client:
        yield client


@pytest.fixture
def put_pass(setup_client: IdPassClient) -> PutPass:
    """Registers a pass and brings it into a status. Returns its id."""

    def put_pass(status: Status = Status.NEW, **fields: Any) -> str:
        pass_id = setup_client.register(**fields).id_pass.id
        for step in WAYS[status.name.lower()]:
            if step == "cancelled":
                setup_client.cancel(pass_id)
            else:
                setup_client.advance(pass_id, Status[step.upper()])
        return pass_id

    return put_pass


@pytest.fixture
def serve() -> Iterator[Serve]:
    servers = []

    def serve(credentials: grpc.ServerCredentials | None = None) -> tuple[Recorder, str]:
        recorder = Recorder()  # type: ignore[abstract]  # one rpc will do
        server = grpc.server(ThreadPoolExecutor(2))
        add_IdPassServiceServicer_to_server(recorder, server)
        if credentials is None:
            port = server.add_insecure_port("localhost:0")
        else:
            port = server.add_secure_port("localhost:0", credentials)
        server.start()
        servers.append(server)
        return recorder, f"localhost:{port}"

    yield serve
    for server in servers:
        server.stop(None).wait()


@pytest.fixture
def silent() -> Iterator[str]:
    """Where connections are taken and nothing is ever answered, as behind some firewalls."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield "127.0.0.1:{1}".format(*listener.getsockname())
