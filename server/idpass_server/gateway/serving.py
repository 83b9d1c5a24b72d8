"""A running gateway: its socket, its channel to the service, and its way out."""

import asyncio
import contextlib
import functools
import math
import socket
from collections.abc import Iterator
from typing import Any, Final, cast

import grpc
import structlog
import uvicorn

from idpass_server.gateway.app import App, Reset
from idpass_server.gateway.connections import Connection, Limits

LIMITS: Final = Limits()
BACKLOG: Final = 1_024
CHANNEL_OPTIONS: Final[list[tuple[str, Any]]] = [
    # Or a proxy from the environment would see what is meant to stay on this machine.
    ("grpc.enable_http_proxy", 0),
    # A page of 1,000 passes with the longest notes fits.
    ("grpc.max_receive_message_length", 4_000_000),
    # A service that starts again is found again soon.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
]

log = structlog.get_logger()


class Gateway:
    """
    Args:
        host: to listen on.
        port: 0 takes a free one.
        reuse_port: whether other processes share the address, which it is told to them all.
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
        self.address = f"[{host}]:{bound}" if ":" in host else f"{host}:{bound}"
        self._task: asyncio.Task[None] | None = None

    def start(self, target: str, *, reset: Reset | None = None, drain_s: float) -> None:
        """
        Args:
            target: HOST:PORT of the gRPC service.
            reset: turns the sandbox on; makes its mock data anew.
            drain_s: how long requests in flight may take to finish in the end.
        """
        self._channel = grpc.aio.insecure_channel(target, CHANNEL_OPTIONS)
        self._app = App(self._channel, target, reset)
        config = uvicorn.Config(
            self._app,
            http=cast("Any", functools.partial(Connection, limits=self._limits)),
            ws="none",  # whatever libraries for it are installed
            lifespan="off",
            access_log=False,  # the service has a line for each call
            log_config=None,  # logging is configured once, before there is a gRPC server
            server_header=False,
            timeout_keep_alive=cast("int", self._limits.idle_s),
            timeout_graceful_shutdown=math.ceil(drain_s),
        )
        self._uvicorn = _Uvicorn(config)
        self._task = asyncio.create_task(self._uvicorn.serve([self._socket]))
        log.info("gateway", http=self.address, target=target, sandbox=reset is not None)
        if reset is not None:
            log.info("sandbox", open_in_a_browser=f"http://{self.address}/")

    async def stop(self) -> None:
        """Finishes what is in flight, ends the streams, and closes the connections; once."""
        if self._task is None:
            self._socket.close()
            return
        self._uvicorn.should_exit = True
        self._app.close()
        await self._task
        await self._channel.close()


class _Uvicorn(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the command line's business."""
        yield
