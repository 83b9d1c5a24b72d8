"""A gateway before the real service, and before one that answers as a test wants it to."""

import asyncio
import contextlib
import json
import queue
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import uvloop

from idpass.v1 import id_pass_pb2 as pb
from idpass.v1 import id_pass_service_pb2 as service_pb
from idpass_server.gateway.connections import Limits
from idpass_server.gateway.serving import LIMITS, Gateway
from kit.support import Process

Answer = Callable[[Any, Any], Awaitable[Any]]
JSON = {"content-type": "application/json"}


class Http(Process):
    """A server with HTTP in a process of its own; `calls` of the base class go over gRPC."""

    def __init__(self, db: Path, *options: str) -> None:
        # A sandbox that is killed leaves its folder behind.
        environment = {"TMPDIR": str(db.parent)}
        super().__init__(db, "--http", "127.0.0.1:0", *options, env=environment)
        self.url = f"http://{self.wait_for('gateway')['http']}"
        self.http = httpx.Client(base_url=self.url, timeout=30, trust_env=False)

    def post(self, path: str, **fields: Any) -> httpx.Response:
        return self.http.post(f"/idpass/{path}", json=fields)

    def send(
        self, body: bytes | str, path: str = "cancel", method: str = "POST", **headers: str
    ) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.http.request(method, f"/idpass/{path}", content=body, headers={**JSON, **named})

    def kill(self) -> None:
        self.http.close()
        super().kill()


@contextlib.contextmanager
def served(db: Path, *options: str) -> Iterator[Http]:
    server = Http(db, *options)
    try:
        yield server
    finally:
        server.kill()


def scripted_service(
    cancel: Answer | None = None, watch: Any = None
) -> tuple[grpc.aio.Server, str]:
    """A service that does what a test says, yet to be started, and its address.

    Args:
        cancel: takes a request and a context, and answers; None leaves the method out.
        watch: likewise; gives events.
    """
    handlers: dict[str, Any] = {}
    if cancel is not None:
        handlers["CancelIdPass"] = grpc.unary_unary_rpc_method_handler(
            cancel,
            request_deserializer=service_pb.CancelRequest.FromString,
            response_serializer=service_pb.CancelResponse.SerializeToString,
        )
    if watch is not None:
        handlers["WatchIdPasses"] = grpc.unary_stream_rpc_method_handler(
            watch,
            request_deserializer=service_pb.WatchRequest.FromString,
            response_serializer=pb.IdPassEvent.SerializeToString,
        )
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("idpass.v1.IdPassService", handlers)]
    )
    return server, f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"


@contextlib.contextmanager
def scripted(
    cancel: Answer | None = None, watch: Any = None, limits: Limits = LIMITS
) -> Iterator[httpx.Client]:
    """A gateway whose service does what a test says. Gives a client of it.

    Args:
        cancel: as for scripted_service, as is `watch`.
        watch: see there.
        limits: of the gateway's connections.
    """
    ready: queue.SimpleQueue[tuple[str, Callable[[], object]]] = queue.SimpleQueue()

    async def serve() -> None:
        server, service_address = scripted_service(cancel, watch)
        await server.start()
        gateway = Gateway("127.0.0.1", 0, limits=limits)
        gateway.start(service_address, drain_s=1)
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        ready.put((gateway.address, lambda: loop.call_soon_threadsafe(stopping.set)))
        await stopping.wait()
        await gateway.stop()
        await server.stop(None)

    thread = threading.Thread(target=lambda: uvloop.run(serve()))
    thread.start()
    address, stop = ready.get(timeout=30)
    try:
        with httpx.Client(base_url=f"http://{address}", timeout=30, trust_env=False) as client:
            yield client
    finally:
        stop()
        thread.join(timeout=30)
    assert not thread.is_alive()


def listed(place: str) -> str:
    """What a gateway's list of passes is. Args: place: HOST:PORT."""
    answer = httpx.post(f"http://{place}/idpass/list", json={}, timeout=10, trust_env=False)
    answer.raise_for_status()
    return answer.text


def detail(response: httpx.Response, name: str) -> dict[str, Any]:
    """One of an error's details."""
    (found,) = (each for each in response.json()["details"] if each["@type"].endswith(f".{name}"))
    return dict(found)


def reason(response: httpx.Response) -> str:
    """Of an error, whose form is checked by the way."""
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert set(body) == {"code", "message", "details"}
    assert body["message"]
    info = detail(response, "ErrorInfo")
    assert info["domain"] == "idpass.v1"
    assert detail(response, "RequestInfo")["request_id"]
    return str(info["reason"])


def wrong_fields(response: httpx.Response) -> list[str]:
    return [v["field"] for v in detail(response, "BadRequest")["field_violations"]]


class EventStream:
    """Server-sent events, as a browser reads them."""

    def __init__(self, response: httpx.Response) -> None:
        self._lines = response.iter_lines()

    def next(self) -> dict[str, str]:
        """The fields of the next event; comments and what stands alone are passed over."""
        fields: dict[str, str] = {}
        for line in self._lines:
            if not line:
                if "data" in fields:
                    return fields
                fields = {}
                continue
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
        raise EOFError

    def json(self) -> dict[str, Any]:
        return dict(json.loads(self.next()["data"]))
