"""The trace that a call belongs to, from the caller's OpenTelemetry, if it uses that.

OpenTelemetry is no dependency, and is never imported before the caller has: a process without it
has no trace to pass on.
"""

import re
import sys
from typing import Any

# What OpenTelemetry's API is made of; whoever has a span or baggage has imported it.
_CONTEXT = "opentelemetry.context"

# What gRPC takes as metadata, less what is its own or binary.
_KEY = re.compile(r"(?!grpc-)[0-9a-z_.-]{1,64}(?<!-bin)")
_VALUE = re.compile(r"[ -~]*")
MAX_CHARACTERS = 1_024
"""Length of the keys and values that are sent, together. Baggage may have 8,192 characters, which
is all the metadata that the service takes, and fails no call."""

Metadata = tuple[tuple[str, str], ...]


def metadata() -> Metadata:
    """The metadata that passes on the current context, as the caller's propagators write it.

    What callers give themselves comes before it; see `Endpoint.metadata`.
    """
    context = sys.modules.get(_CONTEXT)
    if context is None:
        return ()
    try:
        return _fitting(_injected(context))
    except Exception:  # noqa: BLE001 a propagator of someone's own; tracing fails no call
        return ()


def _injected(context: Any) -> dict[str, str]:
    carrier: dict[str, str] = {}
    if context.get_current():  # empty outside of any span
        from opentelemetry import propagate  # noqa: PLC0415 its caller has it

        propagate.inject(carrier)
    return carrier


def _fitting(carrier: dict[str, str]) -> Metadata:
    found = []
    room = MAX_CHARACTERS
    for name, value in carrier.items():
        key = name.lower()
        if key == "authorization" or not (_KEY.fullmatch(key) and _VALUE.fullmatch(value)):
            continue
        if len(key) + len(value) <= room:
            room -= len(key) + len(value)
            found.append((key, value))
    return tuple(found)
