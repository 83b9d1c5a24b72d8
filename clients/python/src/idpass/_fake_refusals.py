"""What the fake service refuses: malformed fields, and what the state of a pass does not allow.

Codes, reasons and metadata are the contract's; the messages are the fake's own.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from idpass._arguments import new_request_id
from idpass._words import CancelReason, Status
from idpass.v1 import id_pass_pb2 as pb

CODE = grpc.StatusCode
WORDS: Final = {word.number: str(word) for word in Status}
REASONS: Final = {word.number: str(word) for word in CancelReason}
ENDED: Final = {
    Status.CANCELLED.number: "PASS_ALREADY_CANCELLED",
    Status.COMPLETE.number: "PASS_COMPLETE",
    Status.EXPIRED.number: "PASS_EXPIRED",
    Status.FAILED.number: "PASS_FAILED",
}

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_REQUEST_ID = re.compile(r"[!-~]{0,128}")
# Control characters, and those that turn the direction of text; a line has no breaks either.
_STEERING = "\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069"
_NOT_IN_TEXT = re.compile(f"[{_STEERING}]")
_NOT_IN_LINE = re.compile(f"[{_STEERING}\t\n\r\u2028\u2029]")


class Refused(Exception):
    """A refusal. Attributes: status: with the details that the service sends."""

    def __init__(
        self,
        code: grpc.StatusCode,
        reason: str,
        message: str,
        metadata: Mapping[str, str] | None = None,
        *violations: tuple[str, str],
    ) -> None:
        super().__init__(message)
        self.status = status_pb2.Status(code=code.value[0], message=message)
        details: list[Message] = [
            error_details_pb2.ErrorInfo(reason=reason, domain="idpass.v1", metadata=metadata),
            error_details_pb2.RequestInfo(request_id=new_request_id()),
        ]
        if violations:
            bad_request = error_details_pb2.BadRequest()
            for field, description in violations:
                bad_request.field_violations.add(field=field, description=description)
            details.append(bad_request)
        for detail in details:
            self.status.details.add().Pack(detail)


class Fields:
    """Collects what is wrong with a request's fields."""

    def __init__(self) -> None:
        self._wrong: list[tuple[str, str]] = []

    def wrong(self, field: str, description: str) -> None:
        self._wrong.append((field, description))

    def check(self) -> None:
        if self._wrong:
            lines = "; ".join(f"{field}: {description}" for field, description in self._wrong)
            raise Refused(
                CODE.INVALID_ARGUMENT,
                "INVALID_REQUEST",
                f"The request is not valid: {lines}",
                None,
                *self._wrong,
            )

    def uuid(self, field: str, value: str) -> str:
        if not _UUID.fullmatch(value.lower()):
            self.wrong(field, f"{value[:64]!r} is not a UUID")
        return value.lower()

    def request_id(self, value: str) -> None:
        if not _REQUEST_ID.fullmatch(value):
            self.wrong("request_id", "must be 1 to 128 visible ASCII characters, without spaces")

    def text(self, field: str, value: str, most: int, *, line: bool = False) -> None:
        if len(value) > most:
            self.wrong(field, f"has {len(value)} characters, {most} are allowed")
        elif (_NOT_IN_LINE if line else _NOT_IN_TEXT).search(value):
            self.wrong(field, "has a character that is not allowed")

    def statuses(self, field: str, numbers: Iterable[int]) -> None:
        for number in numbers:
            if number and number not in WORDS:
                self.wrong(field, f"{number} is not an IdPassStatus")

    def reason(self, number: int) -> None:
        if number not in REASONS:
            self.wrong("reason", f"{number} is not a CancelReason")


def not_found(pass_id: str) -> Refused:
    return Refused(
        CODE.NOT_FOUND, "PASS_NOT_FOUND", f"There is no ID Pass {pass_id}.", {"id": pass_id}
    )


def request_id_reused(request_id: str) -> Refused:
    why = "was used before for a different request; use a new one"
    return Refused(
        CODE.INVALID_ARGUMENT,
        "REQUEST_ID_REUSED",
        f"request_id {request_id!r} {why}",
        {"requestId": request_id},
        ("request_id", why),
    )


def ended(id_pass: pb.IdPass) -> Refused:
    end_time = id_pass.end_time.ToJsonString()
    facts = {"id": id_pass.id, "status": WORDS[id_pass.status], "endTime": end_time}
    if id_pass.status == Status.CANCELLED.number:
        facts |= {
            "cancelTime": end_time,
            "feeRefunded": "true" if id_pass.fee_refunded else "false",
            "reason": REASONS[id_pass.cancellation.reason] if id_pass.cancellation.reason else "",
            "supersededBy": id_pass.superseded_by,
        }
    message = f"ID Pass {id_pass.id} is {facts['status']}; its status can no longer change."
    return Refused(CODE.FAILED_PRECONDITION, ENDED[id_pass.status], message, facts)


def pass_changed(id_pass: pb.IdPass, expected: int) -> Refused:
    word = WORDS[id_pass.status]
    message = f"ID Pass {id_pass.id} is {word}, not {WORDS[expected]} as expected."
    return Refused(CODE.ABORTED, "PASS_CHANGED", message, {"id": id_pass.id, "status": word})


def no_refund(id_pass: pb.IdPass) -> Refused:
    word = WORDS[id_pass.status]
    return Refused(
        CODE.FAILED_PRECONDITION,
        "REFUND_NOT_AVAILABLE",
        f"ID Pass {id_pass.id} is {word}: verification has begun, and no fee would be refunded.",
        {"id": id_pass.id, "status": word},
    )


def no_transition(id_pass: pb.IdPass, to_status: int, allowed: Iterable[int]) -> Refused:
    word = WORDS[id_pass.status]
    return Refused(
        CODE.FAILED_PRECONDITION,
        "TRANSITION_NOT_ALLOWED",
        f"ID Pass {id_pass.id} is {word} and cannot become {WORDS[to_status]}.",
        {"id": id_pass.id, "status": word, "allowed": ",".join(WORDS[each] for each in allowed)},
    )


def no_free_slot(slot_limit: int) -> Refused:
    return Refused(
        CODE.RESOURCE_EXHAUSTED,
        "NO_FREE_SLOT",
        f"All {slot_limit} slots of the account are in use.",
        {"slotLimit": str(slot_limit)},
    )


def history_lost(history: str, position: int) -> Refused:
    return Refused(
        CODE.FAILED_PRECONDITION,
        "HISTORY_LOST",
        f"Position {position} is from a history that is not there.",
        {"history": history, "afterSequence": str(position), "oldestSequence": "0"},
    )


def no_webhooks(*_: Any) -> Refused:
    return Refused(
        CODE.FAILED_PRECONDITION,
        "WEBHOOKS_DISABLED",
        "The fake service sends no webhooks; idpass_server.testing runs one that does.",
    )
