"""A running gateway: its socket, its channel to the service, and its way out."""

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

from idpass_server import addresses
from idpass_server.gateway.app import App, Reset
from idpass_server.gateway.connections import Connection, Limits

LIMITS: Final = Limits()
BACKLOG: Final = 1_024
CLOSE_AGAIN_S: Final = 0.1
"""Interval at which streams that came meanwhile are ended while the gateway stops, seconds."""
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
        self.address = addresses.join(host, bound)
        self._task: asyncio.Task[None] | None = None

    def start(self, target: str, *, reset: Reset | None = None, drain_s: float) -> None:
        """
        Args:
            target: HOST:PORT of the gRPC service.
            reset: turns the sandbox on; makes its mock data anew.
            drain_s: how long requests in flight may take to finish in the end.
        """
        self._drain_s = drain_s
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
        )
        self._uvicorn = _Uvicorn(config)
        self._task = asyncio.create_task(self._uvicorn.serve([self._socket]))
        log.info("gateway", http=self.address, target=target, sandbox=reset is not None)
        if reset is not None:
            log.info("sandbox", open_in_a_browser=f"http://{self.address}/")

    async def ended(self) -> None:
        """Returns when nothing is served any more.

        Raises: what ended it, if it was not asked to stop.
        """
        if self._task is not None:
            await asyncio.shield(self._task)

    async def stop(self) -> None:
        """Finishes what is in flight within the drain time, and closes the connections."""
        if self._task is None:
            self._socket.close()
            return
        self._uvicorn.should_exit = True
        give_up_s = time.monotonic() + self._drain_s
        while not self._task.done() and time.monotonic() < give_up_s:
            self._app.close()  # again and again: streams may still come on open connections
            await asyncio.wait([self._task], timeout=CLOSE_AGAIN_S)
        if not self._task.done():
            log.warning("gateway_cut", after_s=self._drain_s)
            self._task.cancel()
            await asyncio.wait([self._task], timeout=CLOSE_AGAIN_S)
        await self._channel.close()


class _Uvicorn(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the command line's business."""
        yield
