"""Target: the bytes of a request, from the wire to the command that the engine is given.

The first byte says which method, the others are the request. The servicers are the real ones; what
is behind them keeps what it is asked.

Promise: a request is refused as one of the contract's refusals, in words that are the service's
own and in trailers that clients accept; or what is asked of the engine is within the contract's
limits, and the same after the request was written anew.
"""

import base64
import contextlib
import math
import random
import re
import uuid
from typing import Any, Final
from urllib.parse import quote

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.timestamp_pb2 import Timestamp

from idpass.v1 import id_pass_pb2 as types_pb
from idpass.v1 import id_pass_service_pb2 as pb
from idpass.v1 import webhook_pb2 as hook_types_pb
from idpass.v1 import webhook_service_pb2 as hook_pb
from idpass_server.api import errors, wire
from idpass_server.api.calls import Call
from idpass_server.api.identity import DEMO
from idpass_server.api.servicer import IdPassServicer
from idpass_server.api.webhook_servicer import WebhookServicer
from idpass_server.rules import commands
from idpass_server.rules.positions import Gap, Positions
from idpass_server.rules.records import Account, Status
from idpass_server.rules.refusals import HistoryLost, InvalidRequest, Refusal
from kit.contract import PASS
from kit.fuzzing import Payloads
from kit.guided.oracles import steers_nothing, tells_nothing_internal

REFERENCE: Final = "0198c0de-0000-7000-8000-00000000000f"
HISTORY: Final = "0198c0de-0000-7000-8000-0000000000aa"
MAX_TRAILERS_BYTES: Final = 8_000
METHODS: Final[list[MethodDescriptor]] = [
    *(wire.ID_PASSES.methods),
    *(wire.WEBHOOKS.methods),
]
READERS: Final = {method.name: wire.reader(method) for method in METHODS}


class Asked(Exception):
    """Something behind the servicer was asked."""

    def __init__(self, *what: Any) -> None:
        super().__init__(what)
        self.what = what


class Behind:
    """Stands for everything behind the servicers."""

    async def submit(self, asked: list[Any], _deadline_s: float) -> Any:
        raise Asked(*asked)

    async def list_passes(self, query: Any) -> Any:
        raise Asked(query)

    async def get_account(self, name: str) -> tuple[Account, Positions]:
        account = Account(name, 1_000, 0, "AUD", 4_500_000, 0, 0, 50)
        return account, Positions(HISTORY, (Gap(10, 20),))

    async def get_pass(self, _account: str, pass_id: str) -> Any:
        return PASS._replace(id=pass_id)

    def follow(self, *what: Any, **more: Any) -> Any:
        raise Asked(*what, *more.values())

    def now(self) -> Any:
        raise AssertionError

    def __getattr__(self, name: str) -> Any:
        async def ask(*what: Any, **more: Any) -> Any:
            raise Asked(name, *what, *more.values())

        return ask


class _Record:
    id_pass = passes = None
    replayed = False


BEHIND: Final[Any] = Behind()
SERVICERS: Final[dict[str, Any]] = {
    wire.ID_PASSES.full_name: IdPassServicer(
        engine=BEHIND, reads=BEHIND, watchers=BEHIND, metrics=BEHIND
    ),
    wire.WEBHOOKS.full_name: WebhookServicer(BEHIND, BEHIND),
}


def _run(work: Any) -> Any:
    """What a coroutine returns; nothing that it waits for takes time."""
    try:
        while True:
            work.send(None)
    except StopIteration as end:
        return end.value


def asked(method: MethodDescriptor, request: Any) -> Any:
    """What a request asks of what is behind the servicer; or the refusal, or the answer."""
    record: Any = _Record()
    call = Call(DEMO, REFERENCE, record, math.inf, lambda _: None)
    servicer = SERVICERS[method.containing_service.full_name]
    try:
        answering = getattr(servicer, method.name)(request, call)
        return _run(anext(answering) if method.server_streaming else answering)
    except Asked as found:
        return found.what
    except (InvalidRequest, HistoryLost) as refusal:
        return refusal
    except StopAsyncIteration:
        return ()


def check(data: bytes) -> bool:
    """Returns whether the request was taken."""
    if not data:
        return False
    method, body = METHODS[data[0] % len(METHODS)], data[1:]
    try:
        request = READERS[method.name](body)
    except InvalidRequest as refusal:
        _told(refusal, method, body)
        return False
    found = asked(method, request)
    if isinstance(found, Refusal):
        _told(found, method, body)
        return False
    again = READERS[method.name](request.SerializeToString(deterministic=True))
    assert _plain(asked(method, again)) == _plain(found)
    for each in found if isinstance(found, tuple) else ():
        _fits(each)
    return True


def _plain(found: Any) -> Any:
    """As asked, without the id that is made for a new pass."""
    if not isinstance(found, tuple):
        return found
    return tuple(
        each._replace(id="") if isinstance(each, commands.Register) else each for each in found
    )


def _told(refusal: Refusal, method: MethodDescriptor, body: bytes) -> None:
    error = errors.tell(refusal, REFERENCE)
    assert error.reason in {"INVALID_REQUEST", "HISTORY_LOST"}, error
    message = error.status.message
    tells_nothing_internal(message, body)
    sent = len(base64.b64encode(error.status.SerializeToString())) + len(quote(message))
    assert sent < MAX_TRAILERS_BYTES, sent
    if isinstance(refusal, InvalidRequest):
        assert refusal.violations
        steers_nothing(message)
        for field, description in refusal.violations:
            assert not field or re.split(r"[.\[]", field)[0] in method.input_type.fields_by_name
            assert description


