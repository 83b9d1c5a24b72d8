"""Requests as commands: normalised, and validated with all violations reported at once.

Everything is checked here that can be checked without looking at a pass. Each function raises
InvalidRequest for a request that is not valid.
"""

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Sequence
from typing import Final

from idpass.v1 import id_pass_pb2 as pb
from idpass.v1 import id_pass_service_pb2 as service_pb
from idpass_server import ids
from idpass_server.api.identity import Caller
from idpass_server.api.wire import MAX_BATCH_REQUESTS
from idpass_server.rules import commands
from idpass_server.rules.records import Reason, Status
from idpass_server.rules.refusals import InvalidRequest, Violation
from idpass_server.store import ListQuery

MAX_STATUSES: Final = 50
"""Largest number of entries in `statuses`; there are fewer statuses, but repeats are allowed."""
MAX_NOTE_CHARACTERS: Final = 500
MAX_APPLICANT_REFERENCE_CHARACTERS: Final = 128
MAX_LINK_VALIDITY_DAYS: Final = 14
MAX_SHOWN_CHARACTERS: Final = 64
"""Number of characters of a caller's value that a message repeats."""
UUID_CHARACTERS: Final = 36
DEFAULT_PAGE_SIZE: Final = 50
MAX_PAGE_SIZE: Final = 1_000

_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_REQUEST_ID: Final = re.compile(r"[!-~]{1,128}")
# Control characters (C0, DEL, C1) steer terminals; bidirectional embeddings, overrides and isolates
# make one text look like another.
_STEERS: Final = "a control or bidirectional formatting character"
_BREAKS: Final = "\t\n\r\u2028\u2029"
_STEERING: Final = r"\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069"
_NOT_IN_TEXT: Final = re.compile(f"[{_STEERING}]")
_NOT_IN_LINE: Final = re.compile(f"[{_STEERING}{_BREAKS}]")

_STATUS_IN: Final[dict[int, Status]] = {
    pb.IdPassStatus.Value(f"ID_PASS_STATUS_{s.name}"): s for s in Status
}
_REASON_IN: Final[dict[int, Reason]] = {
    pb.CancelReason.Value(f"CANCEL_REASON_{r.name}"): r for r in Reason
}


class _Fields:
    """Reads a request's fields and collects their violations."""

    def __init__(self) -> None:
        self.violations: list[Violation] = []

    def wrong(self, field: str, description: str) -> None:
        self.violations.append(Violation(field, description))

    def check(self) -> None:
        if self.violations:
            raise InvalidRequest(self.violations)

    def uuid(self, field: str, value: str) -> str:
        normal = value.lower() if len(value) == UUID_CHARACTERS else ""
        if not _UUID.fullmatch(normal):
            if value:
                self.wrong(field, f"{_shown(value)} is not a UUID")
            else:
                self.wrong(field, "is required: the UUID of an ID Pass")
        return normal

    def request_id(self, value: str) -> str | None:
        if value and not _REQUEST_ID.fullmatch(value):
            self.wrong("request_id", "must be 1 to 128 visible ASCII characters, without spaces")
        return value or None

    def text(self, field: str, value: str, max_characters: int) -> str:
        """Checks free text, which may have tabs and line breaks."""
        return self._text(field, value, max_characters, _NOT_IN_TEXT)

    def line(self, field: str, value: str, max_characters: int) -> str:
        """Checks text of one line."""
        return self._text(field, value, max_characters, _NOT_IN_LINE)

    def _text(self, field: str, value: str, max_characters: int, forbidden: re.Pattern[str]) -> str:
        if len(value) > max_characters:
            self.wrong(field, f"has {len(value)} characters, {max_characters} are allowed")
        elif found := forbidden.search(value):
            kind = "a line break or tab" if found[0] in _BREAKS else _STEERS
            self.wrong(field, f"has U+{ord(found[0]):04X} at {found.start()}, {kind}; leave it out")
        return value

    def status(self, field: str, value: int) -> Status | None:
        if value and value not in _STATUS_IN:
            self.wrong(field, f"{value} is not an IdPassStatus")
        return _STATUS_IN.get(value)

    def reason(self, field: str, value: int) -> Reason:
        if value not in _REASON_IN:
            self.wrong(field, f"{value} is not a CancelReason")
        return _REASON_IN.get(value, Reason.UNSPECIFIED)


def cancel(request: service_pb.CancelRequest, caller: Caller, reference: str) -> commands.Cancel:
    """Reads a cancellation."""
    fields = _Fields()
    command = commands.Cancel(
        account=caller.account,
        caller=caller.name,
        reference=reference,
        request_id=fields.request_id(request.request_id),
        id=fields.uuid("id", request.id),
        reason=fields.reason("reason", request.reason),
        note=fields.text("note", request.note, MAX_NOTE_CHARACTERS),
        expected_status=fields.status("expected_status", request.expected_status),
        require_refund=request.require_refund,
        validate_only=request.validate_only,
    )
    fields.check()
    return command


def batch_requests(
    request: service_pb.BatchCancelRequest,
) -> Sequence[service_pb.CancelRequest]:
    """Checks the number of a batch's items; the items themselves are not looked at."""
    if not 1 <= len(request.requests) <= MAX_BATCH_REQUESTS:
        description = (
            f"has {len(request.requests)} items; 1 to {MAX_BATCH_REQUESTS} are allowed in a batch"
        )
        raise InvalidRequest([Violation("requests", description)])
    return request.requests


