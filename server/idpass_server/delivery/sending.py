"""One request to a receiver: bounded in time and size, to an address that was judged.

A name is resolved once for each connection, on threads of this module's own: a resolver that hangs
holds up nobody else. Every address is judged when the name is resolved, and again at the moment at
which its socket is made, which also covers addresses written as numbers.
"""

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from email.utils import parsedate_to_datetime
from types import SimpleNamespace
from typing import Any, Final, NamedTuple

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from idpass_server.delivery.addresses import Addresses
from idpass_server.rules.webhooks import ANSWER_BYTES, SECOND_US

TOTAL_S: Final = 10.0
"""Deadline of a request, from resolving the name to the end of the answer, seconds."""
READ_BYTES: Final = 65_536
"""Largest part of an answer's body that is read."""
HEADER_BYTES: Final = 8_192
"""Largest length of a line of an answer's head."""
IDLE_S: Final = 15.0
"""How long a connection is kept for the next request, seconds."""
MAX_LOOKUPS: Final = 16
"""Number of names that are being resolved at the same time."""
_HEADERS: Final = {
    "content-type": "application/json",
    "user-agent": "idpass-server-webhooks",
    "accept-encoding": "identity",
}
# The first that fits.
_WORDS: Final[tuple[tuple[type[BaseException], str], ...]] = (
    (TimeoutError, "timeout"),
    (aiohttp.ClientConnectorDNSError, "name not resolved"),
    (aiohttp.ClientSSLError, "TLS failed"),
    (ssl.SSLError, "TLS failed"),
    (aiohttp.ClientConnectorError, "connection failed"),
    (aiohttp.ClientResponseError, "answer not valid"),
    (aiohttp.ClientPayloadError, "answer not valid"),
    (aiohttp.ClientError, "connection closed"),
    (OSError, "connection closed"),
)


class Sent(NamedTuple):
    """What came of a request.

    Attributes:
        duration_ms: how long it took.
        status_code: of the answer; None without one.
        error: why there was no answer, in a few words; "" with an answer.
        answer: the first ANSWER_BYTES of the answer's body.
        retry_after_us: what the answer's Retry-After asks for; 0 without one.
    """

    duration_ms: int
    status_code: int | None
    error: str = ""
    answer: str = ""
    retry_after_us: int = 0


class _Refused(OSError):
    """An address that may not be connected to."""


class Sender:
    """Sends requests. Create it on the event loop, and close it there.

    Args:
        addresses: judges where to.
    """

    def __init__(self, addresses: Addresses) -> None:
        lookups = _Lookups()
        # Certificates of the system's authorities, or of SSL_CERT_FILE.
        tls = ssl.create_default_context()
        self._sessions = {
            scheme: aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    resolver=_Resolver(lookups, addresses, scheme),
                    socket_factory=_socket_factory(addresses, scheme),
                    ssl=tls,
                    use_dns_cache=False,
                    limit=0,  # what is under way is limited by who sends
                    keepalive_timeout=IDLE_S,
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers=_HEADERS,
                auto_decompress=False,
                trust_env=False,
                timeout=aiohttp.ClientTimeout(total=None),  # the one in `post` is about everything
                max_line_size=HEADER_BYTES,
                max_field_size=HEADER_BYTES,
                trace_configs=[_noting_reuse()],
            )
            for scheme in ("https", "http")
        }

    async def close(self) -> None:
        """Closes all connections."""
        for session in self._sessions.values():
            await session.close()

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Sent:
        """Sends a request and reads what matters of the answer; raises nothing.

        Args:
            url: where to, as `Addresses.check` returned it.
            headers: beside those that every request has.
            body: in JSON.
        """
        began_s = time.monotonic()
        try:
            async with asyncio.timeout(TOTAL_S):
                sent = await self._post(url, headers, body)
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            sent = Sent(0, None, _why(error))
        return sent._replace(duration_ms=round((time.monotonic() - began_s) * 1_000))

    async def _post(self, url: str, headers: Mapping[str, str], body: bytes) -> Sent:
        session = self._sessions[url.partition(":")[0]]
        noted = SimpleNamespace(reused=False)
        while True:
            try:
                async with session.post(
                    url, data=body, headers=headers, allow_redirects=False, trace_request_ctx=noted
                ) as response:
                    return await _read(response)
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                # The receiver may have closed a kept connection as we used it.
                if not noted.reused:
                    raise
                noted.reused = False


