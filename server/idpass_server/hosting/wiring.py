"""Wires what lies between gRPC and the store: admission, watchers, metrics, and the services."""

from typing import TYPE_CHECKING, NamedTuple

import grpc

from idpass_server.api import methods, wire
from idpass_server.api.calls import Calls
from idpass_server.api.identity import Identity
from idpass_server.api.metrics import Metrics
from idpass_server.api.rate import Limit
from idpass_server.api.servicer import IdPassServicer
from idpass_server.api.watch import Watchers
from idpass_server.api.webhook_servicer import WebhookServicer
from idpass_server.config import Settings
from idpass_server.engine.clock import Clock
from idpass_server.engine.readiness import Readiness
from idpass_server.engine.reads import Reads
from idpass_server.engine.writes import Engine
from idpass_server.hosting import reflection, webhooks
from idpass_server.hosting.channel_options import options
from idpass_server.hosting.health import Health
from idpass_server.store import Store

if TYPE_CHECKING:
    from idpass_server.api.spans import Spans  # an extra may be missing


class Behind(NamedTuple):
    """What a service stands on.

    Args:
        store: only its figures are shown; the engine and the reads use it.
        engine: stores changes.
        reads: read.
        readiness: told by the health service.
        clock: the server's time.
        spans: trace calls; None for no tracing.
    """

    store: Store
    engine: Engine
    reads: Reads
    readiness: Readiness
    clock: Clock
    spans: "Spans | None" = None


class Service(NamedTuple):
    """The parts of a service that have a life of their own."""

    calls: Calls
    watchers: Watchers
    health: Health
    hooks: webhooks.Hooks | None


def server(settings: Settings, *, shares_port: bool) -> grpc.aio.Server:
    """Makes a gRPC server that has neither a port nor a service yet.

    Args:
        settings: its limits.
        shares_port: whether another process listens on its port meanwhile.
    """
    # maximum_concurrent_rpcs is left alone: it costs each call 7 %, and `Calls` and `Watchers`
    # have limits whose refusals say more.
    return grpc.aio.server(options=options(settings, shares_port=shares_port))


def service(
    settings: Settings,
    to: grpc.aio.Server,
    identity: Identity,
    behind: Behind,
    metrics: Metrics,
) -> Service:
    """Adds the services to a gRPC server.

    Args:
        settings: their limits.
        to: the server, which has not been started.
        identity: how callers are known.
        behind: what it stands on.
        metrics: count what it does.

    Raises:
        BadWebhookKey: the key file of webhooks cannot be used.
    """
    calls = Calls(
        identity,
        metrics,
        max_calls=settings.max_calls,
        max_streams_per_account=settings.max_watchers_per_account,
        limit=Limit(settings.default_rate_per_s, settings.burst),
        logged=settings.log_calls,
        spans=behind.spans,
    )
    watchers = Watchers(
        behind.reads,
        max_watchers=settings.max_watchers,
        max_per_account=settings.max_watchers_per_account,
        busy=lambda: calls.in_flight > 0,
    )
    hooks = webhooks.hooks(
        settings,
        webhooks.Behind(behind.store, behind.engine, behind.reads, behind.clock),
        metrics,
        busy=lambda: calls.in_flight > 0,
    )
    servicer = IdPassServicer(
        engine=behind.engine, reads=behind.reads, watchers=watchers, metrics=metrics
    )
    webhook_servicer = WebhookServicer(hooks and hooks.webhooks, behind.clock)
    health = Health(behind.readiness)
    _show(metrics, calls, watchers, behind)
    to.add_generic_rpc_handlers(
        (
            methods.handlers(wire.ID_PASSES, servicer, calls, behind.reads.history),
            methods.handlers(wire.WEBHOOKS, webhook_servicer, calls, behind.reads.history),
            health.handlers(),
        )
    )
    if settings.reflects:
        reflection.enable(to)
    to.add_generic_rpc_handlers((_Others(metrics),))
    return Service(calls, watchers, health, hooks)


class _Others(grpc.GenericRpcHandler):
    """Counts calls of methods that no other handler has. Args: metrics: where it does."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> None:
        self._metrics.started(handler_call_details.method)


def _show(metrics: Metrics, calls: Calls, watchers: Watchers, behind: Behind) -> None:
    """Adds the gauges, whose values are read whenever Prometheus asks."""
    metrics.gauge("calls_in_flight", "Unary calls in flight", lambda: calls.in_flight)
    metrics.gauge("watchers", "Open WatchIdPasses streams", lambda: watchers.open)
    metrics.gauge(
        "failed_checkpoints",
        "Times that the WAL could not be folded into the SQLite file",
        lambda: behind.store.failed_checkpoints,
    )
    metrics.gauge(
        "watchers_lag_events_max",
        "Lag of the watcher furthest behind, in events",
        lambda: watchers.lag_events_max,
        over_workers="max",
    )
    metrics.gauge("pending_commands", "Changes waiting to be stored", lambda: behind.engine.pending)
    metrics.gauge(
        "store_up",
        "Whether a change could be stored: 0 or 1",
        lambda: behind.readiness.stores,
        over_workers="min",
    )
