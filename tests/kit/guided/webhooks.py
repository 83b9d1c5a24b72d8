"""Target: what a receiver makes of a webhook, `idpass.webhooks.verify`.

The input is a request: headers, an empty line, and the body. A header `sign: 1` has the harness
sign the body as the service would, so that what follows the signature's check is reached too.

Promise: nothing is taken that was not signed with the secret, for this id, time and body; whatever
comes, the only error is WebhookVerificationError, and what is told repeats no secret.
"""

import base64
import hashlib
import hmac
import json
from datetime import datetime
from typing import Any, Final

from idpass import webhooks
from idpass.webhooks import WebhookEvent, WebhookVerificationError, sign, verify
from kit.guided.mutating import of_message
from kit.guided.oracles import tells_nothing_internal

NOW_S: Final = 1_795_000_000
KEY: Final = b"k" * 32
SECRET: Final = "whsec_" + base64.b64encode(KEY).decode()
OLD_SECRET: Final = "whsec_" + base64.b64encode(b"o" * 32).decode()
TOLERANCE_S: Final = 300


class _Stopped:
    """The clock of the module, which stands still."""

    @staticmethod
    def time() -> float:
        return float(NOW_S)


webhooks.time = _Stopped  # type: ignore[assignment,attr-defined]  # only time() is used


def check(data: bytes) -> bool:
    """Returns whether the request was taken."""
    head, _, body = data.partition(b"\n\n")
    # As servers hand headers over: bytes as latin-1, or with surrogates.
    text = head.decode("latin-1") if b"\xff" in head else head.decode(errors="surrogateescape")
    headers = dict(line.split(": ", 1) for line in text.split("\n") if ": " in line)
    if headers.pop("sign", ""):
        headers |= _signed(body)
    try:
        event = verify(body, headers, [SECRET, OLD_SECRET])
    except WebhookVerificationError as refusal:
        tells_nothing_internal(str(refusal), data)
        assert SECRET not in str(refusal)
        return False
    _was_signed(headers, body)
    _is_read(event, body)
    return True


def _signed(body: bytes) -> dict[str, str]:
    return {
        "webhook-id": "m-1",
        "webhook-timestamp": str(NOW_S),
        "webhook-signature": sign(body, "m-1", NOW_S, SECRET),
    }


def _was_signed(headers: dict[str, str], body: bytes) -> None:
    """Computes the signature once more, as Standard Webhooks has it."""
    by_name = {name.lower(): value for name, value in headers.items()}
    stamp = by_name["webhook-timestamp"]
    assert abs(int(stamp) - NOW_S) <= TOLERANCE_S
    content = f"{by_name['webhook-id']}.{stamp}.".encode() + body
    fits = {
        "v1," + base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()
        for key in (KEY, b"o" * 32)
    }
    assert fits & set(by_name["webhook-signature"].split()), headers


def _is_read(event: WebhookEvent, body: bytes) -> None:
    said: Any = json.loads(body)
    assert repr(event.type) == repr(said["type"])
    assert repr(event.data) == repr(said["data"])  # NaN is not equal to itself
    assert isinstance(event.time, datetime)
    assert (event.event is None) == ("event" not in said["data"])
    if event.event is not None:
        assert repr(event.event.sequence) == repr(said["data"]["event"]["sequence"])


EVENT: Final = {
    "sequence": 42,
    "id_pass_id": "01932c07-0000-7000-8000-000000000001",
    "from_status": "opened",
    "to_status": "cancelled",
    "event_time": "2026-11-25T09:30:00.123456Z",
    "caller": "billing",
    "refund": {"currency": "AUD", "amount": "4.50"},
    "reason": "abandoned",
    "erased": False,
}
PASS: Final = {
    "id": "01932c07-0000-7000-8000-000000000001",
    "account": "acme",
    "status": "cancelled",
    "fee": {"currency": "AUD", "amount": "4.50"},
    "fee_refunded": True,
    "create_time": "2026-11-25T09:30:00Z",
    "update_time": "2026-11-25T09:30:00.120Z",
    "expire_time": "2026-12-02T09:30:00Z",
    "cancellation": {"reason": "abandoned", "note": "x", "cancel_time": "2026-11-25T09:30:00Z"},
}


def _body(**data: Any) -> bytes:
    value = {"type": "id_pass.cancelled", "timestamp": "2026-11-25T09:30:00Z", "data": data}
    return json.dumps(value).encode()


def _request(headers: dict[str, str], body: bytes) -> bytes:
    return (
        "\n".join(f"{name}: {value}" for name, value in headers.items()).encode() + b"\n\n" + body
    )


SEEDS: Final = [
    _request(_signed(_body()), _body()),
    _request({"sign": "1"}, _body(event=EVENT, id_pass=PASS, history="h")),
    _request({"sign": "1"}, _body(event=EVENT)),
]
MORE: Final = [
    _request(_signed(_body()) | {"webhook-signature": "v1,AAAA v1a,BBBB"}, _body()),
    _request({"sign": "1"}, b"[]"),
    _request(_signed(_body()), _body(event=EVENT)),
]
WORDS: Final = [
    *(b"webhook-id: ", b"webhook-timestamp: ", b"webhook-signature: ", b"v1,", b" v1,", b"\n\n"),
    *(b"sign: 1\n", str(NOW_S).encode(), b"\xff", b"\xed\xb2\x80", b'{"type":"x","timestamp":"'),
    *(
        b'"data":{',
        b'"event":{',
        b'"id_pass":{',
        b"null",
        b"1e999",
        b"NaN",
        b"[" * 60,
        b'"refund":',
    ),
    *(b"9999-12-31T23:59:59Z", b"0000-00-00T00:00:00Z", b"9" * 40, b'"amount":', b"\\ud800"),
]
mutate: Final = of_message(
    WORDS, [*EVENT, *PASS, "type", "timestamp", "data", "event", "id_pass"], heads=0.5
)
