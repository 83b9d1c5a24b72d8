"""Turns one HTTP request into one gRPC call: reads it, calls, and renders the answer."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Final

import grpc
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from starlette.requests import Request

from idpass_server import trace_context
from idpass_server.gateway import bodies, errors, messages, packing, passed_on
from idpass_server.gateway.errors import HttpError
from idpass_server.gateway.messages import Violations
from idpass_server.gateway.pace import Result, Turns
from idpass_server.gateway.routes import SMALL_BODY_BYTES, HttpRoute

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]
Metadata = tuple[tuple[str, str], ...]

BODY_S: Final = 30.0
"""Deadline for a body to arrive, seconds."""
CALL_S: Final = 10.0
"""Deadline of a call to the service, seconds."""
_JSON_TYPE: Final = re.compile(
    rb'application/json\s*(;\s*charset\s*=\s*"?utf-8"?\s*)?', re.IGNORECASE
)
_PRINTABLE: Final = re.compile(rb"[ -~]{1,4096}")
_TOKEN: Final = re.compile(rb"[!-~]{1,128}")
_TRACE_HEADERS: Final = {trace_context.TRACEPARENT.encode(), trace_context.TRACESTATE.encode()}
KEY: Final = "Idempotency-Key"
"""Header that is the same as `request_id` in the body."""


class Api:
    """The ASGI application of one route.

    It does without Starlette's request and response objects, which cost as much as the rest of the
    hop.
    """

    def __init__(self, route: HttpRoute, channel: grpc.aio.Channel) -> None:
        self._route = route
        self._turns = Turns()
        self._empty = GetMessageClass(route.request)()
        self._takes_key = "request_id" in route.request.fields_by_name
        self._takes_keys_inside = any(
            field.message_type is not None and "request_id" in field.message_type.fields_by_name
            for field in route.request.fields
        )
        self._call: Any = channel.unary_unary(
            route.rpc,
            request_serializer=GetMessageClass(route.request).SerializeToString,
            response_deserializer=GetMessageClass(route.method.output_type).FromString,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with_body = scope["method"] != "HEAD"
        gzip = packing.accepted(scope["headers"])
        try:
            request, metadata = await self._read(scope, receive)
            call = self._call(request, timeout=CALL_S, metadata=metadata)
            answer = await call
            headers = passed_on.headers(await call.trailing_metadata(), answer)
            body = await self._in_turn(answer.ByteSize(), lambda: _rendered(answer, gzip=gzip))
            if body.startswith(packing.MAGIC):
                headers.append(packing.HEADER)
        except grpc.aio.AioRpcError as error:
            await respond_error(send, errors.from_rpc(error), with_body=with_body)
        except HttpError as error:
            await respond_error(send, error, with_body=with_body)
        else:
            await respond(send, 200, body, headers, with_body=with_body)

    async def _read(self, scope: Scope, receive: Receive) -> tuple[Any, Metadata]:
        verb = scope["method"]
        if verb != self._route.verb and (verb, self._route.verb) != ("HEAD", "GET"):
            raise errors.unreadable(
                f"{verb} is not for {self._route.path}; send {self._route.verb}",
                http_status=405,
                headers=[("allow", "GET, HEAD" if self._route.verb == "GET" else "POST")],
            )
        if scope["query_string"]:
            raise errors.unreadable(
                f"{self._route.path} takes no query string; fields go into the JSON body"
                if self._route.verb == "POST"
                else f"{self._route.path} takes no query string"
            )
        headers = headers_of(scope)
        metadata = metadata_of(headers) + trace_of(scope)
        body = b"{}"
        if self._route.verb == "POST":
            _check_type(headers)
            body = await self._body(headers, receive, metadata)
        request, violations = await self._in_turn(len(body), lambda: self._parsed(body))
        if self._route.variable:
            setattr(request, self._route.variable, scope["path_params"][self._route.variable])
        if b"idempotency-key" in headers:
            self._take_key(headers[b"idempotency-key"], request, violations)
        if violations:
            raise errors.invalid(violations)
        return request, metadata

    async def _in_turn(self, size: int, work: Callable[[], Result]) -> Result:
        """Args: size: of the message that the work is on, bytes."""
        return work() if size <= SMALL_BODY_BYTES else await self._turns.do(work)

    def _parsed(self, body: bytes) -> tuple[Any, Violations]:
        try:
            return messages.read(self._route.request, bodies.load(body))
        except bodies.Unreadable as error:
            raise errors.unreadable(str(error)) from error

    async def _body(
        self, headers: dict[bytes, bytes], receive: Receive, metadata: Metadata
    ) -> bytes:
        """The whole body; a large one only if the service accepts one from this caller."""
        body = bytearray()
        asked, more = False, True
        size = int(headers.get(b"content-length", b"0"))
        try:
            async with asyncio.timeout(BODY_S):
                while True:
                    if size > self._route.max_body_bytes:
                        raise _too_large(self._route.max_body_bytes)
                    if size > SMALL_BODY_BYTES and not asked:
                        await self._ask(metadata)
                        asked = True
                    if not more:
                        return bytes(body)
                    event = await receive()
                    if event["type"] == "http.disconnect":
                        # Half a body may be valid JSON too, and is not what its sender meant.
                        raise errors.unreadable("the body is incomplete")
                    body += event.get("body", b"")
                    size = max(size, len(body))
                    more = event.get("more_body", False)
        except TimeoutError as error:
            raise errors.unreadable(
                f"the body did not arrive within {BODY_S:g} s",
                http_status=408,
            ) from error

    async def _ask(self, metadata: Metadata) -> None:
        """Lets the service refuse a caller before its large body is read.

        An empty batch is refused too, but only after authentication, rate limit and permission.
        Smaller bodies cost less than this extra call.
        """
        try:
            await self._call(self._empty, timeout=CALL_S, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.INVALID_ARGUMENT:
                raise

    def _take_key(self, key: bytes, request: Any, violations: Violations) -> None:
        """Takes the header as the request_id; it is ignored by requests that change nothing."""
        if not self._takes_key:
            if self._takes_keys_inside:
                text = "one key cannot stand for several; give each item a request_id"
                violations.add(KEY, text)
        elif not _TOKEN.fullmatch(key):
            violations.add(KEY, "must be 1 to 128 visible ASCII characters, without spaces")
        elif request.request_id not in {"", key.decode()}:
            violations.add(KEY, "is not the request_id in the body; send one of them")
        else:
            request.request_id = key.decode()


def _rendered(answer: Message, *, gzip: bool) -> bytes:
    """An answer in JSON, in gzip where that is accepted and it is long."""
    value = messages.render(answer)
    body = json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
    return packing.packed(body) if gzip and len(body) >= packing.WORTH_BYTES else body


def headers_of(scope: Scope) -> dict[bytes, bytes]:
    """The headers by name in lower case.

    Raises:
        HttpError: one that matters here comes twice.
    """
    headers: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        if name in headers and name in {b"authorization", b"idempotency-key", b"content-type"}:
            raise errors.unreadable(f"the header {name.decode()} comes twice")
        headers[name] = value
    return headers


def metadata_of(headers: dict[bytes, bytes]) -> Metadata:
    """The metadata that passes on who calls, and asks for what the answer is to say.

    Raises:
        HttpError: the authorization header is malformed.
    """
    authorization = headers.get(b"authorization")
    if authorization is None:
        return passed_on.ASKING
    if not _PRINTABLE.fullmatch(authorization):
        raise errors.unreadable("authorization is not 1 to 4096 printable ASCII characters")
    return (*passed_on.ASKING, ("authorization", authorization.decode()))


def trace_of(scope: Scope) -> Metadata:
    """The metadata that passes on the trace that a request belongs to; empty without one."""
    found = [(name.decode(), value) for name, value in scope["headers"] if name in _TRACE_HEADERS]
    trace = trace_context.read(found)
    return () if trace is None else trace.headers()


def _check_type(headers: dict[bytes, bytes]) -> None:
    content_type = headers.get(b"content-type", b"")
    if not _JSON_TYPE.fullmatch(content_type):
        raise errors.unreadable(
            "the body has to be JSON in UTF-8; send Content-Type: application/json",
            http_status=415,
            headers=[("accept-post", "application/json")],
        )
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise errors.unreadable("the body is encoded; send it as it is", http_status=415)


def refuse_forms(request: Request) -> None:
    """Refuses what another site's page can submit: a form, but not a body of this type.

    Raises:
        HttpError: the body is not said to be JSON.
    """
    if request.headers.get("content-type") != "application/json":
        raise errors.unreadable("send Content-Type: application/json", http_status=415)


def _too_large(max_bytes: int) -> HttpError:
    return errors.unreadable(
        f"the body is longer than {max_bytes} bytes; send fewer or shorter values",
        http_status=413,
    )


def answer_headers(body: bytes, headers: Iterable[tuple[str, str]]) -> Headers:
    """The headers of an answer in JSON, errors included. Args: headers: further ones."""
    return [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
        *((name.encode(), value.encode()) for name, value in headers),
    ]


async def respond(
    send: Send,
    http_status: int,
    body: bytes,
    headers: Iterable[tuple[str, str]] = (),
    *,
    with_body: bool = True,
) -> None:
    """Sends an answer.

    Args:
        send: of ASGI.
        http_status: of the answer.
        body: JSON.
        headers: in addition to those that every answer has.
        with_body: false for the answer to a HEAD request.
    """
    start = {"status": http_status, "headers": answer_headers(body, headers)}
    await send({"type": "http.response.start", **start})
    await send({"type": "http.response.body", "body": body if with_body else b""})


async def respond_error(send: Send, error: HttpError, *, with_body: bool = True) -> None:
    """As `respond`, with an error, after waiting for its turn."""
    await error.turn()
    await respond(send, error.http_status, error.body(), error.headers, with_body=with_body)
