"""gRPC's channel arguments: limits that hold before any of our own code runs.

gRPC closes a connection that breaks HTTP/2's rules. What keeps to the rules and still does harm is
bounded here: connections, streams on each, the size of what is received, and idle time. Further
bounds are gRPC's own: replies to pings, settings and resets that a peer does not read (after 10,000
frames gRPC stops reading from it), and new streams in one read (32). Its resource quota, which
would bound the memory of all connections together, is out of Python's reach: half-sent messages may
take up to connections x streams x message size.
"""

from typing import Any, Final

from idpass_server.config import Settings

PING_STRIKES: Final = 2
"""Pings that may come too early before the connection is closed ("too_many_pings")."""

MAX_UNTAKEN: Final = 800
"""Calls that gRPC has received and the service has not taken; gRPC cancels further ones at once.

This keeps the service up under overload: a call cancelled here costs a twentieth of one that is
answered, while a refusal of our own costs most of one. The queue is first in, first out, so its
length bounds the wait: 0.3 s at 3,000 calls a second, well within callers' deadlines. A much
shorter queue would turn away clients that start hundreds of calls at once.
"""

CONNECTION_GRACE_S: Final = 60.0
"""Grace period for calls still open after max_connection_age, seconds; watchers then reconnect."""

_CONSTANT: Final[list[tuple[str, Any]]] = [
    # Fits a page of 1,000 passes with the longest notes.
    ("grpc.max_send_message_length", 4_000_000),
    # Clients may keep a quiet stream alive by pings; ours detect a client that is gone.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_ping_strikes", PING_STRIKES),
    # Between the soft limit and the hard one gRPC cancels calls at random, so both are equal.
    ("grpc.server.max_pending_requests", MAX_UNTAKEN),
    ("grpc.server.max_pending_requests_hard_limit", MAX_UNTAKEN),
]


def options(settings: Settings, *, shares_port: bool = False) -> list[tuple[str, Any]]:
    """The channel arguments of a gRPC server.

    Args:
        settings: its limits.
        shares_port: whether another process listens on its port meanwhile.
    """
    handshake_ms = _ms(settings.handshake_timeout_s)
    return [
        *_CONSTANT,
        # Only workers share a port, and a server with its successor: otherwise a second server on
        # it would start silently and take half of the calls.
        ("grpc.so_reuseport", int(shares_port)),
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        # Between the soft limit and the hard one gRPC refuses at random, so both are equal.
        ("grpc.max_metadata_size", settings.max_metadata_bytes),
        ("grpc.absolute_max_metadata_size", settings.max_metadata_bytes),
        ("grpc.max_allowed_incoming_connections", settings.max_connections),
        # Streams count until their memory is freed, so that resetting them does not get around
        # the limit. A client at the limit cannot know that, and sees REFUSED_STREAM: the limit
        # must not be lower than what legitimate clients use.
        ("grpc.max_concurrent_streams", settings.max_streams),
        ("grpc.http.overload_protection", 1),
        # For TLS and the client's preface; then for the client to acknowledge our settings.
        ("grpc.server_handshake_timeout_ms", handshake_ms),
        ("grpc.http2.settings_timeout", handshake_ms),
        ("grpc.max_connection_idle_ms", _ms(settings.max_idle_s)),
        # Ends the connections of revoked callers, and lets clients find new servers.
        ("grpc.max_connection_age_ms", _ms(settings.max_connection_age_s)),
        ("grpc.max_connection_age_grace_ms", _ms(CONNECTION_GRACE_S)),
        (
            "grpc.http2.min_recv_ping_interval_without_data_ms",
            _ms(settings.min_ping_interval_s),
        ),
    ]


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))
