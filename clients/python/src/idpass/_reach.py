"""Whether a call left this machine, and what to do if it could not. No I/O in here."""

from typing import Any

import grpc

from idpass import _status

# How gRPC's messages begin for a call that was not given to any connection. Only the words tell: no
# code or field does. A server that used the same words would also send metadata.
_NEVER_SENT = (
    "failed to connect to all addresses",
    "errors resolving ",
    "DNS resolution failed",
)

_CLOSED = "reset by peer|Socket closed"
_HINTS_PLAIN = {
    "http1.x": "Something that speaks HTTP/1 answers there: give the address of gRPC.",
    _CLOSED: "If the service speaks TLS, give tls=True, or tls='ca.pem' for a private authority "
    "(idpass --tls, --ca).",
}
_HINTS_TLS = {
    "WRONG_VERSION_NUMBER": "The service seems to speak plain text: leave tls out.",
    "CERTIFICATE_VERIFY_FAILED": "The service's certificate has expired, or comes from an "
    "authority that is not trusted here: give that authority's PEM file as tls='ca.pem' "
    "(idpass --ca).",
    "Hostname Verification|not in peer certificate": "The service's certificate is for "
    "another name: use that name.",
    _CLOSED: "If the service asks for a certificate, give "
    "client_certificate=('cert.pem', 'key.pem') (idpass --cert, --key).",
}
_HINTS_ALWAYS = {
    "HTTP proxy": "The proxy is from the environment (grpc_proxy, https_proxy or http_proxy): name "
    "the service's host in no_proxy, or give "
    'channel_options=[("grpc.enable_http_proxy", 0)].',
    "Connection refused|No such file": "Is the service running, and is this its address?",
    "errors resolving|resolution failed": "Is the name right?",
}


def never_sent(rpc_error: Any) -> bool:
    """Whether a call failed before it was given to a connection. False if in doubt.

    Args:
        rpc_error: a grpc.RpcError, sync or async.
    """
    return (
        _status.code_of(rpc_error) is grpc.StatusCode.UNAVAILABLE
        and _status.details_of(rpc_error).startswith(_NEVER_SENT)
        and not rpc_error.initial_metadata()
        and not rpc_error.trailing_metadata()
    )


def refused(rpc_error: Any) -> bool:
    """Whether the server refused the call's stream unseen (HTTP/2's REFUSED_STREAM, RFC 9113 §8.7).

    Args:
        rpc_error: a grpc.RpcError, sync or async.
    """
    return (
        _status.code_of(rpc_error) is grpc.StatusCode.UNAVAILABLE
        and "RST_STREAM with error code 7" in _status.details_of(rpc_error)
        and not rpc_error.trailing_metadata()
    )


def explained(address: str, why: str, *, secure: bool) -> str:
    """The message for a call that was never sent.

    Args:
        why: gRPC's message.
        secure: whether TLS is used.
    """
    last = why.rpartition("last error: ")[2]
    text = f"Nothing was sent: there is no connection to {address} ({last})."
    hints = (_HINTS_TLS if secure else _HINTS_PLAIN) | _HINTS_ALWAYS
    for signs, hint in hints.items():
        if any(sign in why for sign in signs.split("|")):
            return f"{text} {hint}"
    return text
