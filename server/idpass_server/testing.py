"""The real server for callers' tests: in this process, on a free port, without mocks.

    with running_server() as server:
        pass_id = server.put_pass("opened")
        client = IdPassClient(server.address)
        assert client.cancel(pass_id).fee_refunded
        server.move_clock(days=8)

With pytest, the fixture `idpass_server` is such a server, a new one for each test.
"""

import asyncio
import base64
import contextlib
import importlib.util
import queue
import secrets
import tempfile
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Final

import grpc
import structlog
import uvloop

from idpass.v1 import id_pass_pb2 as pb
from idpass.v1 import id_pass_service_pb2 as service_pb
from idpass.v1.id_pass_service_pb2_grpc import IdPassServiceStub
from idpass_server import logs
from idpass_server.api.identity import DEMO
from idpass_server.config import Settings
from idpass_server.engine.clock import Clock, wall_us
from idpass_server.hosting.server import Server
from idpass_server.rules import domain
from idpass_server.rules.records import Money, Status
from idpass_server.store.sqlite.store import SqliteStore

START_S: Final = 30.0
"""Time for the server to start, seconds."""
CALL_S: Final = 10.0
"""Deadline of a call that prepares a test, seconds."""
FEE: Final = Money("AUD", 4_500_000)
"""Fee for a pass, unless a test sets another."""


class RunningServer:
    """A server in a thread of this process.

    Args:
        settings: checked already.
        clock: the server's time; None for the machine's, which `move_clock` moves.

    Attributes:
        address: HOST:PORT, for a client.
        server: what runs, for tests that look inside.
        loop: event loop of the server, on a thread of its own.
        healthy: whether its store was in order to the end; None while it runs.

    Raises:
        Exception: whatever keeps it from starting.
    """

    server: Server
    loop: asyncio.AbstractEventLoop

    def __init__(self, settings: Settings, clock: Clock | None = None) -> None:
        self._settings = settings
        self._clock_offset_us = 0
        self._clock = clock or Clock(self._now_us, self._now_us)
        self.healthy: bool | None = None
        started: queue.SimpleQueue[str | BaseException] = queue.SimpleQueue()
        self._thread = threading.Thread(
            target=lambda: uvloop.run(self._serve(started)), name="idpass-server", daemon=True
        )
        self._thread.start()
        address = started.get(timeout=START_S)
        if isinstance(address, BaseException):
            raise address
        self.address = address
        self._channel = grpc.insecure_channel(address, [("grpc.enable_http_proxy", 0)])
        self._stub = IdPassServiceStub(self._channel)

    def put_pass(
        self,
        status: str = "new",
        *,
        applicant_reference: str = "",
        link_validity_days: int = 0,
    ) -> str:
        """Registers a pass and brings it into a status, by the transitions that lead there.

        Args:
            status: a word such as "in_progress".
            applicant_reference: the business's own reference for the applicant.
            link_validity_days: 1 to 14; 0 means 7.

        Returns:
            its id.

        Raises:
            ValueError: there is no such status.
            grpc.RpcError: the server refused a call.
        """
        way = _way(Status(status))
        registered = self._stub.RegisterIdPass(
            service_pb.RegisterRequest(
                applicant_reference=applicant_reference, link_validity_days=link_validity_days
            ),
            timeout=CALL_S,
        )
        pass_id = registered.id_pass.id
        for step in way:
            if step is Status.CANCELLED:
                self._stub.CancelIdPass(service_pb.CancelRequest(id=pass_id), timeout=CALL_S)
            else:
                number = pb.IdPassStatus.Value(f"ID_PASS_STATUS_{step.name}")
                self._stub.AdvanceIdPass(
                    service_pb.AdvanceRequest(id=pass_id, to_status=number), timeout=CALL_S
                )
        return pass_id

    def move_clock(self, *, days: float = 0, hours: float = 0, seconds: float = 0) -> None:
        """Moves the server's clock forward: links expire, passes become idle.

        Args:
            days, hours, seconds: added to each other.

        Raises:
            ValueError: the time is negative; a server's clock never runs backwards.
        """
        by = timedelta(days=days, hours=hours, seconds=seconds)
        if by < timedelta():
            raise ValueError(f"the clock cannot be moved by {by}: it never runs backwards")
        self._clock_offset_us += by // timedelta(microseconds=1)

    def stop(self) -> None:
        """Stops the server as SIGTERM would: calls in flight finish, streams end."""
        self._channel.close()
        if self._thread.is_alive():
            self.loop.call_soon_threadsafe(self.server.stop)
            self._thread.join()

    def _now_us(self) -> int:
        return wall_us() + self._clock_offset_us

    async def _serve(self, started: "queue.SimpleQueue[str | BaseException]") -> None:
        self.loop = asyncio.get_running_loop()
        try:
            self.server = Server(self._settings, self._clock)
            address = await self.server.start()
        except BaseException as error:  # noqa: BLE001 raised in the thread that waits for it
            started.put(error)
            return
        started.put(address)
        self.healthy = await self.server.wait()


@contextlib.contextmanager
def running_server(*, slot_limit: int = 1_000_000, fee: Money = FEE) -> Iterator[RunningServer]:
    """Runs a server with an empty database of its own, deleted at the end.

    Every caller acts for the account `demo`. With the extra `webhooks` it sends webhooks, also to
    receivers on this machine.

    Args:
        slot_limit: number of passes that may be in flight.
        fee: charged for each pass.
    """
    if not structlog.is_configured():
        logs.configure_lines("error")
    with tempfile.TemporaryDirectory(prefix="idpass-") as folder:
        db = Path(folder, "idpass.db")
        store = SqliteStore(db)
        try:
            store.set_account(DEMO.account, slot_limit=slot_limit, fee=fee)
        finally:
            store.close()
        key = _webhook_key(Path(folder))
        settings = Settings(
            listen="127.0.0.1:0",
            db=f"sqlite:///{db}",
            drain_s=1.0,
            rate_per_s=0,  # tests call as fast as they can, all as one caller
            webhook_key=key,
            webhook_allow=key and "127.0.0.0/8,::1/128",
        )
        server = RunningServer(settings)
        try:
            yield server
        finally:
            server.stop()


def _webhook_key(folder: Path) -> str | None:
    """Makes a key in a file of the folder; None without the extra that sends webhooks."""
    if importlib.util.find_spec("aiohttp") is None:
        return None
    path = folder / "webhook.key"
    path.touch(mode=0o600)
    path.write_bytes(base64.b64encode(secrets.token_bytes(32)) + b"\n")
    return str(path)


def _way(to_status: Status) -> tuple[Status, ...]:
    """The shortest path of statuses from NEW."""
    ways: dict[Status, tuple[Status, ...]] = {Status.NEW: ()}
    ahead = [Status.NEW]
    for status in ahead:
        for after in domain.TRANSITIONS.get(status, ()):
            if after not in ways:
                ways[after] = (*ways[status], after)
                ahead.append(after)
    return ways[to_status]
