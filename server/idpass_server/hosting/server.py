"""A running server: everything wired together, its health, and its way out.

Stopping: health says NOT_SERVING, streams end, new calls are refused; clients are sent away
(GOAWAY), calls in flight finish within the drain time, and the connections are closed as soon as
they have; everything submitted is stored, the store is closed. Nothing on the way out is waited
for without a bound: there is always someone who does not read, or does not answer.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, Final

import grpc
import structlog
from grpc_health.v1 import health_pb2_grpc

from idpass_server.api import methods
from idpass_server.api.calls import Calls
from idpass_server.api.identity import Callers, EveryoneIsDemo, Identity, KnownCallers
from idpass_server.api.metrics import Metrics
from idpass_server.api.rate import Limit
from idpass_server.api.servicer import IdPassServicer
from idpass_server.api.watch import Watchers
from idpass_server.config import Settings, address
from idpass_server.engine.clock import Clock
from idpass_server.engine.readiness import DRAINING, Readiness
from idpass_server.engine.reads import Reads
from idpass_server.engine.sweeper import Sweeper
from idpass_server.engine.writes import Engine
from idpass_server.hosting import callers, pages, reflection
from idpass_server.hosting.channel_options import options
from idpass_server.hosting.health import Health, check_store
from idpass_server.hosting.plain_http import PlainHttp
from idpass_server.hosting.reloading import Reloading, apart
from idpass_server.hosting.tls import Certificates
from idpass_server.rules.refusals import StoreUnavailable
from idpass_server.store import StoreBroken
from idpass_server.store.opening import open_store
from idpass_server.urls import shown_url

HANG_UP_S: Final = 0.5
"""Time for the last answers to be read; streams that nobody reads are cut after it, seconds."""
CLOSE_S: Final = 5.0
"""Time for the store to finish what was submitted and to close, seconds."""

Ready = Callable[[Readiness], Awaitable[None]]
log = structlog.get_logger()


class CannotListen(Exception):
    """The address cannot be served; the message says why and what to do."""


class PartFailed(Exception):
    """A part of the server ended that should not; the message says which."""


class Server:
    """
    Args:
        settings: checked already.
        clock: what time it is.
        also_on: another address to serve, in plain text: a `unix:` socket for the gateway.

    Attributes:
        readiness: where each part reports whether changes can be stored.
        listens: HOST:PORT of "metrics" and "probe", where they are asked for.

    Raises:
        CannotOpen: the database cannot be served.
        CannotListen: the address cannot be served.
        BadCallers: the callers file cannot be used.
        BadCertificates: TLS cannot be spoken with the files.
    """

    def __init__(
        self, settings: Settings, clock: Clock | None = None, *, also_on: str | None = None
    ) -> None:
        self._settings = settings
        self._also_on = also_on
        self._clock = clock or Clock()
        self.readiness = Readiness()
        self._stopping = asyncio.Event()
        self._broken = False
        self._failed: str | None = None
        self._pages = contextlib.ExitStack()
        self.listens: dict[str, str] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._reloading = Reloading()

    async def start(self, ready: Ready | None = None) -> str:
        """Begins to serve. Returns the address, with the port that was taken.

        Args:
            ready: called when everything is open; calls are answered once it returns.
        """
        credentials = self._credentials()
        self._store = await asyncio.to_thread(
            open_store, self._settings.db, create=self._settings.creates
        )
        self._engine = Engine(
            self._store,
            self._clock,
            max_pending=self._settings.max_pending,
            on_commit=self._notify,
            on_broken=self._break,
        )
        self._reads = Reads(
            self._store,
            self._engine,
            self._clock,
            threads=self._settings.readers,
            on_broken=self._break,
        )
        try:
            newest_us = await self._reads.run(self._store.newest_event_time_us)
            self._clock.begin(newest_us, accept=self._settings.accept_clock)
            identity = await self._identify()
        except BaseException:
            await self._close_store()
            raise
        metrics = Metrics()
        self._grpc = self._service(self._wire(identity, metrics))
        try:
            host, _ = address(self._settings.listen)
            port = self._bind(self._settings.listen, credentials)
            if self._also_on is not None:
                self._bind(self._also_on)
            for name, listen, answers in (
                ("metrics", self._settings.metrics, pages.metrics(metrics.registry)),
                ("probe", self._settings.probe, pages.probe(self.readiness.checks)),
            ):
                if listen is not None:
                    self._pages.enter_context(answers)
                    self.listens[name] = await serve_pages(name, listen, answers)
            if ready is not None:
                await ready(self.readiness)
        except BaseException:
            self._pages.close()
            await self._close_store()
            raise
        loop = asyncio.get_running_loop()

        def tell(news: Mapping[str, int]) -> None:
            loop.call_soon_threadsafe(self._notify, news)

        self._store.listen(self._watchers.accounts, tell)
        self.readiness.set("store", None)
        self.readiness.set("schema", None)  # or it could not have been opened
        self.readiness.set(DRAINING, None)
        await self._grpc.start()
        self._run("check of the store", check_store(self._engine, self.readiness))
        self._run("sweeper", self._sweeper.run())
        self._run("reloading", self._reloading.run())
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        if ready is None:
            log.info("serving", listen=self.address, db=shown_url(self._settings.db))
        return self.address

    def _wire(self, identity: Identity, metrics: Metrics) -> IdPassServicer:
        """Puts everything together that lies between gRPC and the store."""
        self._calls = calls = Calls(
            identity,
            metrics,
            max_calls=self._settings.max_calls,
            max_streams_per_account=self._settings.max_watchers_per_account,
            limit=Limit(self._settings.default_rate_per_s, self._settings.burst),
        )
        self._watchers = Watchers(
            self._reads,
            max_watchers=self._settings.max_watchers,
            max_per_account=self._settings.max_watchers_per_account,
            busy=lambda: calls.in_flight > 0,
        )
        self._sweeper = Sweeper(self._reads, self._clock, self.readiness)
        metrics.gauge("calls_in_flight", "Unary calls in flight", lambda: calls.in_flight)
        metrics.gauge("watchers", "Streams open", lambda: self._watchers.open)
        metrics.gauge(
            "failed_checkpoints",
            "Times that the WAL could not be folded into the SQLite file",
            lambda: self._store.failed_checkpoints,
        )
        metrics.gauge(
            "watchers_lag_events_max",
            "Events that the watcher furthest behind has yet to be sent",
            lambda: self._watchers.lag_events_max,
        )
        metrics.gauge("pending_commands", "Changes waiting", lambda: self._engine.pending)
        return IdPassServicer(
            engine=self._engine,
            reads=self._reads,
            watchers=self._watchers,
            metrics=metrics,
        )

    def _service(self, servicer: IdPassServicer) -> grpc.aio.Server:
        """The gRPC server, with health, and with reflection where everyone may know the API."""
        # maximum_concurrent_rpcs is left alone: it costs each call 7 %, and `Calls` and `Watchers`
        # have limits whose refusals say more.
        server = grpc.aio.server(options=options(self._settings))
        server.add_generic_rpc_handlers((methods.handlers(servicer, self._calls),))
        self._health = Health(self.readiness)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        if self._settings.reflects:
            reflection.enable(server)
        return server

    def _run(self, part: str, work: Coroutine[Any, Any, None]) -> None:
        """Keeps a part running beside the calls; without it the server stops."""

        def ended(task: asyncio.Task[None]) -> None:
            if not task.cancelled():
                log.critical("part_failed", part=part, exc_info=task.exception())
                self._failed = part
                self.stop()

        task = asyncio.create_task(work)
        task.add_done_callback(ended)
        self._tasks.append(task)

    def drain(self) -> None:
        """Says that the server is about to stop, and ends the streams; calls go on."""
        if not self.readiness.draining:
            log.info("draining", seconds=self._settings.drain_s)
            self.readiness.set(DRAINING, "the server is stopping")
            self._watchers.close()

    def stop(self) -> None:
        """Asks the server to stop; `wait` does it."""
        self._stopping.set()

    async def reload(self) -> None:
        """Reads again what is read while serving: the callers file and the certificates."""
        await self._reloading.reload()

    async def wait(self) -> bool:
        """Serves until it is asked to stop, and stops. Returns false if the store broke.

        Raises:
            PartFailed: something else ended that should not.
        """
        try:
            await self._stopping.wait()
            self.drain()
            await self._hang_up()
        finally:
            self._calls.log.write()
            for task in self._tasks:
                task.cancel()
            self._pages.close()
            closed = await self._close_store()
        log.info("stopped")
        if self._failed is not None:
            raise PartFailed(f"stopped, since a part of the server failed: {self._failed}")
        return closed and not self._broken

    async def _hang_up(self) -> None:
        """Finishes what is in flight, and closes the connections."""
        patience_s = 0.0 if self._broken else self._settings.drain_s
        if patience_s:
            await self._calls.drain()
        finishing = asyncio.create_task(self._grpc.stop(patience_s + HANG_UP_S))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._calls.finished(), patience_s)
        await asyncio.wait([finishing], timeout=HANG_UP_S)
        cutting = asyncio.create_task(self._grpc.stop(None))
        await asyncio.wait([finishing, cutting], timeout=HANG_UP_S)

    def _credentials(self) -> grpc.ServerCredentials | None:
        """Raises: BadCertificates."""
        settings = self._settings
        files = (settings.tls_cert, settings.tls_key, settings.tls_client_ca)
        paths = [Path(file) for file in files if file is not None]
        if not paths:
            return None

        async def reload() -> None:
            await apart(certificates.reload)

        self._reloading.watch(paths, reload)
        certificates = Certificates(*paths)
        return certificates.credentials()

    async def _identify(self) -> Identity:
        """Raises: BadCallers."""
        if self._settings.callers is None:
            return EveryoneIsDemo()
        path = Path(self._settings.callers)

        async def reload() -> None:
            try:
                identity.replace(await self._read_callers(path))
            except (callers.BadCallers, StoreUnavailable) as error:
                log.error("callers_rejected", in_force="the former", reasons=str(error).split("\n"))
            else:
                self._watchers.recheck()

        self._reloading.watch([path], reload)
        identity = KnownCallers(
            await self._read_callers(path),
            client_certificates=self._settings.tls_client_ca is not None,
        )
        return identity

    async def _read_callers(self, path: Path) -> Callers:
        def account_exists(name: str) -> bool:
            return self._store.get_account(name) is not None

        content = await apart(callers.content, path)
        found = await self._reads.run(callers.parse, path, content, account_exists)
        log.info(
            "callers_loaded",
            callers=found.total,
            tokens=len(found.by_token),
            spiffe_ids=len(found.by_spiffe_id),
        )
        return found

    def _notify(self, last_sequences: Mapping[str, int]) -> None:
        self._watchers.notify(last_sequences)

    def _break(self, _error: StoreBroken) -> None:
        self._broken = True
        # The answers that are due, of unknown outcome among them, still go out.
        asyncio.get_running_loop().call_later(0.1, self._stopping.set)

    async def _close_store(self) -> bool:
        """Stores what was submitted, and closes. Returns false if the store gives no answer."""
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._engine.stop()
                await asyncio.to_thread(self._reads.close)
                await asyncio.to_thread(self._store.close)
        except TimeoutError:
            log.critical("store_not_closed", seconds=CLOSE_S)
            return False
        return True

    def _bind(self, listen: str, credentials: grpc.ServerCredentials | None = None) -> int:
        try:
            if credentials is None:
                return self._grpc.add_insecure_port(listen)
            return self._grpc.add_secure_port(listen, credentials)
        except RuntimeError as error:
            raise CannotListen(
                f"{listen} cannot be listened on; is another program using it? Give another "
                "--listen HOST:PORT, with port 0 for any free one"
            ) from error


async def serve_pages(name: str, listen: str, pages: PlainHttp) -> str:
    """Has pages answered at an address, and says so in the log. Returns HOST:PORT.

    Raises:
        CannotListen: the address cannot be listened on.
    """
    try:
        place = await pages.listen(*address(listen))
    except OSError as error:
        raise CannotListen(f"{listen} cannot be listened on: {error.strerror}") from error
    log.info(name, listen=place)
    return place
