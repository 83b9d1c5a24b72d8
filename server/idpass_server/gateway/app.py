"""The ASGI application: the routes of the contract, its OpenAPI document and its pages."""

import ipaddress
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import urlsplit

import grpc
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from idpass_server.gateway import errors, messages
from idpass_server.gateway.api import Api, Receive, Scope, Send, respond, response_of
from idpass_server.gateway.errors import HttpError
from idpass_server.gateway.events import Events
from idpass_server.gateway.routes import EVENTS_PATH, routes

HERE: Final = Path(__file__).parent
STATIC: Final = HERE / "static"
PAGE_HEADERS: Final = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-cache",
}

Reset = Callable[[], Awaitable[None]]


class App:
    """
    Args:
        channel: to the service.
        grpc_address: of the service, for the commands that the sandbox page shows.
        reset: makes the sandbox's mock data anew; None where there is no sandbox.
    """

    def __init__(
        self, channel: grpc.aio.Channel, grpc_address: str, reset: Reset | None = None
    ) -> None:
        self._channel = channel
        self._events = Events(channel)
        self._grpc_address = grpc_address
        self._reset = reset
        table: list[BaseRoute] = [Route(r.path, Api(r, channel)) for r in routes()]
        table += [
            Route(EVENTS_PATH, self._events),
            Route("/openapi.json", _file(HERE / "openapi.json", "application/json")),
            Route("/docs", _file(STATIC / "docs.html", "text/html")),
            Mount("/static", _Static(directory=STATIC)),
        ]
        if reset is None:
            table.append(Route("/", lambda _: RedirectResponse("/docs")))
        else:
            table += [
                Route("/", _file(STATIC / "sandbox.html", "text/html")),
                Route("/sandbox", self._sandbox),
                Route("/sandbox/reset", self._make_anew, methods=["POST"]),
            ]
        self._app = Starlette(
            routes=table,
            exception_handlers={HTTPException: _http, HttpError: _refused, Exception: _fault},
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not _meant_for_here(scope):
            error = errors.unreadable(
                "the Host header does not name this machine, so that the request may come from a "
                "web page that should not get here; a proxy has to send Host: localhost",
                http_status=421,
            )
            await respond(send, *response_of(error))
            return
        await self._app(scope, receive, send)

    def close(self) -> None:
        """Ends the streams, which would not end by themselves."""
        self._events.close()

    async def _sandbox(self, _request: Request) -> Response:
        """What the page has to know beside the API."""
        return JSONResponse({"grpc_address": self._grpc_address})

    async def _make_anew(self, request: Request) -> Response:
        # Another site's page can have a form sent here, but not of this type.
        if request.headers.get("content-type") != "application/json":
            raise errors.unreadable("send Content-Type: application/json", http_status=415)
        if self._reset is not None:
            await self._reset()
            # Or who asks next would be told that the service cannot be reached.
            await self._channel.channel_ready()
        return JSONResponse({})


def _meant_for_here(scope: Scope) -> bool:
    """Whether the Host is this machine, as with every program that was given the address.

    A web page elsewhere can have its own name resolve to 127.0.0.1, and its scripts then get
    here as if this were its own server; the name gives it away.
    """
    for name, value in scope["headers"]:
        if name == b"host":
            return value in _HOSTS or _is_loopback(value)
    return True


_HOSTS: Final[set[bytes]] = set()


def _is_loopback(value: bytes) -> bool:
    try:
        host = urlsplit(b"//" + value).hostname or b""
        found = host == b"localhost" or ipaddress.ip_address(host.decode()).is_loopback
    except ValueError:
        return False
    if found and len(_HOSTS) < 100:  # noqa: PLR2004 there are few; nobody may fill the memory
        _HOSTS.add(value)
    return found


def _file(path: Path, media_type: str) -> Callable[[Request], Awaitable[Response]]:
    async def send(_request: Request) -> Response:
        return FileResponse(path, media_type=media_type, headers=PAGE_HEADERS)

    return send


class _Static(StaticFiles):
    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers.update(PAGE_HEADERS)
        return response


def _refused(_request: Request, error: Exception) -> Response:
    error = cast("HttpError", error)
    headers = dict(error.headers) | {"cache-control": "no-store"}
    return Response(error.body(), error.http_status, headers, "application/json")


def _http(request: Request, error: Exception) -> Response:
    """What Starlette turns away: paths that do not exist, and methods."""
    error = cast("HTTPException", error)
    what = f"{request.method} {messages.shown(request.url.path)}"
    text = f"there is no {what} here; see /docs"
    headers = list((error.headers or {}).items())
    return _refused(
        request, errors.unreadable(text, http_status=error.status_code, headers=headers)
    )


def _fault(request: Request, _error: Exception) -> Response:
    return _refused(request, errors.fault())
