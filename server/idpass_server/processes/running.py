"""Runs a server, with the HTTP gateway beside it if asked for, until a signal stops it."""

import asyncio
import contextlib
import dataclasses
import gc
import os
import signal
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import structlog

from idpass_server import extras
from idpass_server.addresses import split, split_loopback, unix_path
from idpass_server.config import Settings
from idpass_server.failures import OperatorError
from idpass_server.hosting import unix_sockets
from idpass_server.hosting.listening import CannotListen
from idpass_server.hosting.server import CLOSE_S, PartFailed, Ready, Server
from idpass_server.hosting.sharing import share_ports
from idpass_server.processes.descriptors import provide
from idpass_server.processes.ending import first, last_resort
from idpass_server.processes.handing_over import HandOverFailed, Predecessor, Successor
from idpass_server.processes.systemd import Systemd
from idpass_server.processes.terminal import Terminal
from idpass_server.trying.sandbox import Sandbox

if TYPE_CHECKING:
    from idpass_server.gateway.serving import Gateway

STOP: Final = (signal.SIGTERM, signal.SIGINT)

HTTP_S: Final = 1.0
"""Head start of HTTP requests in flight before the gRPC server stops too, seconds."""
WAY_OUT_S: Final = HTTP_S + 2 * CLOSE_S
"""Time beyond the drain time after which a stop counts as blocked, seconds."""

log = structlog.get_logger()


async def serve(settings: Settings, ready: Ready | None = None) -> bool:
    """Serves until SIGTERM or SIGINT.

    SIGHUP makes the server read its files again, or stops it if its terminal was closed. SIGUSR2
    hands over to a new process; a worker just leaves then, as another has been started.

    Args:
        settings: checked already.
        ready: as Server.start, for a worker.

    Returns:
        false if the store broke.

    Raises:
        OperatorError: it cannot serve, or a part of it ended that should not.
    """
    before = await Predecessor.of(os.environ)
    try:
        if before is not None:
            settings = dataclasses.replace(settings, **before.addresses)
        with _way_in(settings) as way_in:
            return await _Running(settings, way_in, ready, before).run()
    except OperatorError as error:
        if before is not None:
            before.fail(str(error))
        raise


@contextlib.contextmanager
def _way_in(settings: Settings) -> Iterator[str | None]:
    """A Unix socket through which the gateway reaches a service that speaks TLS.

    Only this user can open it, and it grants nothing: the tokens that the gateway passes on say who
    calls.
    """
    if settings.http is None or settings.tls_cert is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="idpass-") as folder:  # of mode 0700
        path = Path(folder, "grpc.sock")
        unix_sockets.check_length(path, "set TMPDIR to a folder with a shorter name")
        yield f"unix:{path}"


