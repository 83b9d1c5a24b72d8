"""gRPC's interceptors, as callers give them: checked at once, and made to see every attempt."""

from collections.abc import Callable, Sequence
from typing import Any

import grpc
from grpc import aio

SyncInterceptor = grpc.UnaryUnaryClientInterceptor | grpc.UnaryStreamClientInterceptor
AsyncInterceptor = aio.UnaryUnaryClientInterceptor | aio.UnaryStreamClientInterceptor

_SYNC = (grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor)
_ASYNC = (aio.UnaryUnaryClientInterceptor, aio.UnaryStreamClientInterceptor)


def sync(interceptors: Sequence[Any]) -> tuple[SyncInterceptor, ...]:
    """
    Raises:
        TypeError: one is not of a kind that a sync channel takes.
    """
    return _checked(interceptors, _SYNC, _ASYNC, "grpc", "AsyncIdPassClient")


def asynchronous(interceptors: Sequence[Any]) -> list[AsyncInterceptor]:
    """
    Returns:
        a list, and not a tuple: what instruments grpc.aio adds its own to it.

    Raises:
        TypeError: one is not of a kind that an async channel takes.
    """
    found: list[AsyncInterceptor] = []
    for each in _checked(interceptors, _ASYNC, _SYNC, "grpc.aio", "IdPassClient"):
        found.append(each)
        if all(isinstance(each, kind) for kind in _ASYNC):
            # grpc.aio takes it for calls only: for the first kind that it is.
            found.append(_Streams(each))
    return found


def _checked(
    interceptors: Any,
    kinds: tuple[type, ...],
    others: tuple[type, ...],
    module: str,
    other_client: str,
) -> tuple[Any, ...]:
    if not isinstance(interceptors, Sequence) or isinstance(interceptors, str | bytes):
        raise TypeError(f"interceptors is {type(interceptors).__name__}; give a list of them")
    for each in interceptors:
        if not isinstance(each, kinds):
            hint = f"; it is one for {other_client}" if isinstance(each, others) else ""
            raise TypeError(
                f"{type(each).__name__} is no interceptor for this client: give instances of "
                f"{module}.UnaryUnaryClientInterceptor or {module}.UnaryStreamClientInterceptor"
                + hint
            )
    return tuple(interceptors)


class _Streams(aio.UnaryStreamClientInterceptor):
    """An interceptor's part for streams."""

    def __init__(self, interceptor: Any) -> None:
        self._interceptor = interceptor

    async def intercept_unary_stream(
        self, continuation: Callable[..., Any], client_call_details: Any, request: Any
    ) -> Any:
        return await self._interceptor.intercept_unary_stream(
            continuation, client_call_details, request
        )
