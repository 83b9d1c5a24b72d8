"""grpc.health.v1, as other services and load balancers query it.

"" and the service's own name say whether a change can be stored now; "liveness" says only that
the process answers. grpc_health's own servicer is not used: it writes to its watchers while it
holds a lock, so that one that does not read blocks all the others, and the server's stop.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Final

import grpc
import structlog
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from grpc_health.v1 import health_pb2

from idpass_server.api import wire
from idpass_server.api.wire import SERVICES
from idpass_server.engine.readiness import Readiness
from idpass_server.engine.writes import Engine
from idpass_server.rules.refusals import InvalidRequest, StoreUnavailable
from idpass_server.store import cause_of

INTERVAL_S: Final = 1.0
"""Pause between checks of the store, seconds."""
CHECK_S: Final = 2.0
"""Time after which a check of the store without an answer counts as failed, seconds."""
LIVENESS: Final = "liveness"
"""Name of the check that only says whether the process answers."""
MAX_STREAMS: Final = 500
"""Limit of open Watch streams of all connections."""
MAX_STREAMS_PER_CONNECTION: Final = 10
"""Limit of open Watch streams of one connection."""
MAX_STREAM_AGE_S: Final = 3_600.0
"""Age at which a Watch stream ends, seconds."""

SERVING: Final[int] = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING: Final[int] = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN: Final[int] = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN

_SERVICE: Final[ServiceDescriptor] = health_pb2.DESCRIPTOR.services_by_name["Health"]

log = structlog.get_logger()


async def check_store(engine: Engine, readiness: Readiness) -> None:
    """Reports every INTERVAL_S whether a change could be stored, until cancelled."""
    while True:
        readiness.set("store", await _problem(engine))
        await asyncio.sleep(INTERVAL_S)


async def _problem(engine: Engine) -> str | None:
    try:
        await engine.check(CHECK_S)
    except TimeoutError:
        return f"no answer for {CHECK_S:g} s"
    except StoreUnavailable as refusal:
        cause = cause_of(refusal)
        return f"{refusal}: {cause}" if cause else str(refusal)
    return None


class Health:
    """The servicer of grpc.health.v1. Args: readiness: what it reports."""

    def __init__(self, readiness: Readiness) -> None:
        self._readiness = readiness
        self._open: Counter[str] = Counter()

    def handlers(self) -> grpc.GenericRpcHandler:
        """Makes gRPC's handlers for every rpc of the service."""
        by_method: dict[str, Any] = {}
        for method in _SERVICE.methods:
            handle = grpc.unary_unary_rpc_method_handler
            if method.server_streaming:
                handle = grpc.unary_stream_rpc_method_handler
            by_method[method.name] = handle(
                _reading(method, getattr(self, method.name)),
                response_serializer=wire.writer(method),
            )
        return grpc.method_handlers_generic_handler(_SERVICE.full_name, by_method)

    async def Check(self, request: Any, context: Any) -> health_pb2.HealthCheckResponse:
        status = self._status(request.service)
        if status == SERVICE_UNKNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND, "this server has no such service")
        return health_pb2.HealthCheckResponse(status=status)

    async def List(self, _request: Any, _context: Any) -> health_pb2.HealthListResponse:
        statuses = {
            name: health_pb2.HealthCheckResponse(status=self._status(name))
            for name in ("", *SERVICES, LIVENESS)
        }
        return health_pb2.HealthListResponse(statuses=statuses)

    async def Watch(self, request: Any, context: Any) -> None:
        peer = context.peer()  # one connection
        # Nothing tells connections to a Unix socket apart.
        most = MAX_STREAMS if peer == "unix:" else MAX_STREAMS_PER_CONNECTION
        if self._open.total() >= MAX_STREAMS or self._open[peer] >= most:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many streams are open")
        self._open[peer] += 1
        try:
            # A reader that reads nothing blocks only its own write, which this ends as well.
            async with asyncio.timeout(MAX_STREAM_AGE_S):
                await self._tell(request.service, context)
            reason = "the server is stopping"
        except TimeoutError:
            reason = "the stream has reached its maximum age; open another"
        finally:
            self._open[peer] -= 1
            if not self._open[peer]:
                del self._open[peer]
        await context.abort(grpc.StatusCode.UNAVAILABLE, reason)

    async def _tell(self, name: str, context: Any) -> None:
        """Writes the status whenever it changes, until the server stops."""
        told: int | None = None
        while True:
            changed = self._readiness.changed()
            draining = self._readiness.draining
            status = self._status(name)
            if status != told:
                await context.write(health_pb2.HealthCheckResponse(status=status))
                told = status
            if draining:
                return
            await changed

    def _status(self, name: str) -> int:
        if name == LIVENESS:
            return SERVING
        if name not in {"", *SERVICES}:
            return SERVICE_UNKNOWN
        return SERVING if self._readiness.ready else NOT_SERVING


def _reading(
    method: MethodDescriptor, answer: Callable[[Any, Any], Awaitable[Any]]
) -> Callable[[bytes, Any], Awaitable[Any]]:
    """Parses requests before they are answered; gRPC itself would tell the parser's text."""
    read = wire.reader(method)

    async def handle(body: bytes, context: Any) -> Any:
        try:
            request = read(body)
        except InvalidRequest as refusal:
            text = f"The request is not valid: {refusal}"
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, text)
        return await answer(request, context)

    return handle
