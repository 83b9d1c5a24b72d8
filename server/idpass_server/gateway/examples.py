"""Examples of requests and answers, for the OpenAPI document.

They are one story, in an order in which it can be told to a new server: tests do that, and compare
the answers.
"""

import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from google.rpc import code_pb2

from idpass_server.gateway import error_examples
from idpass_server.gateway.error_examples import Json

FIRST: Final = "01a207bd-aa96-7d2e-8f31-6a0c5b9e4712"
REPLACED: Final = "01a207d7-9bf3-7a19-b4d6-21f7e08c53aa"
REPLACING: Final = "01a207db-133f-7c55-9e02-8d4b7f6130c9"
LAST: Final = "01a207dd-4a44-7b07-a8d9-f35c120e6b84"
WEBHOOK: Final = "01a207bc-e230-7b48-a36d-94c2f1075e8b"
URL: Final = "https://hooks.example.com/id-pass"
HISTORY: Final = "01a1fd1e-8c00-7e63-8b15-0c9d3a64f2e7"
_CANCELLING: Final = "01a207e4-c018-7ad3-8e47-b9c05f2e1d60"
_SUPERSEDING: Final = "01a207db-133f-7c55-9e02-8d4a1d93b7f6"
_ADVANCING: Final = "01a207dd-e5d2-7c34-9a6e-58d0f3b1e927"
_CANCEL_TIME: Final = "2026-11-23T10:12:41.624095Z"


def _money(amount: str) -> Json:
    return {"currency": "AUD", "amount": amount}


def _time(time: str, day: int = 23) -> str:
    return f"2026-11-{day}T{time}Z"


def _pass(
    pass_id: str, registered: str, *, expires: int = 30, applicant: str = "", supersedes: str = ""
) -> Json:
    texts = {"applicant_reference": applicant, "supersedes": supersedes}
    return {
        "id": pass_id,
        "account": "demo",
        "status": "new",
        "fee": _money("4.50"),
        "fee_refunded": False,
        **{name: text for name, text in texts.items() if text},
        "create_time": _time(registered),
        "update_time": _time(registered),
        "expire_time": _time(registered, expires),
        "caller": "demo",
    }


def _cancelled(reference: str, previous_status: str, time: str) -> Json:
    return {
        "status": "cancelled",
        "fee_refunded": True,
        "reference": reference,
        "refund": _money("4.50"),
        "previous_status": previous_status,
        "cancel_time": time,
        "replayed": False,
    }


_NEW: Final = _pass(FIRST, "09:30:00.214907", applicant="customer-8831")
_OPENED: Final = _NEW | {"status": "opened", "update_time": _time("10:05:12.530118")}
_REPLACED: Final = _pass(REPLACED, "09:58:20.403351", expires=24, applicant="customer-8832")
_REPLACING: Final = _pass(
    REPLACING, "10:02:07.551826", applicant="customer-8832", supersedes=REPLACED
)
_LAST: Final = _pass(LAST, "10:04:32.708344")
_ORDER: Final = {
    "id": FIRST,
    "request_id": "order-1042-cancel",
    "reason": "abandoned",
    "note": "No answer for a week.",
    "expected_status": "opened",
    "require_refund": True,
}
_EVENT: Final = {
    "sequence": 6,
    "id_pass_id": FIRST,
    "from_status": "new",
    "to_status": "opened",
    "event_time": _time("10:05:12.530118"),
    "caller": "demo",
    "request_id": "order-1042-opened",
    "erased": False,
    "reference": _ADVANCING,
}
_CANCELLED: Final = _cancelled(_CANCELLING, "opened", _CANCEL_TIME)
_REFUSED: Final = error_examples.example(
    code_pb2.FAILED_PRECONDITION,
    "PASS_ALREADY_CANCELLED",
    {
        "id": FIRST,
        "status": "cancelled",
        "endTime": _CANCEL_TIME,
        "cancelTime": _CANCEL_TIME,
        "feeRefunded": "true",
        "reason": "abandoned",
        "supersededBy": "",
    },
)
_CREATED: Final = {
    "id": WEBHOOK,
    "url": URL,
    "statuses": ["cancelled", "complete"],
    "state": "active",
    "cursor": 0,
    "create_time": _time("09:29:08.912660"),
    "update_time": _time("09:29:08.912660"),
    "caller": "demo",
}
_WEBHOOK: Final = _CREATED | {"cursor": 9, "last_success_time": _time("11:00:00.602981")}
_PAUSED: Final = _WEBHOOK | {
    "state": "paused",
    "pause_reason": "requested",
    "update_time": _time("11:05:41.006239"),
}
_ROTATED: Final = _PAUSED | {
    "update_time": _time("11:06:02.447015"),
    "old_secret_expire_time": _time("11:06:02.447015", 24),
}