class _Running:
    """A server and its gateway in this process, from their start to their end or hand-over.

    Args:
        settings, ready: as of `serve`.
        way_in: the gateway's address of the service; None for that of all callers.
        before: the process that this one takes over from; None for none.
    """

    def __init__(
        self,
        settings: Settings,
        way_in: str | None,
        ready: Ready | None,
        before: Predecessor | None,
    ) -> None:
        self._settings = settings
        self._way_in = way_in
        self._ready = ready
        self._before = before
        self._server: Server | Sandbox
        self._gateway: Gateway | None = None
        self._started, self._stopping, self._leaving = (asyncio.Event() for _ in range(3))
        self._handing_over: asyncio.Task[None] | None = None
        self._successor: Successor | None = None
        self._served: dict[str, Any] = {}
        self._terminal, self._systemd = Terminal(), Systemd.of(os.environ)

    async def run(self) -> bool:
        """As `serve`."""
        for number in STOP:
            asyncio.get_running_loop().add_signal_handler(number, self._stopping.set)
        _on(signal.SIGHUP, self._hang_up)
        _on(signal.SIGUSR2, self._leave)
        while True:
            healthy = await self._serve()
            self._gateway = None
            successor, self._successor = self._successor, None
            if successor is None:
                return healthy
            if self._stopping.is_set() or not healthy:
                self._systemd.stopping()
                await successor.end()
                return healthy
            if await self._let_serve(successor):
                if isinstance(self._server, Server):
                    await self._server.hung_up()
                return True
            # On the same ports, also where any free one was asked for.
            self._settings = dataclasses.replace(self._settings, **self._served)
            self._started.clear()
            self._leaving.clear()

    async def _serve(self) -> bool:
        """Serves until the service stops or another process takes over. Returns as `serve`."""
        settings = self._settings
        provide(settings.max_connections + (settings.max_http_connections if settings.http else 0))
        if self._before is None:
            self._open_gateway(shares_port=settings.workers > 1)
        if settings.sandbox:
            self._server = Sandbox(settings)
            address = await self._server.start()
        else:
            before = None if self._before is None else self
            self._server = Server(settings, also_on=self._way_in, before=before)
            address = await self._server.start(self._ready)
        serving = asyncio.create_task(self._server.wait())
        http = informing = None
        try:
            http = self._start_gateway(address)
            informing = asyncio.create_task(self._tell_that_it_serves(address))
            # What exists now stays; scanning it in each collection takes a twentieth of the time.
            gc.collect()
            gc.freeze()
            gc.set_threshold(20_000, 20, 50)
            await first([self._stopping, self._leaving], serving, http)
        finally:
            died = http is not None and http.done()
            with last_resort(settings.drain_s + WAY_OUT_S):
                await self._stop(serving)
            if informing is not None:
                informing.cancel()
        if died:
            raise PartFailed("stopped, since the HTTP gateway failed; see the log")
        return serving.result()

    def _open_gateway(self, *, shares_port: bool) -> None:
        http = self._settings.http
        if http is not None:
            connections = self._settings.max_http_connections
            self._gateway = _open("--http", http, connections, reuse_port=shares_port)

    def _start_gateway(self, address: str) -> "asyncio.Task[None] | None":
        """Starts the gateway. Returns a task that ends with it; None if there is no gateway."""
        if self._gateway is None:
            return None
        server, drain_s = self._server, self._settings.drain_s
        reset = open_stage = observe = None
        if isinstance(server, Sandbox):
            reset, open_stage = server.reset, server.open_stage
        else:
            observe = server.metrics.requested
        self._gateway.start(
            self._way_in or address,
            reset=reset,
            open_stage=open_stage,
            drain_s=drain_s,
            observe=observe,
        )
        return asyncio.create_task(self._gateway.ended())

    async def _tell_that_it_serves(self, address: str) -> None:
        """Tells whoever waits for it, and systemd from then on."""
        self._started.set()
        self._status = f"serving at {address}"
        self._systemd.ready(self._status)
        before, self._before = self._before, None
        if before is not None:
            before.serving()
        server = self._server
        checks = server.readiness.checks if isinstance(server, Server) else dict
        await self._systemd.keep_informed(self._status, checks)

    async def _stop(self, serving: "asyncio.Task[bool]") -> None:
        """Stops the gateway and the service side by side, so that neither can block the other."""
        if not self._leaving.is_set():
            self._systemd.stopping()
            if self._handing_over is not None:
                self._handing_over.cancel()
        self._server.drain()
        parts: list[asyncio.Task[Any]] = [serving]
        if self._gateway is not None:
            parts.append(asyncio.create_task(self._gateway.stop()))
            # HTTP requests in flight still need the service.
            await asyncio.wait(parts[1:], timeout=HTTP_S)
        if isinstance(self._server, Server):
            self._server.stop(succeeded=self._leaving.is_set())
        else:
            self._server.stop()
        await asyncio.wait(parts)

    async def _hang_up(self) -> None:
        if self._terminal.is_gone():
            self._stopping.set()
            return
        await self._started.wait()
        self._systemd.reloading()
        await self._server.reload()
        self._systemd.ready(self._status)

    # -- taking over

    async def ready(self) -> None:
        """As `Before.ready`: HTTP's port is opened last, since requests wait there from then on."""
        assert self._before is not None  # noqa: S101 or the server would not ask
        self._open_gateway(shares_port=True)
        await self._before.ready()

    async def let_go(self) -> None:
        """As `Before.let_go`."""
        assert self._before is not None  # noqa: S101 or the server would not ask
        await self._before.let_go()

    # -- handing over

    async def _leave(self) -> None:
        """Hands over to a new process; a worker just leaves, since another has been started."""
        await self._started.wait()
        if self._ready is not None:
            self._leaving.set()
        elif not self._leaving.is_set() and (
            self._handing_over is None or self._handing_over.done()
        ):
            self._handing_over = asyncio.current_task()
            await self._hand_over()

    async def _hand_over(self) -> None:
        """Starts the next process; when it is ready, lets this one stop."""
        addresses = self._served = self._addresses()
        ports = {split(each)[1] for each in addresses.values() if unix_path(each) is None}
        try:
            if isinstance(self._server, Sandbox):
                raise HandOverFailed("a sandbox has nothing to hand over: start another")
            if os.getpid() == 1:
                raise HandOverFailed(
                    "a container ends with its first process, which this is: start another "
                    "container instead"
                )
            self._systemd.reloading()
            share_ports(ports, shared=True)
            self._successor = await Successor.start(addresses, self._systemd)
            log.info("handing_over", pid=self._successor.pid)
            await self._successor.get_ready()
            await self._successor.take()
        except (HandOverFailed, OSError) as error:
            self._successor = None
            share_ports(ports, shared=False)
            self._not_handed_over(error)
        else:
            self._leaving.set()

    def _addresses(self) -> dict[str, Any]:
        """What is served, by the names of the settings."""
        if isinstance(self._server, Sandbox):
            return {}
        served = {"listen": self._server.address, **self._server.listens}
        if self._gateway is not None:
            served["http"] = self._gateway.address
        return served

    async def _let_serve(self, successor: Successor) -> bool:
        """Lets the next process serve, as this one has stopped.

        Returns:
            false if it failed, and this one has to serve again.
        """
        serving = asyncio.create_task(successor.serve())
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait([serving, stopping], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        try:
            if not serving.done():
                serving.cancel()
                self._systemd.stopping()
                await successor.end()
                return True
            serving.result()
        except HandOverFailed as error:
            self._not_handed_over(error)
            return False
        log.info("handed_over", pid=successor.pid)
        self._systemd.succeeded_by(successor.pid, self._status)
        return True

    def _not_handed_over(self, error: Exception) -> None:
        log.error("hand_over_failed", error=str(error), serves="this process goes on")
        self._systemd.ready(self._status)


async def serve_http(target: str, http: str) -> None:
    """Runs the gateway alone, for a service on this machine, until SIGTERM or SIGINT.

    Args:
        target: HOST:PORT or unix:PATH of the service.
        http: HOST:PORT to listen on.

    Raises:
        BadSetting: an address is not on this machine.
        CannotListen: the address cannot be listened on.
        PartFailed: the gateway ended by itself.
    """
    if unix_path(target) is None:
        split_loopback("--target", target, "Run the gateway beside the service")
    provide(Settings.max_connections)
    gateway = _open("--http", http, Settings.max_connections)
    stopping = asyncio.Event()
    for number in STOP:
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    gateway.start(target, drain_s=Settings.drain_s)
    await first([stopping], asyncio.create_task(gateway.ended()))
    with last_resort(Settings.drain_s + WAY_OUT_S):
        await gateway.stop()
    if not stopping.is_set():
        raise PartFailed("stopped, since the HTTP gateway failed; see the log")


def _open(option: str, http: str, connections: int, *, reuse_port: bool = False) -> "Gateway":
    host, port = split_loopback(option, http)
    try:
        from idpass_server.gateway.connections import Limits  # noqa: PLC0415 an extra may be missing
        from idpass_server.gateway.serving import Gateway  # noqa: PLC0415 likewise
    except ImportError as error:
        raise CannotListen(extras.missing(option, error, "http")) from error
    try:
        limits = Limits(connections=connections)
        return Gateway(host, port, reuse_port=reuse_port, limits=limits)
    except OSError as error:
        raise CannotListen(
            f"{http} cannot be listened on ({error.strerror}); give another {option} HOST:PORT, "
            "with port 0 for any free one"
        ) from error


def _on(number: int, act: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Acts on a signal."""
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()

    def begin() -> None:
        task = loop.create_task(act())
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    loop.add_signal_handler(number, begin)