async def _read(response: aiohttp.ClientResponse) -> Sent:
    read = bytearray()
    async for chunk in response.content.iter_any():
        read += chunk
        if len(read) >= READ_BYTES:
            response.close()  # or it would be read to the end for the next request
            break
    retry_after_us = _retry_after_us(response.headers.get("retry-after", ""))
    return Sent(0, response.status, "", _text(bytes(read[:ANSWER_BYTES])), retry_after_us)


def _text(answer: bytes) -> str:
    """An answer as text that every database and terminal takes."""
    text = answer.decode(errors="replace")
    return "".join(
        c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text
    )


def _retry_after_us(value: str) -> int:
    """The delay in a Retry-After header, given in seconds or as a date; 0 if it is neither."""
    if value.isascii() and value.isdigit():
        return int(value[:9]) * SECOND_US
    try:
        until_s = parsedate_to_datetime(value).timestamp()
    except (ValueError, TypeError, OverflowError):
        return 0
    return max(0, int((until_s - time.time()) * SECOND_US))


def _why(error: BaseException) -> str:
    """Why there was no answer, in words for the endpoint's owner, without inner addresses."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, _Refused):
            return "address not allowed"
        cause = cause.__cause__ or getattr(cause, "os_error", None)
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        said = getattr(error.certificate_error, "verify_message", "")
        return f"certificate not valid: {said}" if said else "certificate not valid"
    return next((words for kind, words in _WORDS if isinstance(error, kind)), "not sent")


def _noting_reuse() -> aiohttp.TraceConfig:
    async def note(_session: object, context: Any, _params: object) -> None:
        context.trace_request_ctx.reused = True

    config = aiohttp.TraceConfig()
    config.on_connection_reuseconn.append(note)
    return config


def _socket_factory(addresses: Addresses, scheme: str) -> Callable[[Any], socket.socket]:
    def make(info: Any) -> socket.socket:
        family, kind, protocol, _, address = info
        if addresses.judge(str(address[0]), scheme) is not None:
            raise _Refused
        made = socket.socket(family, kind, protocol)
        made.setblocking(False)
        return made

    return make


class _Resolver(AbstractResolver):
    """Resolves names for connections of one scheme."""

    def __init__(self, lookups: "_Lookups", addresses: Addresses, scheme: str) -> None:
        self._lookups = lookups
        self._addresses = addresses
        self._scheme = scheme

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await self._lookups.resolve(host)
        results: list[ResolveResult] = []
        for kind, address in found:
            # One that is not allowed speaks against the name, not only against itself.
            if self._addresses.judge(address, self._scheme) is not None:
                raise _Refused
            if family in (socket.AF_UNSPEC, kind):
                results.append(
                    ResolveResult(
                        hostname=host,
                        host=address,
                        port=port,
                        family=kind,
                        proto=socket.IPPROTO_TCP,
                        flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
                    )
                )
        if not results:
            raise OSError("no address")
        return results

    async def close(self) -> None:
        pass


Found = list[tuple[socket.AddressFamily, str]]


class _Lookups:
    """Resolves names on daemon threads, which nothing waits for; one for a name at a time."""

    def __init__(self) -> None:
        self._room = asyncio.Semaphore(MAX_LOOKUPS)
        self._under_way: dict[str, asyncio.Future[Found]] = {}

    async def resolve(self, host: str) -> Found:
        lookup = self._under_way.get(host)
        if lookup is None:
            await self._room.acquire()
            lookup = self._under_way.get(host)
            if lookup is None:
                lookup = self._begin(host)
            else:
                self._room.release()
        return await asyncio.shield(lookup)

    def _begin(self, host: str) -> "asyncio.Future[Found]":
        loop = asyncio.get_running_loop()
        lookup: asyncio.Future[Found] = loop.create_future()
        lookup.add_done_callback(_looked_at)
        self._under_way[host] = lookup

        def settle(found: Found | None) -> None:
            self._under_way.pop(host, None)
            self._room.release()
            if found is None:
                lookup.set_exception(socket.gaierror(f"{host} cannot be resolved"))
            else:
                lookup.set_result(found)

        def run() -> None:
            try:
                found = _look_up(host)
            except OSError:
                found = None
            with suppress(RuntimeError):  # the loop may have ended
                loop.call_soon_threadsafe(settle, found)

        threading.Thread(target=run, name="lookup", daemon=True).start()
        return lookup


def _looked_at(lookup: "asyncio.Future[Found]") -> None:
    """Marks a failure as seen: who asked may have given up."""
    lookup.exception()


def _look_up(host: str) -> Found:
    """Asks the system for a name's addresses; tests put another in its place."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return [(family, str(address[0])) for family, _, _, _, address in found]
