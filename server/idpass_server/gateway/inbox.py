"""The sandbox's inbox: a real receiver of the account's webhooks, for the page to look at.

It creates its webhook when the page first asks, and again after a reset. Each request that comes is
verified as any receiver would, and answered 204, or 500 while it is told to fail.
"""

import time
from collections import deque
from typing import Any, Final

import grpc
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from idpass.v1 import webhook_service_pb2 as service_pb
from idpass.v1.webhook_service_pb2_grpc import WebhookServiceStub
from idpass.webhooks import WebhookVerificationError, verify
from idpass_server.gateway import errors, messages
from idpass_server.gateway.api import refuse_forms

PATH: Final = "/sandbox/inbox"
KEPT: Final = 50
"""Number of requests that the page can look at."""
MAX_BODY_BYTES: Final = 64 * 1024
"""Largest body that is read, bytes: many times that of an event."""
CALL_S: Final = 10.0
"""Deadline of a call to the service, seconds."""
REQUEST_ID: Final = "sandbox-inbox"
"""Creates the webhook once; repeated, it gets the secret again."""


class Inbox:
    """
    Args:
        channel: to the service.
        url: where it answers, as the service reaches it.
    """

    def __init__(self, channel: grpc.aio.Channel, url: str) -> None:
        self._stub: Any = WebhookServiceStub(channel)
        self._url = url
        self._id: str | None = None
        self._secret = ""
        self._fails = False
        self._received: deque[dict[str, Any]] = deque(maxlen=KEPT)

    async def show(self, _request: Request) -> Response:
        """What the page shows; `webhook` is null where the service sends no webhooks."""
        webhook = await self._webhook()
        return JSONResponse(
            {
                "webhook": webhook and messages.render(webhook),
                "fails": self._fails,
                "received": list(self._received),
            }
        )

    async def switch(self, request: Request) -> Response:
        """Makes it fail, or answer again."""
        refuse_forms(request)
        try:
            fails = (await request.json())["fails"]
        except (ValueError, KeyError, TypeError):
            fails = None
        if not isinstance(fails, bool):
            raise errors.unreadable('send {"fails": true} or {"fails": false}')
        self._fails = fails
        return await self.show(request)

    async def receive(self, request: Request) -> Response:
        """Takes a webhook."""
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > MAX_BODY_BYTES:
                raise errors.unreadable("the body is no webhook's", http_status=413)
        status, kind, why = 500 if self._fails else 204, "", ""
        try:
            kind = verify(bytes(body), request.headers, self._secret).type
        except (WebhookVerificationError, ValueError) as error:
            status, why = 400, str(error)
        self._received.appendleft(
            {
                "message_id": messages.shown(request.headers.get("webhook-id", "")),
                "type": kind,
                "verified": not why,
                "why": why,
                "answered": status,
                "time_ms": time.time_ns() // 1_000_000,
            }
        )
        return Response(status_code=status)

    async def _webhook(self) -> Any:
        """The webhook, made if it is not there; None where the service sends none."""
        try:
            if self._id is not None:
                request = service_pb.GetWebhookRequest(id=self._id)
                return (await self._stub.GetWebhook(request, timeout=CALL_S)).webhook
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise errors.from_rpc(error) from error
        try:
            made = await self._stub.CreateWebhook(
                service_pb.CreateWebhookRequest(url=self._url, request_id=REQUEST_ID),
                timeout=CALL_S,
            )
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.FAILED_PRECONDITION:
                return None
            raise errors.from_rpc(error) from error
        self._received.clear()
        self._fails = False
        self._id, self._secret = made.webhook.id, made.secret
        return made.webhook
