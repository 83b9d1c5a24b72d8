"""Calls of the sandbox that are sent together, each with the times at which it was.

A browser opens six connections to a host and queues the rest, so that its own twenty requests are
never twenty at once. Here they travel over one HTTP/2 connection, as those of any gRPC client.
"""

import asyncio
import time
from typing import Any, Final, NamedTuple

import grpc
from google.protobuf.message_factory import GetMessageClass
from starlette.requests import ClientDisconnect, Request

from idpass_server.gateway import bodies, errors, messages
from idpass_server.gateway.api import BODY_S, CALL_S, Metadata, refuse_forms
from idpass_server.gateway.messages import Violations
from idpass_server.gateway.routes import HttpRoute, routes

MIN_CALLS: Final = 2
MAX_CALLS: Final = 20
MAX_SPREAD_MS: Final = 2_000
MAX_BODY_BYTES: Final = 64 * 1024
"""Limit of a body, bytes: many times twenty usual calls."""
PATHS: Final = ("/idpass/cancel", "/idpass/register", "/idpass/advance")
ROUTES: Final = {route.path: route for route in routes() if route.path in PATHS}


class _Call(NamedTuple):
    route: HttpRoute
    message: Any


async def asked(request: Request) -> dict[str, Any]:
    """The JSON object in the body of a request that changes something in the sandbox.

    Raises:
        HttpError: there is none, or it comes from another site's page.
    """
    refuse_forms(request)
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            async for part in request.stream():
                body += part
                if len(body) > MAX_BODY_BYTES:
                    text = f"the body is longer than {MAX_BODY_BYTES} bytes"
                    raise errors.unreadable(text, http_status=413)
        return bodies.load(bytes(body))
    except TimeoutError as error:
        text = f"the body did not arrive within {BODY_S:g} s"
        raise errors.unreadable(text, http_status=408) from error
    except ClientDisconnect as error:
        raise errors.unreadable("the body is incomplete") from error
    except bodies.Unreadable as error:
        raise errors.unreadable(str(error)) from error


def whole(value: Any, name: str, least: int, most: int) -> int:
    """A field that is a whole number.

    Raises:
        HttpError: it is none, or out of range.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise errors.unreadable(f"{name} is no whole number from {least} to {most}")
    return value


def only(fields: dict[str, Any], *known: str) -> None:
    """
    Raises:
        HttpError: there are other fields.
    """
    for name in fields.keys() - set(known):
        text = f"{messages.shown(name)} is not a field here; there are: {', '.join(known)}"
        raise errors.unreadable(text)


async def volley(
    channel: grpc.aio.Channel, fields: dict[str, Any], metadata: Metadata = ()
) -> dict[str, Any]:
    """Sends calls at once, or one after the other without waiting for answers.

    Args:
        channel: to the service.
        fields: `calls`, MIN_CALLS to MAX_CALLS objects with a `path` and a `body`;
            `spread_ms`, the time from the first one's start to the last one's, milliseconds.
        metadata: of each call, which says who calls.

    Returns:
        `began_ms`, the time of the first call on the wall clock, milliseconds since the epoch; and
        `calls` in the order given, each with its `status` and `answer` as the API has them, and
        with `sent_ms` and `answered_ms` after `began_ms`.

    Raises:
        HttpError: the fields are not as described.
    """
    only(fields, "calls", "spread_ms")
    calls = _calls(fields.get("calls"))
    spread_ms = whole(fields.get("spread_ms", 0), "spread_ms", 0, MAX_SPREAD_MS)
    pause_s = spread_ms / 1_000 / (len(calls) - 1)
    try:
        # To connect is no part of what is measured.
        await asyncio.wait_for(channel.channel_ready(), CALL_S)
    except TimeoutError as error:
        raise errors.no_answer() from error
    began_ms, began_s = time.time_ns() / 1e6, time.perf_counter()

    async def send(number: int, call: _Call) -> dict[str, Any]:
        await asyncio.sleep(pause_s * number)
        sent_s = time.perf_counter()
        status, answer = await _sent(channel, call, metadata)
        took = {"sent_ms": sent_s, "answered_ms": time.perf_counter()}
        return {
            "status": status,
            "answer": answer,
            **{name: round((at_s - began_s) * 1_000, 3) for name, at_s in took.items()},
        }

    answers = await asyncio.gather(*(send(number, call) for number, call in enumerate(calls)))
    return {"began_ms": round(began_ms, 3), "calls": answers}


def _calls(value: Any) -> list[_Call]:
    if not isinstance(value, list) or not MIN_CALLS <= len(value) <= MAX_CALLS:
        raise errors.unreadable(f"calls is no array of {MIN_CALLS} to {MAX_CALLS} objects")
    wrong = Violations()
    found = []
    for number, each in enumerate(value):
        path = each.get("path") if isinstance(each, dict) else None
        route = ROUTES.get(path) if isinstance(path, str) else None
        body = each.get("body") if isinstance(each, dict) else None
        if route is None:
            wrong.add(f"calls[{number}].path", f"is none of {', '.join(PATHS)}")
        elif not isinstance(body, dict):
            wrong.add(f"calls[{number}].body", f"is {messages.kind(body)}, not an object")
        else:
            message, violations = messages.read(route.request, body)
            for violation in violations.first:
                wrong.add(f"calls[{number}].body.{violation.field}", violation.description)
            found.append(_Call(route, message))
    if wrong:
        raise errors.invalid(wrong)
    return found


async def _sent(
    channel: grpc.aio.Channel, call: _Call, metadata: Metadata
) -> tuple[int, dict[str, Any]]:
    """The HTTP status and the body that the API would answer with."""
    send: Any = channel.unary_unary(
        call.route.rpc,
        request_serializer=GetMessageClass(call.route.request).SerializeToString,
        response_deserializer=GetMessageClass(call.route.method.output_type).FromString,
    )
    try:
        return 200, messages.render(await send(call.message, timeout=CALL_S, metadata=metadata))
    except grpc.aio.AioRpcError as error:
        refusal = errors.from_rpc(error)
        return refusal.http_status, messages.status(refusal.status)