def register(
    request: service_pb.RegisterRequest, caller: Caller, reference: str
) -> commands.Register:
    """Reads a registration, and makes the new pass's id."""
    fields = _Fields()
    days = request.link_validity_days
    if not 0 <= days <= MAX_LINK_VALIDITY_DAYS:
        fields.wrong(
            "link_validity_days",
            f"{days} is not 1 to {MAX_LINK_VALIDITY_DAYS}, nor 0 for "
            f"{commands.DEFAULT_LINK_VALIDITY_DAYS}",
        )
    command = commands.Register(
        account=caller.account,
        caller=caller.name,
        reference=reference,
        request_id=fields.request_id(request.request_id),
        id=ids.new_uuid(),
        link_validity_days=days or commands.DEFAULT_LINK_VALIDITY_DAYS,
        applicant_reference=fields.line(
            "applicant_reference", request.applicant_reference, MAX_APPLICANT_REFERENCE_CHARACTERS
        ),
        supersedes=fields.uuid("supersedes", request.supersedes) if request.supersedes else None,
    )
    fields.check()
    return command


def advance(request: service_pb.AdvanceRequest, caller: Caller, reference: str) -> commands.Advance:
    """Reads a move."""
    fields = _Fields()
    to_status = fields.status("to_status", request.to_status)
    if request.to_status == pb.ID_PASS_STATUS_UNSPECIFIED:
        fields.wrong("to_status", "is required: the status to move the pass to")
    if to_status is Status.CANCELLED:
        fields.wrong("to_status", "cancel with CancelIdPass, which decides the refund")
    command = commands.Advance(
        account=caller.account,
        caller=caller.name,
        reference=reference,
        request_id=fields.request_id(request.request_id),
        id=fields.uuid("id", request.id),
        to_status=to_status or Status.NEW,
        expected_status=fields.status("expected_status", request.expected_status),
    )
    fields.check()
    return command


def pass_id(request: service_pb.GetRequest) -> str:
    """Reads which pass to get."""
    fields = _Fields()
    normal = fields.uuid("id", request.id)
    fields.check()
    return normal


def watch(request: service_pb.WatchRequest) -> tuple[int, str | None]:
    """Reads which sequence to start after, and which pass to watch, if only one."""
    fields = _Fields()
    if request.after_sequence < 0:
        fields.wrong("after_sequence", f"{request.after_sequence} is negative")
    normal = fields.uuid("id", request.id) if request.id else None
    fields.check()
    return request.after_sequence, normal


def list_query(request: service_pb.ListRequest, caller: Caller) -> ListQuery:
    """Reads which passes to list."""
    fields = _Fields()
    if request.page_size < 0:
        fields.wrong("page_size", f"{request.page_size} is negative")
    if len(request.statuses) > MAX_STATUSES:
        fields.wrong("statuses", f"has {len(request.statuses)} items, {MAX_STATUSES} are allowed")
        fields.check()
    statuses: set[str] = set()
    for index, value in enumerate(request.statuses):
        status = fields.status(f"statuses[{index}]", value)
        if value == pb.ID_PASS_STATUS_UNSPECIFIED:
            fields.wrong(f"statuses[{index}]", "UNSPECIFIED is not a status of a pass")
        if status:
            statuses.add(status)
    idle_before_us = None
    if request.HasField("idle_before"):
        try:
            idle_before_us = request.idle_before.ToMicroseconds()
            request.idle_before.ToJsonString()  # checks the range
        except ValueError:
            fields.wrong("idle_before", "is not a valid google.protobuf.Timestamp")
    query = ListQuery(
        account=caller.account,
        limit=min(request.page_size, MAX_PAGE_SIZE) or DEFAULT_PAGE_SIZE,
        statuses=tuple(sorted(statuses)),
        idle_before_us=idle_before_us,
        applicant_reference=fields.line(
            "applicant_reference", request.applicant_reference, MAX_APPLICANT_REFERENCE_CHARACTERS
        ),
    )
    if request.page_token and not fields.violations:
        before_id = _read_page_token(request.page_token, query)
        if before_id is None:
            fields.wrong(
                "page_token",
                "is not a next_page_token of this account for the same statuses, idle_before and "
                "applicant_reference; start again without it",
            )
        query = query._replace(before_id=before_id)
    fields.check()
    return query


def page_token(query: ListQuery, before_id: str) -> str:
    """Makes a page token that is valid for this account and filter only."""
    content = json.dumps([_filter_digest(query), before_id], separators=(",", ":"))
    return base64.urlsafe_b64encode(content.encode()).decode().rstrip("=")


def _read_page_token(token: str, query: ListQuery) -> str | None:
    try:
        padded = token + "=" * (-len(token) % 4)
        digest, before_id = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (ValueError, TypeError, binascii.Error, RecursionError):
        return None
    known = digest == _filter_digest(query) and isinstance(before_id, str)
    return before_id if known and _UUID.fullmatch(before_id) else None


def _filter_digest(query: ListQuery) -> str:
    content: list[object] = [1, query.account, query.statuses, query.idle_before_us]
    if query.applicant_reference:  # left out if unset: tokens of earlier versions stay good
        content.append(query.applicant_reference)
    return hashlib.blake2b(json.dumps(content).encode(), digest_size=8).hexdigest()


def _shown(value: str) -> str:
    """A caller's value for a message: quoted and shortened."""
    return repr(value[:MAX_SHOWN_CHARACTERS])
