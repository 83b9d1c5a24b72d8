"""The pages and what they are made of, read once and sent from memory.

A browser that opens the sandbox for the first time asks for some thirty files over six connections;
what each of them takes here, the first paint waits for.
"""

import hashlib
import mimetypes
from pathlib import Path
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from idpass_server.gateway import packing

LEVEL: Final = 9
"""Compression level: it is done once."""
HEADERS: Final = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-cache",
    "vary": "accept-encoding",
}


class Page:
    """A file; `show` is the endpoint of its route.

    Args:
        path: is read now.

    Raises:
        OSError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._body = path.read_bytes()
        self._packed = packing.packed(self._body, LEVEL)
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        self._headers = {
            **HEADERS,
            "content-type": f"{kind}; charset=utf-8",
            "etag": f'"{hashlib.sha256(self._body).hexdigest()[:32]}"',
        }

    async def show(self, request: Request) -> Response:
        if request.headers.get("if-none-match") == self._headers["etag"]:
            return Response(status_code=304, headers=self._headers)
        if packing.accepted(request.scope["headers"]):
            name, value = packing.HEADER
            return Response(self._packed, headers={**self._headers, name: value})
        return Response(self._body, headers=self._headers)


class Folder:
    """The files in a folder, not those in folders within it; `show` is the endpoint of `{name}`.

    Args:
        path: is read now.
    """

    def __init__(self, path: Path) -> None:
        self._pages = {each.name: Page(each) for each in path.iterdir() if each.is_file()}

    async def show(self, request: Request) -> Response:
        page = self._pages.get(request.path_params["name"])
        if page is None:
            raise HTTPException(404)
        return await page.show(request)
