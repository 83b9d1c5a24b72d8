"""Runs a server, with HTTP beside it where that is asked for, until it is told to stop."""

import asyncio
import contextlib
import gc
import signal
import tempfile
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from idpass_server.callers import BadCallers
from idpass_server.clock import ClockWrong
from idpass_server.config import Settings, loopback
from idpass_server.descriptors import TooFewDescriptors, provide
from idpass_server.refusals import StoreUnavailable
from idpass_server.sandbox import Sandbox
from idpass_server.server import CannotListen, Server
from idpass_server.store import CannotOpen, StoreBroken
from idpass_server.terminal import Terminal
from idpass_server.tls import BadCertificates

if TYPE_CHECKING:
    from idpass_server.gateway.serving import Gateway

STOP: Final = (signal.SIGTERM, signal.SIGINT)
CANNOT_SERVE: Final = (
    *(CannotListen, CannotOpen, ClockWrong, BadCallers, BadCertificates, StoreBroken),
    *(StoreUnavailable, TooFewDescriptors),
)
"""Why a server may not start; the message is for people."""
EXIT_STORE_BROKEN: Final = 74  # EX_IOERR


async def serve(settings: Settings, ready: Callable[[], Awaitable[None]] | None = None) -> bool:
    """Serves until SIGTERM or SIGINT. Returns false if the store broke.

    SIGHUP has the server read its files again, or stops it where its terminal was closed.

    Args:
        settings: checked already.
        ready: as Server.start; none in a sandbox.

    Raises:
        CannotListen, CannotOpen, BadCallers, BadCertificates, StoreBroken: as Server.
        TooFewDescriptors: the process may not open as many files as its connections need.
    """
    with _way_in(settings) as way_in:
        return await _serve(settings, way_in, ready)


@contextlib.contextmanager
def _way_in(settings: Settings) -> Iterator[str | None]:
    """A socket by which the gateway gets to a service that speaks TLS, without a certificate.

    Only this user can open it, and it makes nobody a caller: the tokens that the gateway passes on
    say who calls.
    """
    if settings.http is None or settings.tls_cert is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="idpass-") as folder:  # of mode 0700
        yield f"unix:{folder}/grpc.sock"


async def _serve(
    settings: Settings, way_in: str | None, ready: Callable[[], Awaitable[None]] | None
) -> bool:
    shared = settings.workers > 1
    provide(settings.max_connections + (settings.max_http_connections if settings.http else 0))
    gateway = (
        _open("--http", settings.http, settings.max_http_connections, reuse_port=shared)
        if settings.http
        else None
    )
    server = Sandbox(settings) if settings.sandbox else Server(settings, also_on=way_in)

    started = asyncio.Event()

    async def stop() -> None:
        await started.wait()
        # Whoever is answered over HTTP still needs the service for it.
        if gateway is not None:
            await gateway.stop()
        server.stop()

    terminal = Terminal()

    async def hang_up() -> None:
        if terminal.is_gone():
            await stop()
        else:
            await started.wait()
            await server.reload()

    _on_signal(STOP, stop)
    _on_signal((signal.SIGHUP,), hang_up)
    address = await (server.start() if isinstance(server, Sandbox) else server.start(ready))
    if gateway is not None:
        reset = server.reset if isinstance(server, Sandbox) else None
        gateway.start(way_in or address, reset=reset, drain_s=settings.drain_s)
    started.set()
    # What is there now stays: looking at it again and again takes a twentieth of the time.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
    healthy = await server.wait()
    if gateway is not None:
        await gateway.stop()
    return healthy


async def serve_http(target: str, http: str) -> None:
    """Serves HTTP alone, for a service elsewhere on this machine, until SIGTERM or SIGINT.

    Args:
        target: HOST:PORT of the service.
        http: HOST:PORT to listen on.

    Raises:
        BadSetting: one of them is not on this machine.
        CannotListen: the address cannot be listened on.
    """
    loopback("--target", target, "Run the gateway beside the service")
    provide(Settings.max_connections)
    gateway = _open("--http", http, Settings.max_connections)
    stopping = asyncio.Event()

    async def stop() -> None:
        stopping.set()

    _on_signal(STOP, stop)
    gateway.start(target, drain_s=Settings.drain_s)
    await stopping.wait()
    await gateway.stop()


def _open(option: str, http: str, connections: int, *, reuse_port: bool = False) -> "Gateway":
    host, port = loopback(option, http)
    try:
        from idpass_server.gateway.connections import Limits  # noqa: PLC0415 an extra may be missing
        from idpass_server.gateway.serving import Gateway  # noqa: PLC0415 likewise
    except ImportError as error:
        raise CannotListen(
            f"{option} needs {error.name}, which is missing: pip install 'idpass-server[http]'"
        ) from error
    try:
        limits = Limits(connections=connections)
        return Gateway(host, port, reuse_port=reuse_port, limits=limits)
    except OSError as error:
        raise CannotListen(
            f"{http} cannot be listened on ({error.strerror}); give another {option} HOST:PORT, "
            "with port 0 for any free one"
        ) from error


def _on_signal(
    numbers: Sequence[signal.Signals], act: Callable[[], Coroutine[Any, Any, None]]
) -> None:
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()

    def begin() -> None:
        task = loop.create_task(act())
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    for number in numbers:
        loop.add_signal_handler(number, begin)
