"""The ASGI application: the routes of the contract, its OpenAPI document and its pages."""

import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any, Final, cast

import grpc
import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from idpass_server import addresses
from idpass_server.gateway import errors, messages
from idpass_server.gateway.api import (
    Api,
    Receive,
    Scope,
    Send,
    answer_headers,
    refuse_forms,
    respond_error,
)
from idpass_server.gateway.errors import HttpError
from idpass_server.gateway.events import Events
from idpass_server.gateway.inbox import PATH as INBOX_PATH
from idpass_server.gateway.inbox import Inbox
from idpass_server.gateway.pages import Folder, Page
from idpass_server.gateway.routes import EVENTS_PATH, UUID, routes
from idpass_server.gateway.shows import STAGE_PATH, VOLLEY_PATH, Shows
from idpass_server.gateway.stages import OpenStage

HERE: Final = Path(__file__).parent
STATIC: Final = HERE / "static"
log = structlog.get_logger()

_REAL: Final = {b'<body class="app">': b'<body class="app real">'}
"""What differs in the page of real passes."""

Reset = Callable[[], Awaitable[None]]
Observe = Callable[[str, str, float], None]
"""Receives a request's route, the status of its answer, and its duration in seconds."""

OTHER: Final = "other"
"""Route of requests for a path that has none here: strangers must not make up new ones."""
NO_ANSWER: Final = "none"
"""Status of a request whose client left before the answer began."""


