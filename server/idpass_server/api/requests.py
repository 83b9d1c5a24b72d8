"""Requests as commands: normalised, and validated with all violations reported at once.

Everything is checked here that can be checked without looking at a pass. Each function raises
InvalidRequest for a request that is not valid.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Final

from idpass.v1 import id_pass_pb2 as pb
from idpass.v1 import id_pass_service_pb2 as service_pb
from idpass_server import ids
from idpass_server.api import page_tokens
from idpass_server.api.fields import UUID, Fields
from idpass_server.api.identity import Caller
from idpass_server.api.wire import MAX_BATCH_REQUESTS
from idpass_server.rules import commands
from idpass_server.rules.records import Status
from idpass_server.rules.refusals import InvalidRequest, Violation
from idpass_server.store import ListQuery

MAX_NOTE_CHARACTERS: Final = 500
MAX_APPLICANT_REFERENCE_CHARACTERS: Final = 128
MAX_LINK_VALIDITY_DAYS: Final = 14
DEFAULT_PAGE_SIZE: Final = 50
MAX_PAGE_SIZE: Final = 1_000


def cancel(request: service_pb.CancelRequest, caller: Caller, reference: str) -> commands.Cancel:
    """Reads a cancellation."""
    fields = Fields()
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
    fields = Fields()
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
    fields = Fields()
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
    fields = Fields()
    normal = fields.uuid("id", request.id)
    fields.check()
    return normal


def watch(request: service_pb.WatchRequest) -> tuple[int, str | None]:
    """Reads which sequence to start after, and which pass to watch, if only one."""
    fields = Fields()
    fields.not_negative("after_sequence", request.after_sequence)
    normal = fields.uuid("id", request.id) if request.id else None
    fields.check()
    return request.after_sequence, normal


def list_query(request: service_pb.ListRequest, caller: Caller) -> ListQuery:
    """Reads which passes to list."""
    fields = Fields()
    fields.not_negative("page_size", request.page_size)
    statuses = fields.statuses(request.statuses)
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
        statuses=statuses,
        idle_before_us=idle_before_us,
    )
    if request.page_token and not fields.violations:
        before_id = _read_page_token(request.page_token, query)
        if before_id is None:
            fields.wrong(
                "page_token",
                "is not a next_page_token of this account for the same statuses and idle_before; "
                "start again without it",
            )
        query = query._replace(before_id=before_id)
    fields.check()
    return query


def page_token(query: ListQuery, before_id: str) -> str:
    """Makes a page token that is valid for this account and filter only."""
    return page_tokens.write((_filter_digest(query), before_id))


def _read_page_token(token: str, query: ListQuery) -> str | None:
    of, before_id = page_tokens.read(token) or (None, None)
    known = of == _filter_digest(query) and isinstance(before_id, str)
    return before_id if known and UUID.fullmatch(before_id) else None


def _filter_digest(query: ListQuery) -> str:
    content = json.dumps([1, query.account, query.statuses, query.idle_before_us])
    return hashlib.blake2b(content.encode(), digest_size=8).hexdigest()
