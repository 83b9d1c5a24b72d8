"""Forwards events to a receiver on this machine, as the service would send them to a webhook.

For developers: no public address is needed, since the events come over WatchIdPasses. An event is
sent once, whatever the answer; the position is kept in a file, so that the next run goes on where
this one stopped.
"""

import base64
import contextlib
import hashlib
import http.client
import json
import os
import secrets
import ssl
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from idpass import _http_json
from idpass._records import Event, IdPass
from idpass._words import Status
from idpass.client import IdPassClient
from idpass.errors import NotFound
from idpass.webhooks import PREFIX, sign

TIMEOUT_S = 10.0
"""Time that the receiver has to answer, as with a webhook, seconds."""
SECRET_BYTES = 32
ANSWER_BYTES = 1_024
"""Length of the part of an answer that is shown."""


@dataclass(frozen=True)
class Forwarded:
    """What came of one event.

    Attributes:
        status_code: HTTP status of the answer; 0 without one.
        error: why there was no answer, or "".
        answer: the first ANSWER_BYTES of the answer's body, as text.
    """

    event: Event
    type: str
    message_id: str
    status_code: int
    error: str
    duration_ms: int
    answer: str


class Position:
    """Where a receiver's events go on, and the secret that they are signed with, in a file.

    Args:
        path: of the file; it is made when there is something to keep.

    Raises:
        ValueError: the file is not one of these.
        OSError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.sequence: int | None = None
        self.secret = PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()
        with contextlib.suppress(FileNotFoundError):
            try:
                kept = json.loads(path.read_text())
                self.sequence, self.secret = int(kept["sequence"]), str(kept["secret"])
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f"{path} is not a position of `idpass listen`; remove it to start anew"
                ) from error

    def keep(self, sequence: int) -> None:
        """Keeps the sequence of the newest event that was sent."""
        self.sequence = sequence
        self._path.parent.mkdir(parents=True, exist_ok=True)
        written = self._path.with_suffix(".new")
        content = json.dumps({"sequence": sequence, "secret": self.secret})
        with open(os.open(written, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:  # noqa: PTH123 with a mode
            file.write(content)
        written.replace(self._path)


def position_path(address: str, account: str, url: str) -> Path:
    """Where the position of a receiver is kept, by the XDG Base Directory Specification."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state"
    name = hashlib.sha256(f"{address} {account} {url}".encode()).hexdigest()[:16]
    return Path(state) / "idpass" / f"listen-{name}.json"


def check_url(url: str) -> str:
    """
    Raises:
        ValueError: it is not an http or https URL with a host.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError(f"{url!r} is not a URL such as http://localhost:3000/hook")
    _ = parts.port  # raises where it is not a number
    return url


def forward(
    client: IdPassClient, url: str, position: Position, statuses: Collection[Status]
) -> Iterator[Forwarded]:
    """Sends each event to a receiver as it happens.

    Args:
        client: watches the events.
        url: of the receiver, checked.
        position: where to start; kept after each event.
        statuses: only events of these; empty for all.

    Raises:
        IdPassError: the events cannot be watched.
    """
    history = getattr(client.account(), "history", "")
    for event in client.watch(after_sequence=position.sequence or 0):
        if not statuses or event.to_status in statuses:
            yield _send(url, position.secret, history, event, _pass_of(client, event))
        position.keep(event.sequence)


def _pass_of(client: IdPassClient, event: Event) -> IdPass | None:
    with contextlib.suppress(NotFound):
        return client.get(event.id)
    return None


def _send(url: str, secret: str, history: str, event: Event, id_pass: IdPass | None) -> Forwarded:
    kind = _kind(event)
    data: dict[str, Any] = {"history": history, "event": _http_json.event(event)}
    if id_pass is not None:
        data["id_pass"] = _http_json.id_pass(id_pass)
    type_ = f"id_pass.{kind}"
    payload = {
        "type": type_,
        "timestamp": _http_json.show_time(event.event_time),
        "data": data,
    }
    body = json.dumps(payload, separators=(",", ":"), ensure_ascii=False).encode()
    digest = hashlib.sha256(f"{history}.{event.sequence}.{url}".encode()).hexdigest()
    message_id = f"msg_{digest[:32]}"
    began_s = time.monotonic()
    status_code, error, answer = _post(url, body, message_id, secret)
    duration_ms = round((time.monotonic() - began_s) * 1_000)
    return Forwarded(event, type_, message_id, status_code, error, duration_ms, answer)


def _kind(event: Event) -> str:
    if event.erased:
        return "erased"
    return "registered" if event.from_status is None else str(event.to_status)


def _post(url: str, body: bytes, message_id: str, secret: str) -> tuple[int, str, str]:
    """Returns the status code, or 0 and why there is none, and the beginning of the answer."""
    parts = urlsplit(url)
    timestamp = int(time.time())
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "idpass-listen",
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign(body, message_id, timestamp, secret),
    }
    connection = _connection(parts.scheme, parts.hostname or "", parts.port)
    try:
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("POST", target, body, headers)
        answer = connection.getresponse()
        return answer.status, "", answer.read(ANSWER_BYTES).decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return 0, str(error) or type(error).__name__, ""
    finally:
        connection.close()


def _connection(scheme: str, host: str, port: int | None) -> http.client.HTTPConnection:
    if scheme == "https":
        context = ssl.create_default_context()
        return http.client.HTTPSConnection(host, port, timeout=TIMEOUT_S, context=context)
    return http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
