"""A servicer's methods as gRPC calls them: each goes through `calls`, from its bytes to its end."""

import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol, TypeVar

import grpc

from idpass_server.api import wire
from idpass_server.api.call_log import Record
from idpass_server.api.calls import REFERENCE_KEY, Call, Calls
from idpass_server.api.identity import Permission


class _HasCalls(Protocol):
    calls: Calls


Self = TypeVar("Self", bound=_HasCalls)
Request = TypeVar("Request")
Response = TypeVar("Response")


def unary(
    permission: Permission,
) -> Callable[
    [Callable[[Self, Request, Call], Awaitable[Response]]],
    Callable[[Self, bytes, Any], Awaitable[Response]],
]:
    """Makes the method that gRPC calls, of bytes and context, from one of request and Call."""

    def decorate(
        method: Callable[[Self, Request, Call], Awaitable[Response]],
    ) -> Callable[[Self, bytes, Any], Awaitable[Response]]:
        name = method.__name__
        read = wire.reader(name)

        @functools.wraps(method)
        async def handle(self: Self, body: bytes, context: Any) -> Response:
            calls = self.calls
            record = Record(name)
            try:
                call = calls.admit(record, permission, len(body), context)
                calls.enter(record, call.caller)
                request = read(body)
                context.set_trailing_metadata(((REFERENCE_KEY, record.reference),))
                response = await method(self, request, call)
                record.code = grpc.StatusCode.OK
                return response  # noqa: TRY300 in one place with what it is the end of
            except Exception as exception:  # noqa: BLE001 every fault is answered and logged
                return await calls.abort(record, exception, context)
            finally:
                calls.finish(record)

        handle.permission = permission  # type: ignore[attr-defined]
        return handle

    return decorate


def stream(
    permission: Permission,
) -> Callable[
    [Callable[[Self, Request, Call], AsyncIterator[Response]]],
    Callable[[Self, bytes, Any], AsyncIterator[Response]],
]:
    """As `unary`, for a method that answers with a stream."""

    def decorate(
        method: Callable[[Self, Request, Call], AsyncIterator[Response]],
    ) -> Callable[[Self, bytes, Any], AsyncIterator[Response]]:
        name = method.__name__
        read = wire.reader(name)

        @functools.wraps(method)
        async def handle(self: Self, body: bytes, context: Any) -> AsyncIterator[Response]:
            record = Record(name)
            try:
                call = self.calls.admit_stream(record, permission, len(body), context)
                self.calls.enter_stream(record, call.caller)
                request = read(body)
                await context.send_initial_metadata(((REFERENCE_KEY, record.reference),))
                async for response in method(self, request, call):
                    yield response
                record.code = grpc.StatusCode.OK
            except Exception as exception:  # noqa: BLE001 every fault is answered and logged
                await self.calls.abort(record, exception, context)
            finally:
                self.calls.finish(record)

        handle.permission = permission  # type: ignore[attr-defined]
        return handle

    return decorate
