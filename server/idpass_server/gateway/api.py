"""One HTTP request is one gRPC call: read it, call, render the answer."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

import grpc
from google.protobuf.message_factory import GetMessageClass

from idpass_server.gateway import errors, messages
from idpass_server.gateway.errors import HttpError
from idpass_server.gateway.messages import Violation
from idpass_server.gateway.routes import HttpRoute

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Metadata = tuple[tuple[str, str], ...]

MAX_BODY_BYTES: Final = 2_500_000
"""What the service takes in one message, which is shorter than its JSON."""
BODY_S: Final = 30.0
"""For so long a body may be on its way."""
CALL_S: Final = 10.0
_JSON_TYPE: Final = re.compile(
    rb'application/json\s*(;\s*charset\s*=\s*"?utf-8"?\s*)?', re.IGNORECASE
)
_PRINTABLE: Final = re.compile(rb"[ -~]{1,4096}")
_TOKEN: Final = re.compile(rb"[!-~]{1,128}")
KEY: Final = "Idempotency-Key"


class Api:
    """The ASGI application of one route.

    Starlette's own request and response objects cost as much as the rest of the hop together.
    """

    def __init__(self, route: HttpRoute, channel: grpc.aio.Channel) -> None:
        self._route = route
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
        headers: list[tuple[bytes, bytes]] = []
        try:
            request, metadata = await self._read(scope, receive)
            answer = await self._call(request, timeout=CALL_S, metadata=metadata)
            http_status = 200
            body = json.dumps(
                messages.render(answer), separators=(",", ":"), ensure_ascii=False
            ).encode()
        except grpc.aio.AioRpcError as error:
            http_status, body, headers = response_of(errors.from_rpc(error))
        except HttpError as error:
            http_status, body, headers = response_of(error)
        await respond(send, http_status, body, headers, with_body=scope["method"] != "HEAD")

    async def _read(self, scope: Scope, receive: Receive) -> tuple[Any, Metadata]:
        verb = scope["method"]
        if verb != self._route.verb and (verb, self._route.verb) != ("HEAD", "GET"):
            raise errors.unreadable(
                f"{verb} is not for {self._route.path}; send {self._route.verb}",
                http_status=405,
                headers=[("allow", self._route.verb)],
            )
        if scope["query_string"]:
            raise errors.unreadable(
                f"{self._route.path} takes no query string; fields go into the JSON body"
            )
        headers = headers_of(scope)
        value = {}
        if self._route.verb == "POST":
            _check_type(headers)
            try:
                value = messages.load(await _body(headers, receive))
            except messages.Unreadable as error:
                raise errors.unreadable(str(error)) from error
        request, violations = messages.read(self._route.request, value)
        if b"idempotency-key" in headers:
            self._take_key(headers[b"idempotency-key"], request, violations)
        if violations:
            raise errors.invalid(violations)
        return request, metadata_of(headers)

    def _take_key(self, key: bytes, request: Any, violations: list[Violation]) -> None:
        """The header is the request_id; it says nothing where nothing is changed."""
        if not self._takes_key:
            if self._takes_keys_inside:
                text = "one key cannot stand for several; give each item a request_id"
                violations.append(Violation(KEY, text))
        elif not _TOKEN.fullmatch(key):
            violations.append(
                Violation(KEY, "must be 1 to 128 visible ASCII characters, without spaces")
            )
        elif request.request_id not in {"", key.decode()}:
            violations.append(Violation(KEY, "is not the request_id in the body; send one of them"))
        else:
            request.request_id = key.decode()


def headers_of(scope: Scope) -> dict[bytes, bytes]:
    """Raises: HttpError: one that counts here comes twice."""
    headers: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        if name in headers and name in {b"authorization", b"idempotency-key", b"content-type"}:
            raise errors.unreadable(f"the header {name.decode()} comes twice")
        headers[name] = value
    return headers


def metadata_of(headers: dict[bytes, bytes]) -> Metadata:
    """What the service gets to see of the headers: who calls. Raises: HttpError."""
    authorization = headers.get(b"authorization")
    if authorization is None:
        return ()
    if not _PRINTABLE.fullmatch(authorization):
        raise errors.unreadable("authorization is not 1 to 4096 printable ASCII characters")
    return (("authorization", authorization.decode()),)


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


async def _body(headers: dict[bytes, bytes], receive: Receive) -> bytes:
    length = headers.get(b"content-length", b"0")
    if length.isdigit() and int(length) > MAX_BODY_BYTES:
        raise _too_large()
    event = await receive()
    body: bytes = event.get("body", b"")
    if not event.get("more_body"):
        return body
    chunks, size = [body], len(body)
    try:
        async with asyncio.timeout(BODY_S):
            while event.get("more_body"):
                event = await receive()
                chunks.append(event.get("body", b""))
                size += len(chunks[-1])
                if size > MAX_BODY_BYTES:
                    raise _too_large()
    except TimeoutError as error:
        raise errors.unreadable(
            f"the body did not arrive within {BODY_S:g} s",
            http_status=408,
            headers=[("connection", "close")],
        ) from error
    return b"".join(chunks)


def _too_large() -> HttpError:
    return errors.unreadable(
        f"the body is longer than {MAX_BODY_BYTES} bytes; send fewer items",
        http_status=413,
        headers=[("connection", "close")],
    )


def response_of(error: HttpError) -> tuple[int, bytes, list[tuple[bytes, bytes]]]:
    headers = [(name.encode(), value.encode()) for name, value in error.headers]
    return error.http_status, error.body(), headers


async def respond(
    send: Send,
    http_status: int,
    body: bytes,
    headers: list[tuple[bytes, bytes]],
    *,
    with_body: bool = True,
) -> None:
    await send(
        {
            "type": "http.response.start",
            "status": http_status,
            "headers": [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
                (b"cache-control", b"no-store"),
                (b"x-content-type-options", b"nosniff"),
                *headers,
            ],
        }
    )
    await send({"type": "http.response.body", "body": body if with_body else b""})
