"""Target: a request over HTTP, from its head and body to the call of the service.

The input is a request as on the wire: request line, headers, an empty line, and the body. What
reads the bytes off the wire is httptools and uvicorn, which are not under test: the harness splits
the head as they do, and leaves out what they refuse.

Promise: it is answered once, as JSON that says no more than it should, never with a fault; or the
service is called, with what the request says and nothing else, and the answer is passed on.
"""

import asyncio
import json
import re
from typing import Any, Final
from urllib.parse import parse_qsl, unquote

import grpc
from google.protobuf import json_format
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2

from idpass_server import trace_context
from idpass_server.gateway import errors, heads, messages
from idpass_server.gateway.app import App
from idpass_server.gateway.routes import EVENTS_PATH, WATCH, HttpRoute, routes
from kit.guided.mutating import of_message
from kit.guided.oracles import steers_nothing, tells_nothing_internal

ROUTES: Final[list[HttpRoute]] = list(routes())
STATUSES: Final = {400, 403, 404, 405, 413, 415, 421}
FORMS: Final = {
    "authorization": re.compile(r"[ -~]{1,4096}"),
    "idpass-tell-rate": re.compile("1"),
    "traceparent": re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}"),
    "tracestate": re.compile(r"[ -~]{1,512}"),
}
_NAME: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VERB: Final = re.compile(r"[A-Z]{1,10}")


