"""The sandbox's shows: calls that are sent together, and a service with faults to send calls to.

POST /sandbox/volley sends calls to the sandbox's own service. POST /sandbox/stage makes a service
with faults and says, a line of JSON each, what happens to it; the stage lasts as long as somebody
reads, and STAGE_S at most. Meanwhile /sandbox/stage/{number}/idpass/… is the API in front of it.
There is one stage at a time.
"""

import asyncio
import contextlib
import itertools
import json
import time
from collections.abc import AsyncGenerator
from typing import Any, Final

import grpc
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from idpass_server.gateway import errors
from idpass_server.gateway.api import (
    CALL_S,
    Api,
    Receive,
    Scope,
    Send,
    headers_of,
    metadata_of,
    respond_error,
)
from idpass_server.gateway.errors import HttpError
from idpass_server.gateway.routes import HttpRoute, routes
from idpass_server.gateway.stages import Faults, OpenStage, Stage
from idpass_server.gateway.volleys import asked, only, volley, whole

VOLLEY_PATH: Final = "/sandbox/volley"
STAGE_PATH: Final = "/sandbox/stage"
STAGE_S: Final = 45.0
"""Time after which a stage is taken down, seconds; a show takes about five."""
MAX_SLOW_MS: Final = 1_000
MAX_SLOTS: Final = 1_000
CHANNEL_OPTIONS: Final[list[tuple[str, Any]]] = [
    ("grpc.primary_user_agent", "idpass-sandbox"),
    ("grpc.enable_http_proxy", 0),
    # Each stage's address may have been that of another one.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 100),
]


