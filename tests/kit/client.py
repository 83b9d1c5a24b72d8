"""What the client's tests share: a service in a process of its own, one way to use both clients."""

import asyncio
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import trustme
from google.rpc import status_pb2

from idpass.v1 import id_pass_pb2 as pb
from idpass.v1 import id_pass_service_pb2 as service_pb
from idpass.v1.id_pass_service_pb2_grpc import IdPassServiceServicer
from kit.serving import COMMAND, Serving, url_of

PutPass = Callable[..., str]
Connect = Callable[..., Any]


class ServerProcess:
    """A service that can be stopped and started again at the same address.

    Args:
        options: of `serve`. By default callers may call as often as they like.
    """

    def __init__(self, db: Path, *options: str) -> None:
        self.db = db
        self.options = options
        self.address = "127.0.0.1:0"
        self.start()

    def set_slots(self, slots: int) -> None:
        change = ["account", "set", "demo", "--slots", str(slots), "--db", url_of(self.db)]
        subprocess.run([*COMMAND, *change], check=True, capture_output=True)

    def start(self) -> None:
        self._serving = Serving(self.db, *self.options, "--listen", self.address)
        self.address = self._serving.address

    def stop(self) -> None:
        self.signal(signal.SIGTERM)
        self._serving.wait()
        self._serving.end()

    def kill(self) -> None:
        self._serving.end()

    def signal(self, number: int) -> None:
        self._serving.signal(number)


class Blocking:
    """An AsyncIdPassClient, or a part of one, that is used like an IdPassClient."""

    def __init__(self, client: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._client = client
        self._loop = loop

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            made = getattr(self._client, name)(*args, **kwargs)
            if hasattr(made, "__anext__"):
                return self._iterate(made)
            return self._loop.run_until_complete(made)

        return call

    def _iterate(self, iterator: Any) -> Iterator[Any]:
        try:
            while True:
                yield self._loop.run_until_complete(anext(iterator))
        except StopAsyncIteration:
            return
        finally:
            self._loop.run_until_complete(iterator.aclose())


class Recorder(IdPassServiceServicer):
    """A service that notes who calls.

    Attributes:
        received: metadata of the latest call.
        refusal: what cancelling is refused with.
        attempts: callers' own metadata of each attempt to cancel.
    """

    def __init__(self) -> None:
        self.metadata: dict[str, Any] = {}
        self.received: list[tuple[str, Any]] = []
        self.peer: dict[str, Any] = {}
        self.refusal = ""
        self.attempts: list[list[tuple[str, Any]]] = []

    def CancelIdPass(self, _request: Any, context: Any) -> Any:
        """As a proxy that answers for a service behind it."""
        own = [pair for pair in context.invocation_metadata() if pair[0].startswith("x-")]
        self.attempts.append([tuple(pair) for pair in own])
        context.set_trailing_metadata((("server", "a proxy"),))
        context.abort(grpc.StatusCode.UNAVAILABLE, self.refusal)

    def GetAccount(self, _request: Any, context: Any) -> pb.Account:
        self.received = list(context.invocation_metadata())
        self.metadata = dict(self.received)
        self.peer = dict(context.auth_context())
        return pb.Account(id="recorded")

    def BatchCancelIdPasses(self, request: Any, context: Any) -> service_pb.BatchCancelResponse:
        self.received = list(context.invocation_metadata())
        answer = service_pb.BatchCancelResponse()
        for _ in request.requests:
            answer.results.add(error=status_pb2.Status(code=5))
        return answer

    def ListIdPasses(self, _request: Any, context: Any) -> service_pb.ListResponse:
        self.received = list(context.invocation_metadata())
        return service_pb.ListResponse()

    def WatchIdPasses(self, _request: Any, context: Any) -> Iterator[pb.IdPassEvent]:
        self.received = list(context.invocation_metadata())
        return iter(())


Serve = Callable[..., tuple[Recorder, str]]


def server_credentials(ca: trustme.CA, *, mutual: bool) -> grpc.ServerCredentials:
    issued = ca.issue_cert("localhost")
    return grpc.ssl_server_credentials(
        [(issued.private_key_pem.bytes(), issued.cert_chain_pems[0].bytes())],
        ca.cert_pem.bytes() if mutual else None,
        mutual,
    )
