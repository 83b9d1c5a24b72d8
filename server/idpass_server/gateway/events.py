"""GET /idpass/events: the account's events as server-sent events, resumed by Last-Event-ID."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any, Final
from urllib.parse import parse_qsl

import grpc
from google.protobuf.message_factory import GetMessageClass

from idpass_server.gateway import errors, messages, passed_on
from idpass_server.gateway.api import (
    CALL_S,
    Headers,
    Receive,
    Scope,
    Send,
    headers_of,
    metadata_of,
    respond_error,
    trace_of,
)
from idpass_server.gateway.errors import HttpError
from idpass_server.gateway.routes import EVENTS_PATH, WATCH, rpc_path

REFUSAL_S: Final = 0.05
"""Time after which an admitted stream without events is answered 200, seconds."""
KEEPALIVE_S: Final = 15.0
"""Interval of comments on a stream without events, which keep proxies from closing it, seconds."""
RECONNECT_MS: Final = 1_000
"""Delay before a browser reconnects, milliseconds."""
_END: Final = object()


class Events:
    """The ASGI application of the stream. Each event's id is its sequence."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._watch: Any = channel.unary_stream(
            rpc_path(WATCH),
            request_serializer=GetMessageClass(WATCH.input_type).SerializeToString,
            response_deserializer=GetMessageClass(WATCH.output_type).FromString,
        )
        self._open: set[Any] = set()

    def close(self) -> None:
        """Ends every stream; each can be resumed elsewhere."""
        for call in list(self._open):
            call.cancel()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call: Any = None
        try:
            request, metadata = _read(scope)
            call = self._watch(request, metadata=metadata)
            self._open.add(call)
            first = asyncio.ensure_future(_next(call))
            told = await _told(call)
            await asyncio.wait([first], timeout=REFUSAL_S)
            if _ended(first):
                # No more events can come; 204 tells a browser not to reconnect.
                await send({"type": "http.response.start", "status": 204, "headers": told})
                await send({"type": "http.response.body"})
                return
            await _stream(call, first, told, receive, send)
        except grpc.aio.AioRpcError as error:
            await respond_error(send, errors.from_rpc(error))
        except HttpError as error:
            await respond_error(send, error)
        finally:
            if call is not None:
                call.cancel()
                self._open.discard(call)


def _read(scope: Scope) -> tuple[Any, tuple[tuple[str, str], ...]]:
    if scope["method"] != "GET":
        raise errors.unreadable(
            f"{scope['method']} is not for {EVENTS_PATH}; send GET",
            http_status=405,
            headers=[("allow", "GET")],
        )
    headers = headers_of(scope)
    query: dict[str, Any] = {}
    for name, text in parse_qsl(
        scope["query_string"].decode("ascii", "replace"), keep_blank_values=True
    ):
        if name in query:
            raise errors.unreadable(f"the parameter {messages.shown(name)} comes twice")
        query[name] = text
    if last_event_id := headers.get(b"last-event-id", b"").decode("latin-1"):
        query["after_sequence"] = last_event_id
    sequence = query.get("after_sequence", "0")
    # Longer ones are slow to parse, and do not fit into 64 bits.
    if sequence.isascii() and sequence.isdigit() and len(sequence) < 20:  # noqa: PLR2004
        query["after_sequence"] = int(sequence)
    request, violations = messages.read(WATCH.input_type, query)
    if violations:
        raise errors.invalid(violations)
    return request, metadata_of(headers) + trace_of(scope)


async def _told(call: Any) -> Headers:
    """The headers with the stream's reference and its caller's rate, which are sent on admission.

    Raises:
        HttpError: the service does not answer within CALL_S.
    """
    try:
        metadata = await asyncio.wait_for(call.initial_metadata(), CALL_S)
    except TimeoutError as error:
        raise errors.no_answer() from error
    return [(name.encode(), value.encode()) for name, value in passed_on.headers(metadata)]


async def _stream(
    call: Any,
    first: "asyncio.Future[Any]",
    told: Headers,
    receive: Receive,
    send: Send,
) -> None:
    """Sends events until the stream ends or its reader leaves."""
    if first.done() and not first.cancelled():
        first.result()  # a refusal still becomes the response itself
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [
                (b"content-type", b"text/event-stream; charset=utf-8"),
                (b"cache-control", b"no-store"),
                (b"x-content-type-options", b"nosniff"),
                (b"x-accel-buffering", b"no"),
                *told,
            ],
        }
    )
    gone = asyncio.ensure_future(_gone(receive))
    try:
        await _send(send, f"retry: {RECONNECT_MS}\n\n")
        async for text in _texts(call, first, gone):
            await _send(send, text)
        with contextlib.suppress(OSError):
            await send({"type": "http.response.body", "body": b""})
    finally:
        gone.cancel()


async def _texts(
    call: Any, coming: "asyncio.Future[Any]", gone: "asyncio.Future[None]"
) -> AsyncIterator[str]:
    while True:
        await asyncio.wait([coming, gone], timeout=KEEPALIVE_S, return_when=asyncio.FIRST_COMPLETED)
        if gone.done():
            coming.cancel()
            return
        if not coming.done():
            yield ":\n\n"
            continue
        try:
            event = coming.result()
        except grpc.aio.AioRpcError as error:
            yield f"event: error\ndata: {errors.from_rpc(error).body().decode()}\n\n"
            return
        except asyncio.CancelledError:
            return
        if event is _END:
            return
        data = json.dumps(messages.render(event), separators=(",", ":"))
        yield f"id: {event.sequence}\ndata: {data}\n\n"
        coming = asyncio.ensure_future(_next(call))


def _ended(first: "asyncio.Future[Any]") -> bool:
    # A stream cancelled because the gateway stops has not ended: its reader should reconnect.
    return first.done() and not first.cancelled() and first.result() is _END


async def _next(call: Any) -> Any:
    event = await call.read()
    return _END if event is grpc.aio.EOF else event


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send(send: Send, text: str) -> None:
    await send({"type": "http.response.body", "body": text.encode(), "more_body": True})