class _Played:
    """A stage that has begun: its channel, once it serves, and the API in front of it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.channel: grpc.aio.Channel | None = None
        self.apis: dict[str, Api] = {}

    async def serves(self, address: str) -> None:
        if self.channel is None:
            self.channel = grpc.aio.insecure_channel(address, CHANNEL_OPTIONS)
            self.apis = {each.path: Api(each, self.channel) for each in _staged()}
        async with asyncio.timeout(CALL_S):
            await self.channel.channel_ready()


def _staged() -> list[HttpRoute]:
    """The routes that a stage has: those without a variable in their path."""
    return [each for each in routes() if each.variable is None]


class Shows:
    """
    Args:
        channel: to the sandbox's own service.
        open_stage: makes a service with faults.
    """

    def __init__(self, channel: grpc.aio.Channel, open_stage: OpenStage) -> None:
        self._channel = channel
        self._open_stage = open_stage
        self._numbers = itertools.count(1)
        self._played: _Played | None = None
        self._closing = asyncio.Event()

    def routes(self) -> list[BaseRoute]:
        """Those of all shows."""
        staged = [
            Route(f"{STAGE_PATH}/{{number:int}}{each.path}", _OnStage(self, each.path))
            for each in _staged()
        ]
        return [
            Route(VOLLEY_PATH, self._send, methods=["POST"]),
            Route(STAGE_PATH, _Opening(self)),
            Route(f"{STAGE_PATH}/{{number:int}}/volley", self._send_on_stage, methods=["POST"]),
            *staged,
        ]

    def close(self) -> None:
        """Takes down the stage, which would last as long as somebody reads."""
        self._closing.set()

    def on(self, number: int) -> _Played:
        """The stage of that number.

        Raises:
            HttpError: it is not there, or not yet.
        """
        played = self._played
        if played is None or played.number != number or played.channel is None:
            text = f"there is no stage {number} now; begin with POST {STAGE_PATH}"
            raise errors.unreadable(text, http_status=404)
        return played

    async def _send(self, request: Request) -> Response:
        metadata = metadata_of(headers_of(request.scope))
        return JSONResponse(await volley(self._channel, await asked(request), metadata))

    async def _send_on_stage(self, request: Request) -> Response:
        channel = self.on(request.path_params["number"]).channel
        assert channel is not None  # noqa: S101 `on` says so
        return JSONResponse(await volley(channel, await asked(request)))

    async def play(
        self, faults: Faults, gone: "asyncio.Future[None]"
    ) -> AsyncGenerator[dict[str, Any], None]:
        """What happens on a stage, until `gone`, for STAGE_S, or to its own end.

        Raises:
            HttpError: another one is played.
        """
        if self._played is not None:
            raise errors.busy("Another show is being played in this sandbox; wait until it ends.")
        self._played = played = _Played(next(self._numbers))
        begun_s = time.monotonic()
        closing = asyncio.ensure_future(self._closing.wait())
        try:
            yield {"event": "stage", "stage": played.number}
            async with self._open_stage(faults) as stage:
                async for news in self._news(stage, played, gone, closing, begun_s + STAGE_S):
                    yield news
        finally:
            closing.cancel()
            self._played = None
            if played.channel is not None:
                await played.channel.close()

    async def _news(
        self,
        stage: Stage,
        played: _Played,
        gone: "asyncio.Future[None]",
        closing: "asyncio.Future[Any]",
        until_s: float,
    ) -> AsyncGenerator[dict[str, Any], None]:
        while True:
            coming: asyncio.Future[Any] = asyncio.ensure_future(stage.next())
            try:
                await asyncio.wait(
                    [coming, gone, closing],
                    timeout=until_s - time.monotonic(),
                    return_when=asyncio.FIRST_COMPLETED,
                )
            finally:
                if not coming.done():
                    coming.cancel()
            if not coming.done():
                if not gone.done():
                    yield {"event": "over", "after_s": STAGE_S}
                return
            news = coming.result()
            if news is None:
                return
            if news["event"] == "serving":
                try:
                    await played.serves(news["listen"])
                except TimeoutError:
                    yield {"event": "failed", "why": "it cannot be reached"}
                    return
            yield news


class _OnStage:
    """The ASGI application of one route of the API, in front of the service on stage."""

    def __init__(self, shows: Shows, path: str) -> None:
        self._shows = shows
        self._path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            api = self._shows.on(scope["path_params"]["number"]).apis[self._path]
        except HttpError as error:
            await respond_error(send, error)
            return
        await api(scope, receive, send)


class _Opening:
    """The ASGI application that makes a stage, and says what happens on it while it is read."""

    def __init__(self, shows: Shows) -> None:
        self._shows = shows

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if scope["method"] != "POST":
                text = f"{scope['method']} is not for {STAGE_PATH}; send POST"
                raise errors.unreadable(text, http_status=405, headers=[("allow", "POST")])
            faults = _faults(await asked(Request(scope, receive)))
        except HttpError as error:
            await respond_error(send, error)
            return
        gone = asyncio.ensure_future(_gone(receive))
        try:
            async with contextlib.aclosing(self._shows.play(faults, gone)) as play:
                try:
                    first = await anext(play)
                except HttpError as error:
                    await respond_error(send, error)
                    return
                await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
                await _say(send, first)
                async for news in play:
                    await _say(send, news)
            with contextlib.suppress(OSError):
                await send({"type": "http.response.body", "body": b""})
        finally:
            gone.cancel()


_HEADERS: Final = [
    (b"content-type", b"application/x-ndjson"),
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-accel-buffering", b"no"),
]


def _faults(fields: dict[str, Any]) -> Faults:
    only(fields, "kills", "slow_ms", "slots")
    kills = fields.get("kills", False)
    if not isinstance(kills, bool):
        raise errors.unreadable("kills is not true or false")
    return Faults(
        kills,
        whole(fields.get("slow_ms", 0), "slow_ms", 0, MAX_SLOW_MS),
        whole(fields.get("slots", MAX_SLOTS), "slots", 1, MAX_SLOTS),
    )


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _say(send: Send, news: dict[str, Any]) -> None:
    line = json.dumps({"time_ms": time.time_ns() / 1e6, **news}, separators=(",", ":"))
    await send({"type": "http.response.body", "body": f"{line}\n".encode(), "more_body": True})