class _Calls:
    """Stands for the channel to the service, and keeps what it is sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes, Any]] = []

    def unary_unary(self, path: str, **how: Any) -> Any:
        return lambda request, **more: _Call(self, path, request, how, more["metadata"])

    unary_stream = unary_unary


class _Call:
    def __init__(self, calls: _Calls, path: str, request: Message, how: Any, metadata: Any) -> None:
        calls.sent.append((path, how["request_serializer"](request), metadata))
        self._answer = how["response_deserializer"](b"")

    def __await__(self) -> Any:
        yield from ()
        return self._answer

    async def trailing_metadata(self) -> Any:
        return ()

    initial_metadata = trailing_metadata

    async def read(self) -> Any:
        return grpc.aio.EOF

    def cancel(self) -> None:
        pass


class _NoPace:
    async def turn(self) -> None:
        """Comes at once."""


CALLS: Final[Any] = _Calls()
APP: Final = App(CALLS, "127.0.0.1:50051")
LOOP: Final = asyncio.new_event_loop()
errors._PACE = _NoPace()  # type: ignore[misc,assignment]


def check(data: bytes) -> bool:
    """Returns whether the service was called."""
    request = _split(data)
    if request is None:
        return False
    verb, target, headers, body = request
    try:
        heads.check(target, "1.1", headers)
    except heads.Refused as refusal:
        tells_nothing_internal(str(refusal), data)
        return False
    CALLS.sent.clear()
    sent = LOOP.run_until_complete(_send(verb, target, headers, body))
    assert [each["type"] for each in sent] == ["http.response.start", "http.response.body"], sent
    status, answer = sent[0]["status"], sent[1].get("body", b"")
    _has_headers(sent[0]["headers"])
    if not CALLS.sent:
        _refused(verb, status, answer, data)
        return False
    assert status == (204 if target.startswith(EVENTS_PATH.encode()) else 200), answer
    (called,) = CALLS.sent
    _is_meant(called, verb, target, headers, body)
    return True


def _split(data: bytes) -> tuple[str, bytes, list[tuple[bytes, bytes]], bytes] | None:
    head, _, body = data.partition(b"\n\n")
    line, *lines = head.split(b"\n")
    verb, _, target = line.decode("latin-1").partition(" ")
    if not _VERB.fullmatch(verb):
        return None
    headers = [(b"host", b"localhost")]
    for each in lines:
        name, colon, value = each.partition(b": ")
        if not colon or not _NAME.fullmatch(name) or re.search(rb"[\x00-\x08\x0a-\x1f\x7f]", value):
            return None
        if name.lower() not in {b"host", b"content-length", b"transfer-encoding"}:
            headers.append((name.lower(), value.strip()))
        elif name.lower() == b"host":
            headers[0] = (b"host", value.strip())
    headers.append((b"content-length", str(len(body)).encode()))
    return verb, target.encode("latin-1"), headers, body


async def _send(verb: str, target: bytes, headers: Any, body: bytes) -> list[Any]:
    path, _, query = target.partition(b"?")
    scope = {
        "type": "http",
        "method": verb,
        "path": unquote(path.decode("ascii")),
        "raw_path": path,
        "query_string": query,
        "headers": headers,
        "scheme": "http",
        "http_version": "1.1",
        "root_path": "",
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8080),
    }
    half = len(body) // 2
    events = iter(
        [
            {"type": "http.request", "body": body[:half], "more_body": True},
            {"type": "http.request", "body": body[half:]},
        ]
    )
    sent: list[Any] = []

    async def receive() -> Any:
        return next(events, {"type": "http.disconnect"})

    async def send(message: Any) -> None:
        sent.append(message)

    await APP(scope, receive, send)
    return sent


def _has_headers(headers: Any) -> None:
    for name, value in headers:
        assert _NAME.fullmatch(name), name
        assert re.fullmatch(rb"[\t -~\x80-\xff]*", value), value


OWN: Final = {"/", "/docs", "/openapi.json", "/sandbox"}
"""Pages, which are answered without a call."""


def _refused(verb: str, status: int, answer: bytes, data: bytes) -> None:
    path = data.partition(b"\n")[0].decode("latin-1").partition(" ")[2].partition("?")[0]
    if status in {200, 304} and (path in OWN or path.startswith("/static/")):
        return
    assert status in STATUSES, (status, answer)
    if verb == "HEAD" and not answer:
        return
    said = json.loads(answer)
    json_format.ParseDict(said, status_pb2.Status())
    kinds = [detail["@type"].rpartition(".")[2] for detail in said["details"]]
    assert kinds[:2] == ["ErrorInfo", "RequestInfo"]
    assert said["code"] == 3
    assert said["details"][0]["reason"] == "INVALID_REQUEST"
    assert len(answer) < 40_000
    tells_nothing_internal(said["message"], data)
    steers_nothing(said["message"])


def _is_meant(
    called: tuple[str, bytes, Any], verb: str, target: bytes, headers: Any, body: bytes
) -> None:
    path, sent, metadata = called
    given = dict(headers)
    for key, value in metadata:
        assert FORMS[key].fullmatch(value), (key, value)
    told = dict(metadata)
    assert told.get("authorization", "").encode() == given.get(b"authorization", b"")
    if "traceparent" in told:
        assert trace_context.read(metadata)
    place, _, query = target.decode().partition("?")
    route = next((each for each in ROUTES if each.rpc == path and _leads(each, verb, place)), None)
    if route is None:
        assert (place, verb, path) == (EVENTS_PATH, "GET", "/idpass.v1.IdPassService/WatchIdPasses")
        _is_position(sent, given, query)
        return
    assert not query
    request = GetMessageClass(route.request).FromString(sent)
    again, wrong = messages.read(route.request, messages.render(request))
    assert not wrong, wrong.first
    assert again == request
    said = json.loads(body) if verb == "POST" else {}
    if route.variable:
        said = {route.variable: place.rpartition("/")[2]}
    if "request_id" in route.request.fields_by_name and b"idempotency-key" in given:
        key = given[b"idempotency-key"].decode()
        assert said.get("request_id") in {None, "", key}
        said["request_id"] = key
    _says(request, said)


def _leads(route: HttpRoute, verb: str, path: str) -> bool:
    if (route.verb, verb) not in {("POST", "POST"), ("GET", "GET"), ("GET", "HEAD")}:
        return False
    if not route.variable:
        return route.path == path
    return path.startswith(route.path.partition("{")[0])


def _is_position(sent: bytes, given: dict[bytes, bytes], query: str) -> None:
    request: Any = GetMessageClass(WATCH.input_type).FromString(sent)
    said = dict(parse_qsl(query, keep_blank_values=True))
    position = given.get(b"last-event-id", b"").decode("latin-1") or said.get("after_sequence", "0")
    assert request.after_sequence == int(position)
    assert request.id == said.get("id", "")


def _says(request: Any, said: Any) -> None:
    """Checks every scalar of a JSON object against the request."""
    for name, value in said.items():
        field = request.DESCRIPTOR.fields_by_name[name]
        if field.message_type is None and field.enum_type is None and not field.is_repeated:
            found = getattr(request, name)
            assert found == value or value is None, (name, found, value)
            assert value is None or isinstance(value, bool) == isinstance(found, bool), name


ID: Final = "0198c0de-0000-7000-8000-000000000001"
JSON: Final = b"Content-Type: application/json\n"
BODIES: Final = {
    "cancel": {"id": ID, "request_id": "r-1", "reason": "abandoned", "expected_status": "opened"},
    "batch-cancel": {"requests": [{"id": ID, "require_refund": True}, {"id": "x"}]},
    "register": {"link_validity_days": 14, "applicant_reference": "Žofie"},
    "advance": {"id": ID, "to_status": "in_progress"},
    "details": {"id": ID},
    "list": {"page_size": 2, "statuses": ["new"], "idle_before": "2026-11-23T09:30:00.5Z"},
}
SEEDS: Final = [
    *(
        f"POST /idpass/{name}\n".encode() + JSON + b"\n" + json.dumps(body).encode()
        for name, body in BODIES.items()
    ),
    b"POST /idpass/register\nAuthorization: Bearer abc\nIdempotency-Key: r-2\n"
    b"traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\n"
    b"tracestate: a=1,b=2\n" + JSON + b'\n{"request_id":"r-2"}',
    b"GET " + EVENTS_PATH.encode() + b"?after_sequence=7&id=" + ID.encode() + b"\n\n",
    b"GET " + EVENTS_PATH.encode() + b"\nLast-Event-ID: 42\n\n",
    *(
        f"{route.verb} {route.path.replace('{id}', ID)}\n\n".encode()
        for route in ROUTES
        if route.verb == "GET"
    ),
]
MORE: Final = [
    b"POST /idpass/cancel\nContent-Type: text/plain\n\n{}",
    b"GET /idpass/events?after_sequence=1&after_sequence=2\n\n",
    b"POST /idpass/cancel?x=1\n" + JSON + b"\n{}",
    b"GET /%69dpass/events\nHost: example.com\nSec-Fetch-Site: cross-site\n\n",
    b"DELETE /idpass/register\nContent-Encoding: gzip\n\n",
]
WORDS: Final = [
    *(f" {route.path.partition('{')[0]}".encode() for route in ROUTES),
    *(b"POST ", b"GET ", b"HEAD ", JSON, b"Authorization: ", b"Idempotency-Key: ", b"Host: "),
    *(b"Last-Event-ID: ", b"Sec-Fetch-Site: ", b"traceparent: ", b"tracestate: ", b"127.0.0.1:1"),
    *(b"\\ud800", b"\\u0000", b"1e400", b"NaN", b"null", b"true", b"2.0", b"[[", b'":{"', b"\xff"),
    *(
        b"9223372036854775808",
        b"-1",
        b"9" * 40,
        b"%00",
        b"%2e",
        b"\xc2\x85",
        b"\xe2\x80\xae",
        b"\t",
    ),
    *(b"; charset=utf-8", b"[::1]", b"localhost", b"0001-01-01T00:00:00Z", b"+23:59", ID.encode()),
]
DETAILS: Final = error_details_pb2.DESCRIPTOR  # so that the details of an error can be parsed
mutate: Final = of_message(
    WORDS, sorted({field.name for route in ROUTES for field in route.request.fields} | {"other"})
)
