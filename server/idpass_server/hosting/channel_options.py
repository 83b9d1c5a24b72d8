"""What gRPC itself is told: limits that hold before any of our own code runs.

A connection that breaks HTTP/2's rules is closed by gRPC. What keeps to the rules and still
does harm is bounded here: connections, streams on each, the size of what is received, and how
long a connection may stand without use. Further bounds are gRPC's own: answers to pings, settings
and resets that a peer does not read (10,000 frames, then it is read no further), new streams in
one read (32). Its resource quota, which would bound the memory of all connections together, is
out of Python's reach: half-sent messages may take up to connections x streams x message size.
"""

from typing import Any, Final

from idpass_server.config import Settings

PING_STRIKES: Final = 2
"""Pings that come too soon before the connection is closed ("too_many_pings")."""

MAX_UNTAKEN: Final = 800
"""Calls that gRPC has received and the service has not taken; gRPC cancels further ones at once.

This keeps the service up when it is offered more than it can do: a call that is cancelled here
costs a twentieth of one that is answered, a refusal of our own most of one. The queue is first in,
first out, so that its length is also the longest wait: 0.3 s at 3,000 calls a second, well within
callers' deadlines. A much shorter one would turn away clients that begin hundreds of calls at once.
"""

CONNECTION_GRACE_S: Final = 60.0
"""So long calls on a connection that has had its time may take; watchers then come again."""

_CONSTANT: Final[list[tuple[str, Any]]] = [
    # A page of 1,000 passes with the longest notes fits.
    ("grpc.max_send_message_length", 4_000_000),
    # Clients may keep a quiet stream alive by pings; a client that is gone is noticed.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_ping_strikes", PING_STRIKES),
    # Between the first, "soft" limit and the second gRPC cancels some at random: both are the same.
    ("grpc.server.max_pending_requests", MAX_UNTAKEN),
    ("grpc.server.max_pending_requests_hard_limit", MAX_UNTAKEN),
]


def options(settings: Settings) -> list[tuple[str, Any]]:
    """The channel arguments of a server."""
    handshake_ms = _ms(settings.handshake_timeout_s)
    return [
        *_CONSTANT,
        # But among workers, a second server on the port would start silently and take half of
        # the calls.
        ("grpc.so_reuseport", int(settings.workers > 1)),
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        # Between the first, "soft" limit and the second gRPC refuses at random, more of the
        # larger ones: to be the same each time they are the same.
        ("grpc.max_metadata_size", settings.max_metadata_bytes),
        ("grpc.absolute_max_metadata_size", settings.max_metadata_bytes),
        ("grpc.max_allowed_incoming_connections", settings.max_connections),
        # Streams count until their memory is freed, or resetting them at once would get around
        # the limit. A client at the limit cannot know that, and has calls refused
        # (REFUSED_STREAM): it is to be no lower than what clients do in earnest.
        ("grpc.max_concurrent_streams", settings.max_streams),
        ("grpc.http.overload_protection", 1),
        # Until TLS and the client's preface are through; then until our settings are acknowledged.
        ("grpc.server_handshake_timeout_ms", handshake_ms),
        ("grpc.http2.settings_timeout", handshake_ms),
        ("grpc.max_connection_idle_ms", _ms(settings.max_idle_s)),
        # Whoever is no longer to be let in leaves, and clients find servers that are new.
        ("grpc.max_connection_age_ms", _ms(settings.max_connection_age_s)),
        ("grpc.max_connection_age_grace_ms", _ms(CONNECTION_GRACE_S)),
        (
            "grpc.http2.min_recv_ping_interval_without_data_ms",
            _ms(settings.min_ping_interval_s),
        ),
    ]


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))