class App:
    """The gateway as an ASGI application.

    Args:
        channel: to the service.
        grpc_address: of the service, for the commands that the sandbox page shows.
        reset: replaces the sandbox's mock data; None without a sandbox.
        observe: is told of each request that has ended; None if nobody asks.
        inbox: of the sandbox; None without one.
        open_stage: makes a service with faults, for the sandbox's shows; None without a sandbox.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        grpc_address: str,
        reset: Reset | None = None,
        observe: Observe | None = None,
        *,
        inbox: Inbox | None = None,
        open_stage: OpenStage | None = None,
    ) -> None:
        self._observe = observe
        self._channel = channel
        self._events = Events(channel)
        self._grpc_address = grpc_address
        self._reset = reset
        table: list[BaseRoute] = [Route(EVENTS_PATH, self._events)]
        # A path with a variable matches the others too, and comes after them.
        for route in sorted(routes(), key=lambda route: bool(route.variable)):
            api = Api(route, channel)
            table.append(
                Route(route.path, _OfUuids(route.variable, api) if route.variable else api)
            )
        table += [
            Route("/openapi.json", Page(HERE / "openapi.json").show),
            Route("/", Page(STATIC / "sandbox.html", _REAL if reset is None else {}).show),
            Route("/docs", Page(STATIC / "docs.html").show),
            Route("/static/{name}", Folder(STATIC).show),
            Route("/sandbox", self._sandbox),
        ]
        if reset is not None:
            table.append(Route("/sandbox/reset", self._make_anew, methods=["POST"]))
        if inbox is not None:
            table += [
                Route(INBOX_PATH, inbox.show, methods=["GET"]),
                Route(INBOX_PATH, inbox.receive, methods=["POST"]),
                Route(f"{INBOX_PATH}/switch", inbox.switch, methods=["POST"]),
            ]
        self._shows = Shows(channel, open_stage) if open_stage is not None else None
        if self._shows is not None:
            table += self._shows.routes()
        self._app = Starlette(
            routes=table,
            exception_handlers={HTTPException: _http, HttpError: _refused, Exception: _fault},
        )
        # A redirect would be built from the Host header, and would lose the body.
        self._app.router.redirect_slashes = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._observe is None:
            await self._answer(scope, receive, send)
            return
        begun_s = time.monotonic()
        status = NO_ANSWER

        async def told(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        try:
            await self._answer(scope, receive, told)
        finally:
            self._observe(_route_of(scope["path"]), status, time.monotonic() - begun_s)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            _check(scope)
        except HttpError as error:
            await respond_error(send, error)
            return
        try:
            await self._app(scope, receive, send)
        except Exception as error:
            log.error(
                "fault", path=messages.shown(scope["path"]), exc_info=error
            )  # Starlette has answered it with a 500

    def close(self) -> None:
        """Ends the event streams and the show, which would not end by themselves."""
        self._events.close()
        if self._shows is not None:
            self._shows.close()

    async def _sandbox(self, _request: Request) -> Response:
        """What the pages need to know beyond the API: whether the data are mock, for one."""
        if self._reset is None:
            return JSONResponse({"sandbox": False})  # where gRPC listens is nobody's business
        return JSONResponse({"sandbox": True, "grpc_address": self._grpc_address})

    async def _make_anew(self, request: Request) -> Response:
        refuse_forms(request)
        if self._reset is not None:
            await self._reset()
            # Otherwise the next request would find the service unreachable.
            await self._channel.channel_ready()
        return JSONResponse({})


def _check(scope: Scope) -> None:
    """Refuses requests from other sites' web pages.

    Such a page can make its own name resolve to 127.0.0.1, and its scripts then reach this server
    as if it were the page's own (DNS rebinding); the Host header gives it away. It can also send
    requests blindly; browsers mark those in Sec-Fetch-Site. Following a link does no harm.

    Raises:
        HttpError: the request is refused.
    """
    path = scope["path"]
    for name, value in scope["headers"]:
        if name == b"host" and not (value in _HOSTS or _is_loopback(value)):
            raise errors.unreadable(
                "the Host header does not name this machine, so the request may come from another "
                "site's web page; a proxy has to send Host: localhost",
                http_status=421,
            )
        if name == b"sec-fetch-site" and value not in _OWN_SITES and path not in _PAGES:
            raise errors.unreadable(
                "the request comes from a web page of another site (Sec-Fetch-Site)",
                http_status=403,
            )
    if b"%" in scope["raw_path"]:
        # No path here needs an escape, and a proxy may have judged the path without decoding it.
        raise _no_such(scope)


_HOSTS: Final[set[bytes]] = set()
"""Cache of Host headers that were accepted."""
_HOST: Final = re.compile(rb"(localhost|[0-9.]+|\[[0-9a-f:]+\])(:[0-9]{1,5})?", re.IGNORECASE)
_OWN_SITES: Final = {b"same-origin", b"none"}
_PAGES: Final = {"/", "/docs"}


def _is_loopback(value: bytes) -> bool:
    match = _HOST.fullmatch(value)
    if match is None:
        return False
    found = addresses.is_loopback(match[1].decode().lower().strip("[]"))
    if found and len(_HOSTS) < 100:  # noqa: PLR2004 few exist; strangers must not fill the memory
        _HOSTS.add(value)
    return found


def _no_such(scope: Scope) -> HttpError:
    what = f"{scope['method']} {messages.shown(scope['path'])}"
    meant = scope["path"].rstrip("/")
    other = meant != scope["path"] and _route_of(meant) in _PATHS
    there = f"; the path is {meant}" if other else ""
    return errors.unreadable(f"there is no {what} here{there}; see /docs", http_status=404)


_OWN_PATHS: Final = {
    *("/", "/docs", "/openapi.json", "/sandbox", "/sandbox/reset"),
    *(INBOX_PATH, VOLLEY_PATH, STAGE_PATH),
}
_PATHS: Final = {EVENTS_PATH, *(route.path for route in routes())}


_PARENTS: Final = {path.partition("{")[0]: path for path in _PATHS if path.endswith("}")}
"""Paths that end in a variable, by what is before it."""


def _route_of(path: str) -> str:
    """The route of a path, with the variable's name in place of what it stands for."""
    if path in _PATHS or path in _OWN_PATHS:
        return path
    parent, slash, name = path.rpartition("/")
    return _PARENTS.get(parent + slash, OTHER) if UUID.fullmatch(name) else OTHER


class _OfUuids:
    """Passes on requests whose path has a UUID for its variable; other paths do not exist."""

    def __init__(self, variable: str, api: Api) -> None:
        self._variable = variable
        self._api = api

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not UUID.fullmatch(scope["path_params"][self._variable]):
            raise HTTPException(404)
        await self._api(scope, receive, send)


# The handlers are coroutines, since Starlette runs others in threads.


async def _refused(_request: Request, error: Exception) -> Response:
    error = cast("HttpError", error)
    await error.turn()
    response = Response(status_code=error.http_status)
    response.body = error.body()
    response.raw_headers = answer_headers(response.body, error.headers)
    return response


async def _http(request: Request, error: Exception) -> Response:
    """Answers what Starlette refuses: unknown paths, and methods that a path does not have."""
    error = cast("HTTPException", error)
    refusal = _no_such(request.scope)
    if error.status_code != refusal.http_status:
        text = f"{request.method} is not for {messages.shown(request.url.path)}; see /docs"
        headers = list((error.headers or {}).items())
        refusal = errors.unreadable(text, http_status=error.status_code, headers=headers)
    return await _refused(request, refusal)


async def _fault(request: Request, _error: Exception) -> Response:
    return await _refused(request, errors.fault())
