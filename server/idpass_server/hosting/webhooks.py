"""Webhooks as a server has them: the key file, and how the parts of `delivery` come together."""

import importlib.util
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

from idpass_server import addresses, extras
from idpass_server.api import responses
from idpass_server.api.metrics import Metrics
from idpass_server.config import Settings
from idpass_server.delivery.signing import BadKeys, Secrets, new_key, parse_keys
from idpass_server.engine.clock import Clock
from idpass_server.engine.reads import Reads
from idpass_server.engine.writes import Engine
from idpass_server.failures import OperatorError
from idpass_server.gateway import messages
from idpass_server.hosting import files
from idpass_server.rules.records import Event, Pass
from idpass_server.store import Store

if TYPE_CHECKING:
    from idpass_server.delivery.delivering import Delivering
    from idpass_server.delivery.figures import Figures
    from idpass_server.delivery.webhooks import Webhooks


class BadWebhookKey(OperatorError):
    """The key file of webhooks cannot be used; the message says why and what to do."""


class Hooks(NamedTuple):
    """The webhooks of a server.

    Attributes:
        webhooks: what the API calls.
        delivering: the part that delivers.
    """

    webhooks: "Webhooks"
    delivering: "Delivering"


class Trial(TypedDict, total=False):
    """Settings of a server that is deleted after its use."""

    webhook_key: str
    webhook_allow: str


def for_a_trial(folder: Path) -> Trial:
    """Settings by which a server sends webhooks, also to receivers on this machine.

    Args:
        folder: for the key file.

    Returns:
        nothing to set where the extra that sends webhooks is missing.
    """
    if importlib.util.find_spec("aiohttp") is None:
        return {}
    path = folder / "webhook.key"
    path.touch(mode=0o600)
    path.write_bytes(new_key())
    return {"webhook_key": str(path), "webhook_allow": "127.0.0.0/8,::1/128"}


class Behind(NamedTuple):
    """What webhooks stand on."""

    store: Store
    engine: Engine
    reads: Reads
    clock: Clock


def hooks(
    settings: Settings, behind: Behind, metrics: Metrics, busy: Callable[[], bool]
) -> Hooks | None:
    """Makes a server's webhooks; None without --webhook-key. Call it on the event loop.

    Args:
        settings: name the key file, and the networks that are allowed.
        behind: what they stand on.
        metrics: where they are counted.
        busy: returns whether unary calls are in flight.

    Raises:
        BadWebhookKey: the key file cannot be used.
    """
    if settings.webhook_key is None:
        return None
    try:
        # The HTTP client is an extra.
        from idpass_server.delivery import (  # noqa: PLC0415
            delivering,
            figures,
            outbox,
            posting,
            sending,
            webhooks,
        )
        from idpass_server.delivery.addresses import Addresses  # noqa: PLC0415
    except ImportError as error:
        raise OperatorError(extras.missing("--webhook-key", error, "webhooks")) from error
    secrets = Secrets(read_keys(Path(settings.webhook_key)))
    allowed = settings.webhook_allow
    judge = Addresses(addresses.networks("--webhook-allow", allowed) if allowed else ())
    counted = figures.Figures(metrics.registry)
    delivers = delivering.Delivering(
        delivering.Behind(*behind),
        outbox=outbox.Outbox(behind.store, behind.reads, show),
        posts=posting.Posts(sending.Sender(judge), secrets, behind.clock, counted),
        figures=counted,
        busy=busy,
    )
    _show(metrics, counted)
    manages = webhooks.Webhooks(
        **behind._asdict(), secrets=secrets, addresses=judge, outgoing=delivers
    )
    return Hooks(manages, delivers)


def _show(metrics: Metrics, counted: "Figures") -> None:
    """Adds the gauges. One process delivers, and all others have zeros."""
    for name, help_text, value in (
        (
            "lag_events_max",
            "Lag of the active webhook furthest behind, in events",
            lambda: counted.lag_events_max,
        ),
        (
            "lag_seconds_max",
            "Age of the oldest event that an active webhook has yet to take",
            lambda: counted.lag_seconds_max,
        ),
        ("paused", "Webhooks that are paused", lambda: counted.paused),
    ):
        metrics.gauge(f"webhook_{name}", help_text, value, over_workers="max")


def read_keys(path: Path) -> list[bytes]:
    """Reads the keys in a key file.

    Raises:
        BadWebhookKey: it cannot be read, can be read by everyone or written by others, or has
            something else in it.
    """
    try:
        content, mode = files.read(path)
        if mode & stat.S_IROTH:
            raise BadWebhookKey(
                f"{path} can be read by every user (mode {mode:04o}); run: chmod o-r {path}"
            )
        return parse_keys(content)
    except OSError as error:
        raise BadWebhookKey(
            f"{path} cannot be read ({error.strerror}); make a key with: "
            f"idpass-server webhook-key {path}"
        ) from error
    except files.WritableByOthers as error:
        raise BadWebhookKey(f"{path} {error}") from error
    except BadKeys as error:
        raise BadWebhookKey(
            f"{path} {error}; a key file is made with: idpass-server webhook-key FILE"
        ) from error


def show(event: Event, id_pass: Pass | None) -> dict[str, Any]:
    """An event and its pass as HTTP/JSON shows them."""
    shown = {"event": messages.render(responses.event(event))}
    if id_pass is not None:
        shown["id_pass"] = messages.render(responses.id_pass(id_pass))
    return shown
