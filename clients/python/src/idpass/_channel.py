"""Channels that are created on first use, and again in a forked child."""

import asyncio
import os
import threading
import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import grpc

ChannelT = TypeVar("ChannelT")
StubT = TypeVar("StubT")


class LazyChannel(Generic[ChannelT, StubT]):
    """A channel with its stub, created at the first call, and again in a forked child.

    Args:
        open_channel: creates a channel.
        make_stub: creates a stub for it.

    Attributes:
        closed: whether the client is closed; no further channel is created then.
    """

    def __init__(
        self, open_channel: Callable[[], ChannelT], make_stub: Callable[[ChannelT], StubT]
    ) -> None:
        self._open_channel = open_channel
        self._make_stub = make_stub
        self._lock = threading.Lock()
        self._channel: ChannelT | None = None
        self._stub: StubT | None = None
        self.closed = False
        _living.add(self)

    def stub(self) -> StubT:
        """
        Raises:
            RuntimeError: the client is closed, or gRPC does not survive this fork.
        """
        stub = self._stub
        if stub is not None:
            return stub
        with self._lock:
            if self.closed:
                raise RuntimeError("the client is closed")
            if _fork.broken:
                raise RuntimeError(
                    "this process was forked from one with an open gRPC channel, and gRPC would "
                    "hang here: make the first call after the fork, or set "
                    "GRPC_ENABLE_FORK_SUPPORT=1 before Python starts"
                )
            if self._stub is None:
                self._channel = self._open_channel()
                self._stub = self._make_stub(self._channel)
            return self._stub

    def channel(self) -> ChannelT:
        """
        Raises:
            RuntimeError: as for `stub`.
        """
        while True:
            self.stub()
            if (channel := self._channel) is not None:
                return channel

    def take(self) -> ChannelT | None:
        """Gives up the channel, and returns it if there is one."""
        with self._lock:
            channel, self._channel, self._stub = self._channel, None, None
        return channel

    def forked(self) -> bool:
        """In the child: forgets the parent's channel. Returns whether there was one."""
        self._lock = threading.Lock()  # a thread that is not in the child may have held it
        channel = self.take()
        if channel is not None:
            _fork.abandoned.append(channel)
        return channel is not None


def connect(lazy: LazyChannel[grpc.Channel, Any], timeout_s: float) -> bool:
    """Waits for a connection. Returns whether there is one.

    It sends a health check that waits for the connection; any answer will do. Up to grpcio 1.76 at
    least, a sync channel does not go on connecting unless a call waits. gRPC's own ways to wait
    leave a thread behind that prints an error if the channel is closed soon after.
    """
    check: Any = lazy.channel().unary_unary("/grpc.health.v1.Health/Check")
    try:
        check(b"", timeout=timeout_s, wait_for_ready=True)
    except grpc.RpcError as error:
        ended = error.code()
        return not lazy.closed and ended is not grpc.StatusCode.DEADLINE_EXCEEDED
    return True


async def connect_aio(lazy: LazyChannel[grpc.aio.Channel, Any], timeout_s: float) -> bool:
    """As `connect`; an aio channel reports its state."""
    channel = lazy.channel()

    async def settle() -> None:
        state = channel.get_state(try_to_connect=True)
        while state not in _SETTLED:
            await channel.wait_for_state_change(state)
            state = channel.get_state(try_to_connect=True)

    try:
        await asyncio.wait_for(settle(), timeout_s)
    except asyncio.TimeoutError:
        return False
    return not lazy.closed


_SETTLED = frozenset({grpc.ChannelConnectivity.READY, grpc.ChannelConnectivity.SHUTDOWN})


class _Fork:
    """Whether this process was forked from one with open channels."""

    def __init__(self) -> None:
        self.supported = os.environ.get("GRPC_ENABLE_FORK_SUPPORT", "").lower() in {
            "1",
            "true",
            "yes",
        }
        self.broken = False
        # Kept, since gRPC cannot safely close the parent's channels in the child either.
        self.abandoned: list[Any] = []

    def in_child(self) -> None:
        open_channels = [channel.forked() for channel in list(_living)]
        if any(open_channels) and not self.supported:
            self.broken = True


_living: "weakref.WeakSet[LazyChannel[Any, Any]]" = weakref.WeakSet()
_fork = _Fork()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_fork.in_child)
