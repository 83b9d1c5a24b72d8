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
OF_ANY_PASS = {"/idpass/cancel", "/idpass/details"}
_numbers = itertools.count()


@schemathesis.hook
def map_case(_context: Any, case: Any) -> Any:
    number = next(_numbers)
    body = case.body if isinstance(case.body, dict) else {}
    # A page_token comes from an answer, and none has been given.
    if isinstance(body.get("page_token"), str):
        del body["page_token"]
    # A request_id stands for one request only, and the header is the same thing.
    for holder, name in ((body, "request_id"), (case.headers or {}, KEY)):
        if isinstance(holder.get(name), str) and TOKEN.fullmatch(holder[name]):
            holder[name] = f"schemathesis-{number}"
    # Every other time the pass exists, and is new; ids of other answers may be of any status.
    pass_id = str(body.get("id"))
    if UUID.fullmatch(pass_id):
        exists = case.path in OF_ANY_PASS and number % 2
        case.body = body | {"id": _new_pass() if exists else str(uuid.uuid4())}
    return case


def _new_pass() -> str:
    made = httpx.post(f"{os.environ['IDPASS_URL']}/idpass/register", json={}, trust_env=False)
    return str(made.json()["id_pass"]["id"])
