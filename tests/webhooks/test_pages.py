"""Pages of a webhook's deliveries: how long they are, and whose their tokens are."""

import pytest

from idpass.v1.webhook_service_pb2 import ListWebhookDeliveriesRequest
from idpass_server.api import page_tokens, webhook_requests
from idpass_server.rules.refusals import InvalidRequest
from kit.support import UNKNOWN_ID

OTHER_ID = UNKNOWN_ID.replace("8000", "9000")


@pytest.mark.parametrize(
    ("asked", "granted"), [(0, 50), (1, 1), (200, 200), (201, 200), (2**31 - 1, 200)]
)
def test_a_page_has_fifty_by_default_and_two_hundred_at_most(asked: int, granted: int) -> None:
    request = ListWebhookDeliveriesRequest(id=UNKNOWN_ID, page_size=asked)
    assert webhook_requests.deliveries(request).limit == granted


def test_a_token_is_good_for_its_own_webhook_only() -> None:
    page = webhook_requests.Page(UNKNOWN_ID, 50, None)
    token = webhook_requests.page_token(page, 7)
    own = ListWebhookDeliveriesRequest(id=UNKNOWN_ID, page_token=token)
    assert webhook_requests.deliveries(own).before_sequence == 7
    for pass_id, bad in (
        (OTHER_ID, token),
        (UNKNOWN_ID, page_tokens.write([UNKNOWN_ID, "7"])),
        (UNKNOWN_ID, page_tokens.write(7)),
        (UNKNOWN_ID, "none"),
    ):
        request = ListWebhookDeliveriesRequest(id=pass_id, page_token=bad)
        with pytest.raises(InvalidRequest) as raised:
            webhook_requests.deliveries(request)
        assert [violation.field for violation in raised.value.violations] == ["page_token"]
