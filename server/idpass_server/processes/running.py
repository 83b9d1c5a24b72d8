"""Runs a server, with the HTTP gateway beside it if asked for, until a signal stops it."""

import asyncio
import contextlib
import gc
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import structlog
import uvloop

from idpass_server import extras, logs
from idpass_server.addresses import split_loopback, unix_path
from idpass_server.config import Settings
from idpass_server.hosting import unix_sockets
from idpass_server.hosting.listening import CannotListen
from idpass_server.hosting.server import CLOSE_S, PartFailed, Ready, Server
from idpass_server.processes.descriptors import provide
from idpass_server.processes.systemd import Systemd
from idpass_server.processes.terminal import Terminal
from idpass_server.trying.sandbox import Sandbox

if TYPE_CHECKING:
    from idpass_server.gateway.serving import Gateway

STOP: Final = (signal.SIGTERM, signal.SIGINT)
EXIT_STORE_BROKEN: Final = 74
"""Exit code when the store broke or the stop was blocked: EX_IOERR of sysexits.h."""

HTTP_S: Final = 1.0
"""Head start of HTTP requests in flight before the gRPC server stops too, seconds."""
WAY_OUT_S: Final = HTTP_S + 2 * CLOSE_S
"""Time beyond the drain time after which a stop counts as blocked, seconds."""
EXIT_S: Final = logs.FLUSH_S + 2.0
"""Time for the interpreter to end, the last log lines included, seconds."""

T = TypeVar("T")
log = structlog.get_logger()


async def serve(settings: Settings, ready: Ready | None = None) -> bool:
    """Serves until SIGTERM or SIGINT.

    SIGHUP makes the server read its files again, or stops it if its terminal was closed.

    Args:
        settings: checked already.
        ready: as Server.start; not used by a sandbox.

    Returns:
        false if the store broke.

    Raises:
        OperatorError: it cannot serve, or a part of it ended that should not.
    """
    with _way_in(settings) as way_in:
        return await _serve(settings, way_in, ready)


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


async def _serve(settings: Settings, way_in: str | None, ready: Ready | None) -> bool:
    shared = settings.workers > 1
    provide(settings.max_connections + (settings.max_http_connections if settings.http else 0))
    gateway = (
        _open("--http", settings.http, settings.max_http_connections, reuse_port=shared)
        if settings.http
        else None
    )
    server = Sandbox(settings) if settings.sandbox else Server(settings, also_on=way_in)

    started, stopping = asyncio.Event(), asyncio.Event()

    terminal, systemd = Terminal(), Systemd.of(os.environ)

    async def hang_up() -> None:
        if terminal.is_gone():
            stopping.set()
        else:
            await started.wait()
            systemd.reloading()
            await server.reload()
            systemd.ready(serving_at)

    _on_stop(stopping.set)
    _on_hang_up(hang_up)
    address = await (server.start() if isinstance(server, Sandbox) else server.start(ready))
    serving_at = f"serving at {address}"
    checks = server.readiness.checks if isinstance(server, Server) else dict
    serving = asyncio.create_task(server.wait())
    http = informing = None
    try:
        if gateway is not None:
            reset = server.reset if isinstance(server, Sandbox) else None
            observe = server.metrics.requested if isinstance(server, Server) else None
            gateway.start(way_in or address, reset=reset, drain_s=settings.drain_s, observe=observe)
            http = asyncio.create_task(gateway.ended())
        started.set()
        systemd.ready(serving_at)
        informing = asyncio.create_task(systemd.keep_informed(serving_at, checks))
        # What exists now stays; scanning it in each collection takes a twentieth of the time.
        gc.collect()
        gc.freeze()
        gc.set_threshold(20_000, 20, 50)
        await _first(stopping, serving, http)
    finally:
        died = http is not None and http.done()
        systemd.stopping()
        with _last_resort(settings.drain_s + WAY_OUT_S):
            await _stop(server, serving, gateway)
        if informing is not None:
            informing.cancel()
    if died:
        raise PartFailed("stopped, since the HTTP gateway failed; see the log")
    return serving.result()


async def _stop(
    server: Server | Sandbox, serving: "asyncio.Task[bool]", gateway: "Gateway | None"
) -> None:
    """Stops the gateway and the service side by side, so that neither can block the other."""
    server.drain()
    parts: list[asyncio.Task[Any]] = [serving]
    if gateway is not None:
        parts.append(asyncio.create_task(gateway.stop()))
        # HTTP requests in flight still need the service.
        await asyncio.wait(parts[1:], timeout=HTTP_S)
    server.stop()
    await asyncio.wait(parts)


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
    _on_stop(stopping.set)
    gateway.start(target, drain_s=Settings.drain_s)
    await _first(stopping, asyncio.create_task(gateway.ended()))
    with _last_resort(Settings.drain_s + WAY_OUT_S):
        await gateway.stop()
    if not stopping.is_set():
        raise PartFailed("stopped, since the HTTP gateway failed; see the log")


def run(serving: Coroutine[Any, Any, T]) -> T:
    """Runs a server as the last thing that this process does.

    Threads that wait for an unresponsive disk or database do not keep the process alive.
    """

    async def to_the_end() -> T:
        try:
            return await serving
        finally:
            _leave_after(EXIT_S)

    return uvloop.run(to_the_end())


async def _first(stopping: asyncio.Event, *parts: "asyncio.Task[Any] | None") -> None:
    """Waits until a stop is asked for or a part has ended; logs what a part ended with."""
    asked = asyncio.create_task(stopping.wait())
    running = [part for part in parts if part is not None]
    await asyncio.wait([asked, *running], return_when=asyncio.FIRST_COMPLETED)
    asked.cancel()
    for part in running:
        if part.done() and (error := part.exception()) is not None:
            log.critical("part_failed", exc_info=error)


@contextlib.contextmanager
def _last_resort(seconds: float) -> Iterator[None]:
    """Ends the process if stopping takes longer: something waits for what never comes."""
    timer = _leave_after(seconds)
    try:
        yield
    finally:
        timer.cancel()


def _leave_after(seconds: float) -> threading.Timer:
    def leave() -> None:
        try:
            log.critical("stop_blocked", seconds=seconds)
        finally:  # even if the log cannot be written
            os._exit(EXIT_STORE_BROKEN)

    timer = threading.Timer(seconds, leave)
    timer.daemon = True
    timer.start()
    return timer


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


def _on_stop(act: Callable[[], None]) -> None:
    for number in STOP:
        asyncio.get_running_loop().add_signal_handler(number, act)


def _on_hang_up(act: Callable[[], Coroutine[Any, Any, None]]) -> None:
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()

    def begin() -> None:
        task = loop.create_task(act())
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    loop.add_signal_handler(signal.SIGHUP, begin)
