"""The stubs of both services on one channel; no two of their methods have the same name."""

from typing import Any

from idpass.v1.id_pass_service_pb2_grpc import IdPassServiceStub
from idpass.v1.webhook_service_pb2_grpc import WebhookServiceStub


class Stubs:
    """Every method of the services as an attribute. Args: channel: sync or async."""

    def __init__(self, channel: Any) -> None:
        for make in (IdPassServiceStub, WebhookServiceStub):
            vars(self).update(vars(make(channel)))
