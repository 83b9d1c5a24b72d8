"""Requests of WebhookService: normalised, and validated with all violations reported at once.

Each function raises InvalidRequest for a request that is not valid. Whether a URL may be called is
decided by what calls it.
"""

from typing import Final, NamedTuple

from idpass.v1 import webhook_pb2 as pb
from idpass.v1 import webhook_service_pb2 as service_pb
from idpass_server.api import page_tokens
from idpass_server.api.fields import Fields

MAX_URL_CHARACTERS: Final = 2_048
DEFAULT_PAGE_SIZE: Final = 50
MAX_PAGE_SIZE: Final = 200
MAX_SEQUENCE: Final = 2**63 - 1
"""Largest number that the stores take for a sequence."""


class Create(NamedTuple):
    """A webhook to create; `after_sequence` None stands for the newest event."""

    url: str
    statuses: tuple[str, ...]
    after_sequence: int | None
    request_id: str | None


class Update(NamedTuple):
    """Changes of a webhook; None leaves what it stands for."""

    id: str
    url: str | None
    statuses: tuple[str, ...] | None
    paused: bool | None


class Page(NamedTuple):
    """A page of a webhook's deliveries; `before_sequence` None stands for the first page."""

    id: str
    limit: int
    before_sequence: int | None


def create(request: service_pb.CreateWebhookRequest) -> Create:
    """Reads what webhook to create."""
    fields = Fields()
    after_sequence = None
    if request.HasField("after_sequence"):
        after_sequence = fields.not_negative("after_sequence", request.after_sequence)
    if not request.url:
        fields.wrong("url", "is required: where events are sent, such as https://example.com/hook")
    command = Create(
        url=fields.line("url", request.url, MAX_URL_CHARACTERS),
        statuses=fields.statuses(request.statuses),
        after_sequence=after_sequence,
        request_id=fields.request_id(request.request_id),
    )
    fields.check()
    return command


def update(request: service_pb.UpdateWebhookRequest) -> Update:
    """Reads what to change of a webhook."""
    fields = Fields()
    statuses = fields.statuses(request.statuses)
    if request.statuses and request.all_statuses:
        fields.wrong("all_statuses", "contradicts statuses; send one of them")
    if request.state not in pb.WebhookState.values():
        fields.wrong("state", f"{request.state} is not a WebhookState")
    command = Update(
        id=_id(fields, request.id),
        url=fields.line("url", request.url, MAX_URL_CHARACTERS) or None,
        statuses=statuses if request.statuses or request.all_statuses else None,
        paused=_PAUSED.get(request.state),
    )
    fields.check()
    return command


def webhook_id(
    request: service_pb.GetWebhookRequest
    | service_pb.DeleteWebhookRequest
    | service_pb.RotateWebhookSecretRequest
    | service_pb.TestWebhookRequest,
) -> str:
    """Reads which webhook is meant."""
    fields = Fields()
    normal = _id(fields, request.id)
    fields.check()
    return normal


def deliveries(request: service_pb.ListWebhookDeliveriesRequest) -> Page:
    """Reads which deliveries to list."""
    fields = Fields()
    fields.not_negative("page_size", request.page_size)
    normal = _id(fields, request.id)
    before_sequence = None
    if request.page_token and not fields.violations:
        match page_tokens.read(request.page_token):
            case [of, position] if of == normal and _is_sequence(position):
                before_sequence = position
            case _:
                fields.wrong(
                    "page_token",
                    "is not a next_page_token of this webhook; start again without it",
                )
    fields.check()
    limit = min(request.page_size, MAX_PAGE_SIZE) or DEFAULT_PAGE_SIZE
    return Page(normal, limit, before_sequence)


def _is_sequence(value: object) -> bool:
    return type(value) is int and 0 <= value <= MAX_SEQUENCE


def page_token(page: Page, before_sequence: int) -> str:
    """Makes a page token that is valid for this webhook only."""
    return page_tokens.write((page.id, before_sequence))


def redeliver(request: service_pb.RedeliverWebhookEventsRequest) -> tuple[str, int, bool]:
    """Reads which events to deliver again.

    Returns:
        the webhook's id, a sequence, and whether all events after it are meant too.
    """
    fields = Fields()
    normal = _id(fields, request.id)
    one = fields.not_negative("sequence", request.sequence)
    first = fields.not_negative("from_sequence", request.from_sequence)
    if bool(one) == bool(first):
        fields.wrong("sequence", "give it for one event, or from_sequence for all from there on")
    fields.check()
    return normal, one or first, bool(first)


def _id(fields: Fields, value: str) -> str:
    return fields.uuid("id", value, of="a webhook")


_PAUSED: Final = {pb.WEBHOOK_STATE_ACTIVE: False, pb.WEBHOOK_STATE_PAUSED: True}