_VISIBLE: Final = re.compile(r"[!-~]{1,128}")


def _fits(asked: Any) -> None:
    """Checks what is asked against the contract's limits."""
    if isinstance(asked, commands.Cancel):
        assert asked.id == str(uuid.UUID(asked.id))
        assert len(asked.note) <= 500
        steers_nothing(re.sub("[\t\n\r\u2028\u2029]", "", asked.note))
    elif isinstance(asked, commands.Register):
        assert 1 <= asked.link_validity_days <= 14
        assert len(asked.applicant_reference) <= 128
        steers_nothing(asked.applicant_reference)
        assert asked.supersedes is None or asked.supersedes == str(uuid.UUID(asked.supersedes))
    elif isinstance(asked, commands.Advance):
        assert asked.id == str(uuid.UUID(asked.id))
        assert asked.to_status is not Status.CANCELLED
    elif isinstance(asked, int) and not isinstance(asked, bool):
        assert 0 <= asked < 2**63
    elif isinstance(asked, str):
        steers_nothing(asked)
    if isinstance(asked, commands.Cancel | commands.Register | commands.Advance):
        assert (asked.account, asked.caller) == (DEMO.account, DEMO.name)
        assert asked.request_id is None or _VISIBLE.fullmatch(asked.request_id)


ID: Final = "0198c0de-0000-7000-8000-000000000001"
NEW: Final = types_pb.ID_PASS_STATUS_NEW
OPENED: Final = types_pb.ID_PASS_STATUS_OPENED
SENT: Final[dict[str, Message]] = {
    "CancelIdPass": pb.CancelRequest(
        id=ID,
        request_id="r-1",
        reason=types_pb.CANCEL_REASON_ABANDONED,
        note="no\tanswer",
        expected_status=OPENED,
        require_refund=True,
    ),
    "BatchCancelIdPasses": pb.BatchCancelRequest(
        requests=[pb.CancelRequest(id=ID), pb.CancelRequest(id="x", note="é")]
    ),
    "RegisterIdPass": pb.RegisterRequest(
        request_id="r-2", link_validity_days=14, applicant_reference="Žofie", supersedes=ID
    ),
    "AdvanceIdPass": pb.AdvanceRequest(
        id=ID, to_status=OPENED, request_id="r-3", expected_status=NEW
    ),
    "GetIdPass": pb.GetRequest(id=ID.upper()),
    "ListIdPasses": pb.ListRequest(
        page_size=2,
        statuses=[NEW, OPENED],
        idle_before=Timestamp(seconds=1),
        applicant_reference="A",
    ),
    "WatchIdPasses": pb.WatchRequest(after_sequence=5, id=ID, history=HISTORY),
    "GetAccount": pb.GetAccountRequest(),
    "CreateWebhook": hook_pb.CreateWebhookRequest(
        url="https://example.com/hook", statuses=[OPENED], after_sequence=3, request_id="r-4"
    ),
    "GetWebhook": hook_pb.GetWebhookRequest(id=ID),
    "ListWebhooks": hook_pb.ListWebhooksRequest(),
    "UpdateWebhook": hook_pb.UpdateWebhookRequest(
        id=ID,
        url="https://example.com/",
        state=hook_types_pb.WEBHOOK_STATE_ACTIVE,
        all_statuses=True,
    ),
    "DeleteWebhook": hook_pb.DeleteWebhookRequest(id=ID),
    "RotateWebhookSecret": hook_pb.RotateWebhookSecretRequest(id=ID, immediate=True),
    "TestWebhook": hook_pb.TestWebhookRequest(id=ID),
    "ListWebhookDeliveries": hook_pb.ListWebhookDeliveriesRequest(id=ID, page_size=7),
    "RedeliverWebhookEvents": hook_pb.RedeliverWebhookEventsRequest(id=ID, from_sequence=4),
}


def mutate(data: bytes, chance: random.Random) -> bytes:
    """Gives a field of the request another value."""
    method = METHODS[data[0] % len(METHODS)] if data else chance.choice(METHODS)
    message: Any = GetMessageClass(method.input_type)()
    with contextlib.suppress(DecodeError):
        message.ParseFromString(data[1:])
    Payloads(chance, [ID]).change(message)
    changed: bytes = message.SerializeToString()
    return bytes([METHODS.index(method)]) + changed


def _seed(number: int, method: MethodDescriptor) -> bytes:
    message = SENT[method.name]
    assert isinstance(message, GetMessageClass(method.input_type))
    return bytes([number]) + message.SerializeToString()


SEEDS: Final = [_seed(number, method) for number, method in enumerate(METHODS)]
MORE: Final = [
    bytes([number]) + body
    for number in range(len(METHODS))
    for body in (b"\x0a\x02\xff\xfe", b"\x0a\x01x\x10\xff\x01\x18\x7f\x20\x63")
]
WORDS: Final = [
    *(b"\x0a\x24" + ID.encode(), b"\x12\x03r-1", b"\xe2\x80\xae", b"\xc2\x85", b"\x7f"),
    *(b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
    *(b"\x08\x01", b"\x10\x08", b"\x18\x0f", b"\x0a\x00", b"\xe2\x80\xa8", b"\xed\xa0\x80"),
]
