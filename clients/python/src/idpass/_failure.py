"""What one failed attempt was: the error it amounts to, and whether the request was sent."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import grpc

from idpass import _reach, _status
from idpass.errors import BadAnswer, IdPassError, Unavailable, Unimplemented

Explain = Callable[[str], str]
"""Turns gRPC's words for a failed connection into a message for people."""

DROPPED = (
    "The server dropped the call without an answer (CANCELLED): it is overloaded, or it was just "
    "stopping."
)
REFUSED = (
    "The server refused the call before it looked at it: too many are open. Nothing was changed."
)
CLOSED = "The client was closed before the call was answered."
LATE = "No answer came within the call's timeout."
OLDER = (
    "Nothing there knows {method}: the service is older than this client, or the address is that "
    "of another service."
)

# Details of a bare CANCELLED: gRPC fills them in with the name of the code.
_SAYS_NOTHING = frozenset({None, "", "CANCELLED"})

EMPTY = "no message that can be read"
ENDED = "the stream has ended"
STRANGE_CODE = "a code that is none"

# What gRPC says of an answer that did not come from the service. In this order.
_FOREIGN: dict[str, str] = {
    r"http2 header with status: (\d+)": "Something in between answered HTTP {0}, and not the "
    "service: a proxy, a load balancer or a web server. Does the address lead to gRPC?",
    r"GOAWAY received": "The server hung up in mid-call (GOAWAY): it was stopping, or what is in "
    "between was.",
    "Data frame with END_STREAM|No status received|^Stream removed$": "What answered does not "
    "speak gRPC, or was cut short: it gave no status. A proxy or a web server does so.",
    f"{EMPTY}|deserializing response": "The answer is missing or cannot be read: the service "
    "speaks another version of the contract, or something in between changed it.",
    f"^{ENDED}": "The stream of events ended, which the service's never does: something in between "
    "ended it.",
    f"unknown code|{STRANGE_CODE}": "What answered gave a status that gRPC does not have: it is "
    "not the service.",
    r"Error parsing": "What answered does not speak gRPC as it should: a proxy or a web server may "
    "be in between.",
    "RST_STREAM": "The other side cut the call off, or something in between did.",
    "Socket closed|reset by peer|Broken pipe": "The connection broke in mid-call.",
}
# What gRPC itself gives for an answer that makes no sense. Never the service without a reason.
_SENSELESS = frozenset({grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL})


class EmptyAnswer(grpc.RpcError):
    """An answer of status OK without a message that can be read, which gRPC returns as None."""

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.INTERNAL

    def details(self) -> str:
        return EMPTY


class StrangeCode(grpc.RpcError):
    """A status that gRPC does not have: grpc.aio raises KeyError for it, up to 1.76 at least."""

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.UNKNOWN

    def details(self) -> str:
        return STRANGE_CODE


class EndedStream(grpc.RpcError):
    """A stream without end that has ended with status OK."""

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.UNAVAILABLE

    def details(self) -> str:
        return ENDED


class Failure(NamedTuple):
    """
    Attributes:
        error: what is raised if there is no other attempt.
        sent: whether the request may have been sent.
    """

    error: IdPassError
    sent: bool


def read(
    rpc_error: Any,
    method: str,
    request_id: str | None,
    explain: Explain,
    *,
    closed: bool = False,
) -> Failure:
    """
    Args:
        rpc_error: a grpc.RpcError, sync or async.
        method: name of the rpc.
        request_id: what it was sent with, if it takes one.
        closed: whether the client has been closed: CANCELLED then comes from this side.
    """
    error = _status.from_rpc_error(rpc_error, request_id)
    sent = True
    if error.reason is None:
        refused = _reach.refused(rpc_error)
        sent = not (refused or _reach.never_sent(rpc_error))
        if refused:
            error = Unavailable(REFUSED, code=error.code, request_id=request_id)
        elif not sent:
            error = Unavailable(explain(error.message), code=error.code, request_id=request_id)
        else:
            error = _not_of_the_service(error, rpc_error, method, closed=closed)
    error.__cause__ = rpc_error
    return Failure(error, sent)


def _not_of_the_service(
    error: IdPassError, rpc_error: Any, method: str, *, closed: bool
) -> IdPassError:
    """The error for an attempt that ended without a reason of the service."""
    kind, code = type(error), error.code
    said = _status.details_of(rpc_error)
    why = _foreign(said)
    if code is grpc.StatusCode.CANCELLED:
        kind, why = (IdPassError, CLOSED) if closed else (Unavailable, DROPPED)
        said = "" if closed or said in _SAYS_NOTHING else said
    elif code is grpc.StatusCode.UNIMPLEMENTED:
        kind, why = Unimplemented, why or OLDER.format(method=method)
    elif code is grpc.StatusCode.DEADLINE_EXCEEDED:
        why = LATE
    elif code in _SENSELESS:
        kind = BadAnswer
    if why and said:
        why += f" gRPC says: {said}"
    return kind(
        why or error.message,
        code=code,
        reference=error.reference,
        request_id=error.request_id,
        violations=error.violations,
        retry_after=error.retry_after,
    )


def _foreign(details: str) -> str:
    for sign, sentence in _FOREIGN.items():
        if found := re.search(sign, details):
            return sentence.format(*found.groups())
    return ""


def turned_away(error: IdPassError) -> bool:
    """Whether a live server had no room for the call, as far as that can be told."""
    return error.code is grpc.StatusCode.CANCELLED or error.message == REFUSED


def pushback_s(rpc_error: Any) -> float | None:
    """Seconds after which the server allows a retry; negative for never (gRFC A6)."""
    for key, value in _status.trailing_metadata_of(rpc_error):
        if key == "grpc-retry-pushback-ms":
            try:
                return int(value) / 1000
            except ValueError:
                return -1.0
    return None
