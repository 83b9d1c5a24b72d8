"""WebhookService: each method translates a request, asks once, and translates the answer.

What it asks is a `Webhooks`, which `delivery` implements and hosting passes in: the two wings do
not know each other.
"""

from collections.abc import Sequence
from typing import NoReturn, Protocol

from idpass.v1 import webhook_pb2 as pb
from idpass.v1 import webhook_service_pb2 as service_pb
from idpass_server.api import webhook_requests as requests
from idpass_server.api import webhook_responses as responses
from idpass_server.api.calls import Call
from idpass_server.api.identity import Permission
from idpass_server.api.methods import rpc
from idpass_server.engine.clock import Clock
from idpass_server.rules.refusals import WebhooksDisabled
from idpass_server.rules.webhooks import Attempt, Delivery, Webhook


class Webhooks(Protocol):
    """An account's webhooks; see `delivery.webhooks`. Every method raises refusals."""

    async def create(  # noqa: PLR0917 the fields of a request
        self,
        account: str,
        caller: str,
        url: str,
        statuses: Sequence[str],
        after_sequence: int | None,
        request_id: str | None,
    ) -> tuple[Webhook, str, bool]:
        """Returns the webhook, its secret, and whether this is a replay."""

    async def get(self, account: str, webhook_id: str) -> Webhook: ...

    async def list(self, account: str) -> Sequence[Webhook]: ...

    async def update(
        self,
        account: str,
        webhook_id: str,
        *,
        url: str | None,
        statuses: Sequence[str] | None,
        paused: bool | None,
    ) -> Webhook: ...

    async def delete(self, account: str, webhook_id: str) -> None: ...

    async def rotate_secret(
        self, account: str, webhook_id: str, *, immediate: bool
    ) -> tuple[Webhook, str]: ...

    async def test(self, account: str, webhook_id: str) -> Attempt: ...

    async def deliveries(
        self, account: str, webhook_id: str, limit: int, before_sequence: int | None
    ) -> tuple[Sequence[tuple[Delivery, str]], int | None]:
        """Returns deliveries with their `webhook-id`, and `before_sequence` of the next page."""

    async def redeliver(
        self,
        account: str,
        webhook_id: str,
        *,
        sequence: int | None,
        from_sequence: int | None,
    ) -> Webhook: ...


class WebhookServicer:
    """The methods of the service, one for each rpc.

    Args:
        webhooks: what they ask; None where the server has no webhook key.
        clock: the server's time.
    """

    def __init__(self, webhooks: Webhooks | None, clock: Clock) -> None:
        self._webhooks: Webhooks = webhooks or _Disabled()
        self._clock = clock

    @rpc(Permission.WEBHOOKS)
    async def CreateWebhook(
        self, request: service_pb.CreateWebhookRequest, call: Call
    ) -> service_pb.CreateWebhookResponse:
        asked = requests.create(request)
        made, secret, replayed = await self._webhooks.create(
            call.caller.account, call.caller.name, *asked
        )
        return service_pb.CreateWebhookResponse(
            webhook=self._shown(made), secret=secret, replayed=replayed
        )

    @rpc(Permission.WEBHOOKS)
    async def GetWebhook(
        self, request: service_pb.GetWebhookRequest, call: Call
    ) -> service_pb.GetWebhookResponse:
        found = await self._webhooks.get(call.caller.account, requests.webhook_id(request))
        return service_pb.GetWebhookResponse(webhook=self._shown(found))

    @rpc(Permission.WEBHOOKS)
    async def ListWebhooks(
        self,
        request: service_pb.ListWebhooksRequest,  # noqa: ARG002 it has no fields
        call: Call,
    ) -> service_pb.ListWebhooksResponse:
        found = await self._webhooks.list(call.caller.account)
        return service_pb.ListWebhooksResponse(webhooks=map(self._shown, found))

    @rpc(Permission.WEBHOOKS)
    async def UpdateWebhook(
        self, request: service_pb.UpdateWebhookRequest, call: Call
    ) -> service_pb.UpdateWebhookResponse:
        asked = requests.update(request)
        changed = await self._webhooks.update(
            call.caller.account,
            asked.id,
            url=asked.url,
            statuses=asked.statuses,
            paused=asked.paused,
        )
        return service_pb.UpdateWebhookResponse(webhook=self._shown(changed))

    @rpc(Permission.WEBHOOKS)
    async def DeleteWebhook(
        self, request: service_pb.DeleteWebhookRequest, call: Call
    ) -> service_pb.DeleteWebhookResponse:
        await self._webhooks.delete(call.caller.account, requests.webhook_id(request))
        return service_pb.DeleteWebhookResponse()

    @rpc(Permission.WEBHOOKS)
    async def RotateWebhookSecret(
        self, request: service_pb.RotateWebhookSecretRequest, call: Call
    ) -> service_pb.RotateWebhookSecretResponse:
        rotated, secret = await self._webhooks.rotate_secret(
            call.caller.account, requests.webhook_id(request), immediate=request.immediate
        )
        return service_pb.RotateWebhookSecretResponse(webhook=self._shown(rotated), secret=secret)

    @rpc(Permission.WEBHOOKS)
    async def TestWebhook(
        self, request: service_pb.TestWebhookRequest, call: Call
    ) -> service_pb.TestWebhookResponse:
        attempt = await self._webhooks.test(call.caller.account, requests.webhook_id(request))
        return service_pb.TestWebhookResponse(attempt=responses.attempt(attempt))

    @rpc(Permission.WEBHOOKS)
    async def ListWebhookDeliveries(
        self, request: service_pb.ListWebhookDeliveriesRequest, call: Call
    ) -> service_pb.ListWebhookDeliveriesResponse:
        page = requests.deliveries(request)
        found, before_sequence = await self._webhooks.deliveries(
            call.caller.account, page.id, page.limit, page.before_sequence
        )
        next_page_token = ""
        if before_sequence is not None:
            next_page_token = requests.page_token(page, before_sequence)
        return service_pb.ListWebhookDeliveriesResponse(
            deliveries=[responses.delivery(*each) for each in found],
            next_page_token=next_page_token,
        )

    @rpc(Permission.WEBHOOKS)
    async def RedeliverWebhookEvents(
        self, request: service_pb.RedeliverWebhookEventsRequest, call: Call
    ) -> service_pb.RedeliverWebhookEventsResponse:
        webhook_id, sequence, onwards = requests.redeliver(request)
        found = await self._webhooks.redeliver(
            call.caller.account,
            webhook_id,
            sequence=None if onwards else sequence,
            from_sequence=sequence if onwards else None,
        )
        return service_pb.RedeliverWebhookEventsResponse(webhook=self._shown(found))

    def _shown(self, webhook: Webhook) -> pb.Webhook:
        return responses.webhook(webhook, self._clock.now().us)


class _Disabled:
    """Stands where webhooks would, in a server that has no key to sign with."""

    async def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise WebhooksDisabled

    create = get = list = update = delete = rotate_secret = test = deliveries = redeliver = _refuse
