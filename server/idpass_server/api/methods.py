"""A servicer's methods as gRPC calls them: from the bytes of a request to the end of the call.

A servicer's method takes a request and a `Call`, and returns its response or yields its responses.
`rpc` marks it with the permission that its callers need; `handlers` surrounds each with what all
calls have in common (see `calls`).
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple, TypeVar

import grpc
from google.protobuf.descriptor import ServiceDescriptor

from idpass_server.api import wire
from idpass_server.api.calls import HISTORY_KEY, REFERENCE_KEY, Call, Calls
from idpass_server.api.identity import Permission

Method = TypeVar("Method", bound=Callable[..., Any])


def rpc(permission: Permission) -> Callable[[Method], Method]:
    """Marks a servicer's method as an rpc for callers with a permission."""

    def mark(method: Method) -> Method:
        method.permission = permission  # type: ignore[attr-defined]
        return method

    return mark


class _Rpc(NamedTuple):
    """What is fixed for all calls of one method.

    Attributes:
        service: full name of the service.
        name: as in the descriptor.
        permission: that callers need.
        read: parses a request.
    """

    service: str
    name: str
    permission: Permission
    read: Callable[[bytes], Any]


def handlers(
    service: ServiceDescriptor,
    servicer: object,
    calls: Calls,
    history: Callable[[], Awaitable[str]],
) -> grpc.GenericRpcHandler:
    """Makes gRPC's handlers for every rpc of a service.

    Args:
        service: its descriptor.
        servicer: has a method marked with `rpc` for each.
        calls: admits, ends and records every call.
        history: reads the id of the history that streams tell of.

    Raises:
        AttributeError: the servicer lacks a method, or its mark.
    """
    by_method: dict[str, Any] = {}
    for descriptor in service.methods:
        method = getattr(servicer, descriptor.name)
        each = _Rpc(service.full_name, descriptor.name, method.permission, wire.reader(descriptor))
        handle = grpc.unary_unary_rpc_method_handler
        behavior: Callable[..., Any] = _unary(each, method, calls)
        if descriptor.server_streaming:
            handle = grpc.unary_stream_rpc_method_handler
            behavior = _stream(each, method, calls, history)
        by_method[each.name] = handle(behavior, response_serializer=wire.writer(descriptor))
    return grpc.method_handlers_generic_handler(service.full_name, by_method)


def _unary(
    rpc: _Rpc, method: Callable[[Any, Call], Awaitable[Any]], calls: Calls
) -> Callable[[bytes, Any], Awaitable[Any]]:
    async def handle(body: bytes, context: Any) -> Any:
        record = calls.begin(rpc.name, context, rpc.service)
        try:
            call = calls.admit(record, rpc.permission, len(body), context)
            calls.enter(record, call.caller)
            request = rpc.read(body)
            response = await method(request, call)
            told = calls.rate_fields(record)
            if getattr(response, "reference", None) != record.reference:
                told = ((REFERENCE_KEY, record.reference), *told)
            if told:  # metadata costs time, and most answers have their reference
                context.set_trailing_metadata(told)
            record.code = grpc.StatusCode.OK
            return response  # noqa: TRY300 in one place with what it is the end of
        except Exception as exception:  # noqa: BLE001 every fault is answered and logged
            await calls.abort(record, exception, context)
        finally:
            calls.finish(record)

    return handle


def _stream(
    rpc: _Rpc,
    method: Callable[[Any, Call], AsyncIterator[Any]],
    calls: Calls,
    history: Callable[[], Awaitable[str]],
) -> Callable[[bytes, Any], AsyncIterator[Any]]:
    async def handle(body: bytes, context: Any) -> AsyncIterator[Any]:
        record = calls.begin(rpc.name, context, rpc.service)
        try:
            call = calls.admit_stream(record, rpc.permission, len(body), context)
            calls.enter_stream(record, call.caller)
            request = rpc.read(body)
            metadata = ((REFERENCE_KEY, record.reference), (HISTORY_KEY, await history()))
            await context.send_initial_metadata((*metadata, *calls.rate_fields(record)))
            async for response in method(request, call):
                yield response
            record.code = grpc.StatusCode.OK
        except Exception as exception:  # noqa: BLE001 every fault is answered and logged
            await calls.abort(record, exception, context)
        finally:
            calls.finish(record)

    return handle
