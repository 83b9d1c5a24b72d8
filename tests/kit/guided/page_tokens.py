"""Target: page tokens, of passes and of a webhook's deliveries.

The first byte says of which, and whether the others are the token or what is in it, to be encoded
here. Tokens are no secret: whoever calls for an account may write one for it.

Promise: a token for another account, filter or webhook is refused, however it is changed; one that
is taken changes nothing but the position, to one that a store can be asked for.
"""

import base64
import hashlib
import json
import uuid
from typing import Any, Final

from idpass.v1 import id_pass_service_pb2 as pb
from idpass.v1 import webhook_service_pb2 as hook_pb
from idpass.v1.id_pass_pb2 import ID_PASS_STATUS_CANCELLED as CANCELLED
from idpass_server.api import requests, webhook_requests
from idpass_server.api.identity import DEMO
from idpass_server.rules.refusals import InvalidRequest
from kit.guided.mutating import of_text
from kit.guided.oracles import tells_nothing_internal

ID: Final = "0198c0de-0000-7000-8000-000000000001"
OTHER_ID: Final = "0198c0de-0000-7000-8000-000000000002"
HISTORY: Final = "0198c0de-0000-7000-8000-0000000000aa"


def digest(account: str, statuses: list[str], *more: str) -> str:
    """What a token for a list of an account is marked with, made once more."""
    content = json.dumps([1, account, statuses, None, *more]).encode()
    return hashlib.blake2b(content, digest_size=8).hexdigest()


MARK: Final = digest("demo", ["cancelled"])
CALLER: Final = DEMO


def check(data: bytes) -> bool:
    """Returns whether the token was taken."""
    if not data:
        return False
    kind, token = data[0], data[1:].decode(errors="ignore")
    if kind & 1:
        token = encoded(token)
    try:
        return bool(token) and (_deliveries(token) if kind & 2 else _passes(token))
    except InvalidRequest as refusal:
        assert [violation.field for violation in refusal.violations] == ["page_token"]
        tells_nothing_internal(str(refusal), data)
        return False


def _passes(token: str) -> bool:
    request = pb.ListRequest(statuses=[CANCELLED], page_token=token)
    query, history = requests.list_query(request, CALLER)
    plain, _ = requests.list_query(pb.ListRequest(statuses=[CANCELLED]), CALLER)
    mark, before_id = _content(token)
    assert mark == MARK
    assert query == plain._replace(before_id=before_id)
    assert before_id == str(uuid.UUID(before_id))
    written = pb.ListRequest(
        statuses=[CANCELLED], page_token=requests.page_token(plain, before_id, history)
    )
    assert requests.list_query(written, CALLER) == (query, history)
    return True


def _deliveries(token: str) -> bool:
    request = hook_pb.ListWebhookDeliveriesRequest(id=ID, page_token=token)
    page = webhook_requests.deliveries(request)
    position: Any = page.before_sequence
    assert _content(token) == [ID, position]
    assert type(position) is int
    assert 0 <= position < 2**63
    request.page_token = webhook_requests.page_token(page, position)
    assert webhook_requests.deliveries(request) == page
    return True


def _content(token: str) -> list[Any]:
    return list(json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))))


def encoded(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _pair(mark: str, pass_id: str) -> str:
    return json.dumps({mark: HISTORY, pass_id: ""}, separators=(",", ":"))


SEEDS: Final = [
    b"\0" + encoded(_pair(MARK, ID)).encode(),
    b"\1" + _pair(MARK, ID).encode(),
    b"\1" + json.dumps([MARK, ID]).encode(),
    b"\2" + encoded(f'["{ID}",42]').encode(),
    b"\3" + f'["{ID}",42]'.encode(),
]
MORE: Final = [
    b"\0" + encoded(_pair(digest("acme", ["cancelled"]), ID)).encode(),
    b"\1" + _pair(digest("acme", ["cancelled"]), ID).encode(),
    b"\1" + _pair(digest("demo", []), ID).encode(),
    b"\1" + _pair(digest("demo", ["cancelled"], "Anna"), ID).encode(),
    b"\3" + f'["{OTHER_ID}",42]'.encode(),
]
WORDS: Final = [
    *(MARK.encode(), ID.encode(), HISTORY.encode(), b'":"', b'":null', b"true", b"1e9", b"[", b"{"),
    *(b"9223372036854775808", b"-1", b"9" * 30, b"\\u0000", b"NaN", b"==", b"_-"),
]
mutate: Final = of_text(WORDS)
