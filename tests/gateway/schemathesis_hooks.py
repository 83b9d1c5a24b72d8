"""What a schema cannot say of requests, for schemathesis to make good ones."""

import itertools
import os
import re
import uuid
from typing import Any

import httpx
import schemathesis

KEY = "Idempotency-Key"
TOKEN = re.compile(r"[!-~]{1,128}")
UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
MAX_URL = 2_048
URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[!-~]*")
OF_ANY_PASS = {"/idpass/cancel", "/idpass/details"}
_numbers = itertools.count()


@schemathesis.hook
def map_case(_context: Any, case: Any) -> Any:
    number = next(_numbers)
    # Cases share examples: what one of them changes must not reach the others.
    body = dict(case.body) if isinstance(case.body, dict) else {}
    if isinstance(case.body, dict):
        case.body = body
    if case.headers:
        case.headers = case.headers.copy()
    # A page_token comes from an answer, and none has been given.
    if isinstance(body.get("page_token"), str):
        del body["page_token"]
    # A request_id stands for one request only, and the header is the same thing.
    for holder, name in ((body, "request_id"), (case.headers or {}, KEY)):
        if isinstance(holder.get(name), str) and TOKEN.fullmatch(holder[name]):
            holder[name] = f"schemathesis-{number}"
    _mend_webhook(case.path, body)
    # Every other time the pass exists, and is new; ids of other answers may be of any status.
    pass_id = str(body.get("id"))
    if UUID.fullmatch(pass_id):
        exists = case.path in OF_ANY_PASS and number % 2
        case.body = body | {"id": _new_pass() if exists else str(uuid.uuid4())}
    return case


def _mend_webhook(path: str, body: dict[str, Any]) -> None:
    """Makes a valid request of one that a schema calls valid; what is invalid stays so."""
    url = body.get("url")
    loose = path == "/idpass/webhooks/update"  # where it may be empty
    if isinstance(url, str) and len(url) <= MAX_URL and (loose or URI.fullmatch(url)):
        body["url"] = "https://hooks.example.com/id-pass"  # few URLs may be called
    after = body.get("after_sequence")
    if isinstance(after, int | float) and 0 < after < 1 << 63 and after == int(after):
        body["after_sequence"] = 0  # any other is ahead of the newest event
    if path == "/idpass/webhooks/update" and body.get("all_statuses") is True:
        body.pop("statuses", None)
    if path == "/idpass/webhooks/redeliver":
        numbers = [body.get("sequence", 0), body.get("from_sequence", 0)]
        if all(_is_whole(number) and number >= 0 for number in numbers):
            body |= {"sequence": 1, "from_sequence": 0}  # exactly one of them


def _is_whole(number: object) -> bool:
    whole = isinstance(number, int) or (isinstance(number, float) and number.is_integer())
    return whole and not isinstance(number, bool)


def _new_pass() -> str:
    made = httpx.post(f"{os.environ['IDPASS_URL']}/idpass/register", json={}, trust_env=False)
    return str(made.json()["id_pass"]["id"])
