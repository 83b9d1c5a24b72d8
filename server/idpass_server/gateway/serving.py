"""A running gateway: its socket, its channel to the service, and how it stops."""

import asyncio
import contextlib
import functools
import socket
import time
from collections.abc import Iterator
from typing import Any, Final, cast

import grpc
import httptools  # noqa: F401 uvicorn looks for it only when it serves
import structlog
import uvicorn

from idpass import __version__
from idpass_server import addresses
from idpass_server.gateway.app import App, Observe, Reset
from idpass_server.gateway.connections import Connection, Limits
from idpass_server.gateway.inbox import PATH as INBOX_PATH
from idpass_server.gateway.inbox import Inbox
from idpass_server.gateway.stages import OpenStage

LIMITS: Final = Limits()
BACKLOG: Final = 1_024
"""Limit of connections that the kernel queues until they are accepted."""
CLOSE_AGAIN_S: Final = 0.1
"""Interval at which a stopping gateway ends streams that have been opened since, seconds."""
CHANNEL_OPTIONS: Final[list[tuple[str, Any]]] = [
    # The service's log then tells what came over HTTP.
    ("grpc.primary_user_agent", f"idpass-gateway/{__version__}"),
    # A proxy from the environment must not see what is meant to stay on this machine.
    ("grpc.enable_http_proxy", 0),
    # Fits a page of 1,000 passes with the longest notes.
    ("grpc.max_receive_message_length", 4_000_000),
    # Short backoff, so that a restarted service is found soon.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
]

log = structlog.get_logger()


class Gateway:
    """The gateway. It listens once it is made, and answers once it has started.

    Args:
        host: to listen on.
        port: to listen on; 0 takes a free one.
        reuse_port: whether other processes share the address; all of them must say so.
        limits: of its connections.

    Attributes:
        address: HOST:PORT, with the port that was taken.

    Raises:
        OSError: the address cannot be listened on.
    """

    def __init__(
        self, host: str, port: int, *, reuse_port: bool = False, limits: Limits = LIMITS
    ) -> None:
        self._limits = limits
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server(
            (host, port), family=family, backlog=BACKLOG, reuse_port=reuse_port
        )
        bound = self._socket.getsockname()[1]
        self.address = addresses.join(host, bound)
        self._task: asyncio.Task[None] | None = None

    def start(
        self,
        target: str,
        *,
        reset: Reset | None = None,
        open_stage: OpenStage | None = None,
        drain_s: float,
        observe: Observe | None = None,
    ) -> None:
        """Begins to answer.

        Args:
            target: HOST:PORT or unix:PATH of the gRPC service.
            reset: replaces the sandbox's mock data; None turns the sandbox off.
            open_stage: as of App.
            drain_s: drain time of `stop`, seconds.
            observe: is told of each request that has ended; None if nobody asks.
        """
        self._drain_s = drain_s
        self._channel = grpc.aio.insecure_channel(target, CHANNEL_OPTIONS)
        inbox = Inbox(self._channel, f"http://{self.address}{INBOX_PATH}") if reset else None
        self._app = App(self._channel, target, reset, observe, inbox=inbox, open_stage=open_stage)
        config = uvicorn.Config(
            self._app,
            http=cast("Any", functools.partial(Connection, limits=self._limits)),
            ws="none",  # whatever libraries for it are installed
            lifespan="off",
            access_log=False,  # the service has a line for each call
            log_config=None,  # logging is configured once, before there is a gRPC server
            server_header=False,
            timeout_keep_alive=cast("int", self._limits.idle_s),
        )
        self._uvicorn = _Uvicorn(config)
        self._task = asyncio.create_task(self._uvicorn.serve([self._socket]))
        log.info("gateway", http=self.address, target=target, sandbox=reset is not None)
        if reset is not None:
            log.info("sandbox", open_in_a_browser=f"http://{self.address}/")

    async def ended(self) -> None:
        """Waits until it has ended.

        Raises:
            Exception: whatever ended it, if it was not asked to stop.
        """
        if self._task is not None:
            await asyncio.shield(self._task)

    async def stop(self) -> None:
        """Drains: requests in flight finish within the drain time, and connections are closed."""
        if self._task is None:
            self._socket.close()
            return
        self._uvicorn.should_exit = True
        give_up_s = time.monotonic() + self._drain_s
        while not self._task.done() and time.monotonic() < give_up_s:
            self._app.close()  # repeatedly: open connections may still open streams
            await asyncio.wait([self._task], timeout=CLOSE_AGAIN_S)
        if not self._task.done():
            log.warning("gateway_cut", after_s=self._drain_s)
            self._task.cancel()
            await asyncio.wait([self._task], timeout=CLOSE_AGAIN_S)
        await self._channel.close()


class _Uvicorn(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves signals alone: `processes` handles them."""
        yield
