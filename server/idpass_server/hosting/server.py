"""A running server: how it starts, and how it stops.

Stopping: health turns NOT_SERVING, streams end, and new calls are refused; clients are sent away
(GOAWAY), calls in flight finish within the drain time, and the connections are closed as soon as
they have; everything submitted is stored, and the store is closed. Nothing on the way out waits
without a bound: some peer never reads, or never answers.
"""

import asyncio
import contextlib
import functools
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol

import grpc
import structlog

from idpass_server import addresses
from idpass_server.api.metrics import Metrics
from idpass_server.config import Settings
from idpass_server.engine.clock import Clock
from idpass_server.engine.eraser import Eraser
from idpass_server.engine.readiness import DRAINING, Readiness
from idpass_server.engine.reads import Reads
from idpass_server.engine.sweeper import Sweeper
from idpass_server.engine.writes import Engine
from idpass_server.failures import OperatorError
from idpass_server.hosting import observing, pages, tracing, trust, unix_sockets, wiring
from idpass_server.hosting.about import about
from idpass_server.hosting.figures import Figures, measure_lag
from idpass_server.hosting.health import check_store
from idpass_server.hosting.listening import bind, serve_pages
from idpass_server.hosting.reloading import Reloading
from idpass_server.hosting.webhooks import Hooks
from idpass_server.store import Store, StoreBroken
from idpass_server.store.opening import check_store_fits, open_store
from idpass_server.urls import shown_url

if TYPE_CHECKING:
    from idpass_server.delivery.webhooks import Webhooks

HANG_UP_S: Final = 0.5
"""Grace period for clients to read their last answers before streams are cut, seconds."""
CLOSE_S: Final = 5.0
"""Time for the store to finish what was submitted and to close, seconds."""

Ready = Callable[[Readiness, Metrics], Awaitable[None]]
OpenStore = Callable[..., Store]
"""As `open_store`."""


class Before(Protocol):
    """The server that another one takes over from."""

    async def ready(self) -> None:
        """Says that the other could serve, and returns when this one is about to stop."""

    async def let_go(self) -> None:
        """Says that new connections go to the other; returns when the database is closed."""


log = structlog.get_logger()


class PartFailed(OperatorError):
    """A part of the server ended that should not; the message says which."""


