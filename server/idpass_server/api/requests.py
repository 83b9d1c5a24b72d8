"""Requests as commands: normalised, and validated with all violations reported at once.

Everything is checked here that can be checked without looking at a pass. Each function raises
InvalidRequest for a request that is not valid.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Final, NamedTuple

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


class Watch(NamedTuple):
    """Where to start watching.

    Attributes:
        after_sequence: the sequence to start after.
        pass_id: the only pass to watch; None for all.
        history: the history that `after_sequence` is from; "" if not told.
    """

    after_sequence: int
    pass_id: str | None
    history: str


def watch(request: service_pb.WatchRequest) -> Watch:
    """Reads where to start watching, and which pass, if only one."""
    fields = Fields()
    fields.not_negative("after_sequence", request.after_sequence)
    normal = fields.uuid("id", request.id) if request.id else None
    history = fields.uuid("history", request.history) if request.history else ""
    fields.check()
    return Watch(request.after_sequence, normal, history)


def list_query(request: service_pb.ListRequest, caller: Caller) -> tuple[ListQuery, str]:
    """Reads which passes to list, and the history that the page token is from, or ""."""
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
        applicant_reference=fields.line(
            "applicant_reference", request.applicant_reference, MAX_APPLICANT_REFERENCE_CHARACTERS
        ),
    )
    history = ""
    if request.page_token and not fields.violations:
        before_id, history = _read_page_token(request.page_token, query)
        if not before_id:
            fields.wrong(
                "page_token",
                "is not a next_page_token of this account for the same statuses, idle_before and "
                "applicant_reference; start again without it",
            )
        query = query._replace(before_id=before_id)
    fields.check()
    return query, history


def page_token(query: ListQuery, before_id: str, history: str) -> str:
    """Makes a page token that is valid for this account, filter and history only."""
    # The keys in their order are what the previous program has as a list, and it reads them so.
    return page_tokens.write({_filter_digest(query): history, before_id: ""})


def _read_page_token(token: str, query: ListQuery) -> tuple[str, str]:
    """The id to go on below, or "" if the token is not valid; and its history, "" for none."""
    content = page_tokens.read(token)
    try:
        digest, before_id = content
        history = content[digest] if isinstance(content, dict) else ""
    except (ValueError, TypeError):
        return "", ""
    known = digest == _filter_digest(query) and isinstance(history, str)
    if not known or not isinstance(before_id, str) or not UUID.fullmatch(before_id):
        return "", ""
    return before_id, history


def _filter_digest(query: ListQuery) -> str:
    content: list[object] = [1, query.account, query.statuses, query.idle_before_us]
    if query.applicant_reference:  # left out if unset: tokens of earlier versions stay good
        content.append(query.applicant_reference)
    return hashlib.blake2b(json.dumps(content).encode(), digest_size=8).hexdigest()