def _attempt(time: str) -> Json:
    return {"time": _time(time), "duration_ms": 84, "status_code": 200, "answer": "ok"}


def _delivery(sequence: int, pass_id: str, message_id: str, time: str) -> Json:
    return {
        "sequence": sequence,
        "id_pass_id": pass_id,
        "type": "id_pass.cancelled",
        "message_id": message_id,
        "state": "delivered",
        "attempt_count": 1,
        "attempts": [_attempt(time)],
    }


class Example(NamedTuple):
    """A request and its answer.

    Attributes:
        operation: name of the rpc.
        name: of the example, unique within the operation.
        summary: what it shows.
        request: its fields.
        answer: its body; text for a stream of events.
    """

    operation: str
    name: str
    summary: str
    request: Mapping[str, Any]
    answer: Json | str


STORY: Final = (
    Example(
        "CreateWebhook",
        "two_statuses",
        "Hear of passes that are cancelled or complete",
        {"url": URL, "statuses": ["cancelled", "complete"], "request_id": "webhook-1"},
        {
            "webhook": _CREATED,
            "secret": "whsec_7sJxVbQ0m4oZ1yD2tKcRr9fGhU5aWnLpE8iBq3vXwTM=",
            "replayed": False,
        },
    ),
    Example(
        "RegisterIdPass",
        "for_an_order",
        "Register a pass, in a way that is safe to repeat",
        {"request_id": "order-1042", "applicant_reference": "customer-8831"},
        {"id_pass": _NEW, "reference": "01a207bd-aa96-7d2e-8f31-6a0b47f1d28c", "replayed": False},
    ),
    Example(
        "RegisterIdPass",
        "one_day",
        "A link that expires after a day",
        {"link_validity_days": 1, "applicant_reference": "customer-8832"},
        {
            "id_pass": _REPLACED,
            "reference": "01a207d7-9bf3-7a19-b4d6-21f63e90ab14",
            "replayed": False,
        },
    ),
    Example(
        "RegisterIdPass",
        "supersede",
        "Replace a pass that is in flight by a new one",
        {
            "request_id": "order-1043",
            "link_validity_days": 7,
            "applicant_reference": "customer-8832",
            "supersedes": REPLACED,
        },
        {
            "id_pass": _REPLACING,
            "superseded": _cancelled(_SUPERSEDING, "new", _time("10:02:07.551826")),
            "reference": _SUPERSEDING,
            "replayed": False,
        },
    ),
    Example(
        "RegisterIdPass",
        "plain",
        "Every field is optional",
        {},
        {"id_pass": _LAST, "reference": "01a207dd-4a44-7b07-a8d9-f35b94c7d012", "replayed": False},
    ),
    Example(
        "AdvanceIdPass",
        "opened",
        "The applicant has opened the link",
        {"id": FIRST, "to_status": "opened", "request_id": "order-1042-opened"},
        {"id_pass": _OPENED, "reference": _ADVANCING, "replayed": False},
    ),
    Example(
        "WatchIdPasses",
        "resumed",
        "What happened after event 5, and then what happens",
        {"after_sequence": 5},
        f"retry: 1000\n\nid: 6\ndata: {json.dumps(_EVENT, separators=(',', ':'))}\n\n",
    ),
    Example(
        "GetIdPass",
        "opened",
        "A pass whose applicant has opened the link",
        {"id": FIRST},
        {"id_pass": _OPENED, "reference": "01a207de-9fb6-7e81-b25c-4f6a90d8c371"},
    ),
    Example(
        "ListIdPasses",
        "before_verification",
        "Passes that would be refunded, newest first",
        {"statuses": ["new", "opened"], "page_size": 2},
        {
            "id_passes": [_LAST, _REPLACING],
            "next_page_token": "WyIyMDJhMWI3IiwiMDFhMjA3ZGItMTMzZi03YzU1LTllMDItOGQ0Yi",
        },
    ),
    Example(
        "GetAccount",
        "demo",
        "The caller's account",
        {},
        {
            "id": "demo",
            "slot_limit": 1000,
            "slots_in_use": 3,
            "fee": _money("4.50"),
            "fees_charged": _money("18.00"),
            "fees_refunded": _money("4.50"),
            "last_sequence": 6,
            "history": HISTORY,
            "oldest_sequence": 0,
        },
    ),
    Example(
        "CancelIdPass",
        "id_alone",
        "The id is enough",
        {"id": LAST},
        _cancelled("01a207e3-3f32-7d90-8b14-c72f6e05a3d1", "new", _time("10:11:03.090417")),
    ),
    Example(
        "CancelIdPass",
        "if_refunded",
        "Cancel only if the fee comes back, in a way that is safe to repeat",
        _ORDER,
        _CANCELLED,
    ),
    Example(
        "CancelIdPass",
        "repeated",
        "The same request again: the first answer, marked as replayed",
        _ORDER,
        _CANCELLED | {"replayed": True},
    ),
    Example(
        "BatchCancelIdPasses",
        "one_refused",
        "Each item has its own result",
        {
            "requests": [
                {"id": REPLACING, "request_id": "nightly-1", "reason": "abandoned"},
                {"id": FIRST, "request_id": "nightly-2", "reason": "abandoned"},
            ]
        },
        {
            "results": [
                {"response": _cancelled(error_examples.REFERENCE, "new", _time("11:00:00.377150"))},
                {"error": _REFUSED},
            ],
            "cancelled_count": 1,
            "refunded_count": 1,
            "refund_totals": [_money("4.50")],
        },
    ),
    Example(
        "ListWebhookDeliveries",
        "latest",
        "The two newest deliveries",
        {"id": WEBHOOK, "page_size": 2},
        {
            "deliveries": [
                _delivery(9, REPLACING, "msg_0dc6a5ef6d466a8060a8ba98b4a6bf9c", "11:00:00.518097"),
                _delivery(8, FIRST, "msg_cac5b31865614bed9ea180db27b14321", "10:12:41.790116"),
            ],
            "next_page_token": "WyIwMWEyMDdiYy1lMjMwLTdiNDgtYTM2ZC05NGMyZjEwNzVlOGIiLDhd",
        },
    ),
    Example(
        "GetWebhook",
        "active",
        "An active webhook",
        {"id": WEBHOOK},
        {"webhook": _WEBHOOK},
    ),
    Example("ListWebhooks", "one", "The account's webhooks", {}, {"webhooks": [_WEBHOOK]}),
    Example(
        "TestWebhook",
        "answered",
        "The receiver has answered 200",
        {"id": WEBHOOK},
        {"attempt": _attempt("11:04:57.113206")},
    ),
    Example(
        "UpdateWebhook",
        "pause",
        "Pause a webhook",
        {"id": WEBHOOK, "state": "paused"},
        {"webhook": _PAUSED},
    ),
    Example(
        "RotateWebhookSecret",
        "at_leisure",
        "A new secret; the old one signs too for a day",
        {"id": WEBHOOK},
        {"webhook": _ROTATED, "secret": "whsec_DVHYXMXeVnae6Aj23tHdQXkYC0l1IzF1EToi4En5Hlc="},
    ),
    Example(
        "RedeliverWebhookEvents",
        "from_a_sequence",
        "Deliver event 7 and all after it again",
        {"id": WEBHOOK, "from_sequence": 7},
        {"webhook": _ROTATED | {"cursor": 6}},
    ),
    Example("DeleteWebhook", "done", "Delete a webhook", {"id": WEBHOOK}, {}),
)