class Server:
    """
    Args:
        settings: checked already.
        clock: the server's time; None for the machine's.
        also_on: another address to serve, in plain text: a `unix:` socket for the gateway.
        before: the server that this one takes over from; None for none.
        opens: opens the database.

    Attributes:
        readiness: where each part reports whether changes can be stored.
        metrics: of all its parts.
        address: HOST:PORT or unix:PATH that calls are answered at, once it has started.
        listens: HOST:PORT of "metrics" and "probe", where they are asked for.

    Raises:
        CannotOpen: the database cannot be served.
        CannotListen: the address cannot be served.
        BadCallers: the callers file cannot be used.
        BadCertificates: TLS cannot be spoken with the files.
        BadWebhookKey: the key file of webhooks cannot be used.
        ClockWrong: the clock does not fit the stored events.
    """

    def __init__(
        self,
        settings: Settings,
        clock: Clock | None = None,
        *,
        also_on: str | None = None,
        before: Before | None = None,
        opens: OpenStore = open_store,
    ) -> None:
        self._settings = settings
        self._also_on = also_on
        self._before = before
        self._opens = opens
        self._clock = clock or Clock()
        self.readiness = Readiness()
        self.metrics = Metrics()
        self._stopping = asyncio.Event()
        self._succeeded = False
        self._broken = False
        self._failed: str | None = None
        self._unix: unix_sockets.UnixSocket | None = None
        self._hooks: Hooks | None = None
        self._pages = contextlib.ExitStack()
        self.listens: dict[str, str] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._cutting: asyncio.Task[None] | None = None
        self._reloading = Reloading()

    async def start(self, ready: Ready | None = None) -> str:
        """Begins to serve.

        Args:
            ready: called when everything is open; calls are answered once it returns.

        Returns:
            the address, with the port that was taken.
        """
        settings, before = self._settings, self._before
        certificates = trust.certificates(settings, self._reloading)
        credentials = certificates.credentials() if certificates else None
        self._tracing = await asyncio.to_thread(tracing.start)  # it imports much
        self._spans = self._tracing.spans if self._tracing is not None else None
        shares_port = settings.workers > 1 or before is not None
        self._grpc = wiring.server(settings, shares_port=shares_port)
        try:
            if before is not None:
                await self._take_over(before, credentials)
            await self._open_store()
        except BaseException:
            self._pages.close()
            raise
        try:
            await self._begin_clock()
            await self._wire()
            observing.show_files(self.metrics, self._reloading, certificates)
            if before is None:
                self._listen(credentials)
                self._publish()
            await self._open_pages()
            if ready is not None:
                await ready(self.readiness, self.metrics)
        except BaseException:
            self._pages.close()
            await self._close_webhooks()
            await self._close()
            raise
        await self._serve()
        log.info("started", **about(self._settings, self._store.software))
        if ready is None:
            log.info("serving", listen=self.address, db=shown_url(self._settings.db))
        return self.address

    async def _take_over(self, before: Before, credentials: grpc.ServerCredentials | None) -> None:
        """Does what can be done, and may fail, while the server before this one still serves.

        From then on new connections wait here.
        """
        await asyncio.to_thread(check_store_fits, self._settings.db)
        await trust.check_callers(self._settings)
        self._listen(credentials)
        await before.ready()
        self._publish()
        await before.let_go()

    async def _open_store(self) -> None:
        settings = self._settings
        store_observer, self._observer = observing.of(settings, self.metrics)
        self._store = await asyncio.to_thread(
            self._opens, settings.db, create=settings.creates, observer=store_observer
        )
        self._engine = Engine(
            self._store,
            self._clock,
            max_pending=settings.max_pending,
            on_commit=self._notify,
            on_broken=self._break,
            observer=self._observer,
            on_batch=self._spans.batch if self._spans is not None else None,
        )
        self._reads = Reads(
            self._store,
            self._engine,
            self._clock,
            threads=settings.readers,
            on_broken=self._break,
            observer=self._observer,
        )

    async def _begin_clock(self) -> None:
        newest_us = await self._reads.run(self._store.newest_event_time_us)
        self._clock.begin(newest_us, accept=self._settings.accept_clock)

    async def _wire(self) -> None:
        identity = await trust.identify(
            self._settings,
            self._reloading,
            self._store,
            self._reads,
            on_change=self._recheck,
        )
        behind = wiring.Behind(
            self._store, self._engine, self._reads, self.readiness, self._clock, self._spans
        )
        service = wiring.service(self._settings, self._grpc, identity, behind, self.metrics)
        self._calls, self._watchers, self._health, self._hooks = service

    def _listen(self, credentials: grpc.ServerCredentials | None) -> None:
        """Opens gRPC's addresses. Calls wait there until it starts."""
        settings = self._settings
        path = addresses.unix_path(settings.listen)
        if path is None:
            host, _ = addresses.split(settings.listen)
            self.address = addresses.join(host, bind(self._grpc, settings.listen, credentials))
        else:
            bound = functools.partial(bind, self._grpc, credentials=credentials)
            self._unix = self._pages.enter_context(unix_sockets.UnixSocket(path, bound))
            self.address = f"unix:{path}"
        if self._also_on is not None:
            bind(self._grpc, self._also_on)

    def _publish(self) -> None:
        if self._unix is not None:
            self._unix.publish(takes_over=self._before is not None)

    async def _open_pages(self) -> None:
        settings = self._settings
        # The metrics of several workers are put together by their supervisor, which shows them.
        own = settings.metrics if settings.workers == 1 else None
        for name, listen, answers in (
            ("metrics", own, pages.metrics(self.metrics.registry)),
            ("probe", settings.probe, pages.probe(self.readiness.checks)),
        ):
            if listen is not None:
                self._pages.enter_context(answers)
                self.listens[name] = await serve_pages(name, listen, answers)

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()

        def tell(news: Mapping[str, int]) -> None:
            loop.call_soon_threadsafe(self._notify, news)

        self._store.listen(self._accounts_of_interest, tell)
        self.readiness.set("store", None)
        self.readiness.set("schema", None)  # or it could not have been opened
        self.readiness.set(DRAINING, None)
        await self._grpc.start()
        sweeper = Sweeper(self._reads, self._clock, self.readiness)
        self._run("check of the store", check_store(self._engine, self.readiness))
        self._run("sweeper", sweeper.run())
        self._run("reloading", self._reloading.run())
        if self._hooks is not None:
            self._run("webhooks", self._hooks.delivering.run())
        if (age_s := self._settings.erase_after_s) is not None:
            eraser = Eraser(self._store, self._reads, self._engine, self._clock, age_s=age_s)
            self._run("eraser", eraser.run())
        if self._settings.metrics is not None:
            figures = Figures(self._store, self._reads, self._clock, self.metrics, self._observer)
            self._run("figures of the disk", figures.read_disk())
            self._run("figures of the store", figures.read_store())
            self._run("measuring of the event loop", measure_lag(self.metrics))

    def _run(self, part: str, work: Coroutine[Any, Any, None]) -> None:
        """Runs a part beside the calls; if it ends, the server stops."""

        def ended(task: asyncio.Task[None]) -> None:
            if not task.cancelled():
                log.critical("part_failed", part=part, exc_info=task.exception())
                self._failed = part
                self.stop()

        task = asyncio.create_task(work)
        task.add_done_callback(ended)
        self._tasks.append(task)

    def drain(self) -> None:
        """Turns health NOT_SERVING and ends the streams; calls go on."""
        if not self.readiness.draining:
            log.info("draining", seconds=self._settings.drain_s)
            self.readiness.set(DRAINING, "the server is stopping")
            self._watchers.close()

    def stop(self, *, succeeded: bool = False) -> None:
        """Asks the server to stop, which `wait` carries out.

        Args:
            succeeded: another server answers at the address already, so that no call needs to be
                refused.
        """
        self._succeeded = succeeded
        self._stopping.set()

    async def reload(self) -> None:
        """Reads the callers file and the certificates again."""
        await self._reloading.reload()

    async def wait(self) -> bool:
        """Serves until asked to stop, and stops.

        Returns:
            false if the store broke, or did not close within CLOSE_S.

        Raises:
            PartFailed: a part other than the store ended that should not.
        """
        try:
            await self._stopping.wait()
            self.drain()
            await asyncio.gather(self._hang_up(), self._close_webhooks())
        finally:
            self._calls.log.write()
            for task in self._tasks:
                task.cancel()
            self._pages.close()
            closed = await self._close()
            if self._cutting is not None and not self._succeeded:  # a successor is not kept waiting
                await self._cutting
        log.info("stopped")
        if self._failed is not None:
            raise PartFailed(f"stopped, since a part of the server failed: {self._failed}")
        return closed and not self._broken

    async def _hang_up(self) -> None:
        """Lets calls in flight finish, and begins to close the connections."""
        patience_s = 0.0 if self._broken else self._settings.drain_s
        if patience_s:
            await self._calls.drain(refuse=not self._succeeded)
        finishing = asyncio.create_task(self._grpc.stop(patience_s + HANG_UP_S))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._calls.finished(), patience_s)
        self._cutting = asyncio.create_task(self._cut(finishing))
        if self._calls.in_flight:
            await self._cutting
        # Otherwise no call needs the store any more, and a successor may be waiting for it.

    async def _cut(self, finishing: "asyncio.Task[None]") -> None:
        """Cuts the connections that have not closed by themselves."""
        await asyncio.wait([finishing], timeout=HANG_UP_S)
        cutting = asyncio.create_task(self._grpc.stop(None))
        await asyncio.wait([finishing, cutting], timeout=HANG_UP_S)

    async def hung_up(self) -> None:
        """Waits until the connections are closed, for which `wait` keeps no successor waiting."""
        if self._cutting is not None:
            await self._cutting

    @property
    def webhooks(self) -> "Webhooks | None":
        """What manages webhooks; None without --webhook-key."""
        return self._hooks.webhooks if self._hooks is not None else None

    async def _close_webhooks(self) -> None:
        if self._hooks is None:
            return
        patience_s = 0.0 if self._broken else self._settings.drain_s
        if self._succeeded:  # callers wait, and the next server sends again what is cut here
            patience_s = min(patience_s, HANG_UP_S)
        try:
            await self._hooks.delivering.close(patience_s)
        except Exception:
            log.exception("webhooks_failed")  # no reason to leave the rest of the way out

    def _accounts_of_interest(self) -> list[str]:
        accounts = self._watchers.accounts()
        return accounts if self._hooks is None else accounts + self._hooks.delivering.accounts()

    def _notify(self, last_sequences: Mapping[str, int]) -> None:
        self._watchers.notify(last_sequences)
        if self._hooks is not None:
            self._hooks.delivering.notify(last_sequences)

    def _recheck(self) -> None:
        self._watchers.recheck()

    def _break(self, _error: StoreBroken) -> None:
        self._broken = True
        # Time for the answers that are due, those of unknown outcome among them, to go out.
        asyncio.get_running_loop().call_later(0.1, self._stopping.set)

    async def _close(self) -> bool:
        """Closes the store, and exports the last spans meanwhile. Returns as `_close_store`."""
        if self._tracing is None:
            return await self._close_store()
        closed, _ = await asyncio.gather(self._close_store(), self._tracing.close())
        return closed

    async def _close_store(self) -> bool:
        """Stores what was submitted, and closes. Returns false if it does not within CLOSE_S."""
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._engine.stop()
                await asyncio.to_thread(self._reads.close)
                await asyncio.to_thread(self._store.close)
        except TimeoutError:
            log.critical("store_not_closed", seconds=CLOSE_S)
            return False
        return True
