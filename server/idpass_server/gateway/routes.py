"""The HTTP routes of the contract, read from the google.api.http annotations in the protos."""

from collections.abc import Iterator
from typing import Final, NamedTuple

from google.api import annotations_pb2
from google.protobuf.descriptor import Descriptor, MethodDescriptor, ServiceDescriptor

from idpass.v1 import id_pass_service_pb2, webhook_service_pb2

ID_PASSES: Final[ServiceDescriptor] = id_pass_service_pb2.DESCRIPTOR.services_by_name[
    "IdPassService"
]
WEBHOOKS: Final[ServiceDescriptor] = webhook_service_pb2.DESCRIPTOR.services_by_name[
    "WebhookService"
]
EVENTS_PATH: Final = "/idpass/events"
"""Path of the server-sent events over WatchIdPasses, the one method without an annotation."""

MAX_BODY_BYTES: Final = 2_500_000
"""Limit of a body with items, bytes. The service bounds the message, which is shorter than JSON."""
SMALL_BODY_BYTES: Final = 16_384
"""Limit of any other body, bytes: twice the longest valid one with every character escaped."""


class HttpRoute(NamedTuple):
    """A path, its verb in upper case, and the method that it calls."""

    verb: str
    path: str
    method: MethodDescriptor

    @property
    def request(self) -> Descriptor:
        return self.method.input_type

    @property
    def max_body_bytes(self) -> int:
        """Limit of the body, bytes: large only for a request with a list of items."""
        items = any(f.is_repeated and f.message_type is not None for f in self.request.fields)
        return MAX_BODY_BYTES if items else SMALL_BODY_BYTES

    @property
    def rpc(self) -> str:
        return rpc_path(self.method)


def rpc_path(method: MethodDescriptor) -> str:
    """The path of a method over HTTP/2, as gRPC takes it."""
    return f"/{method.containing_service.full_name}/{method.name}"


def routes() -> Iterator[HttpRoute]:
    """The routes of the annotated methods.

    Raises:
        ValueError: an annotation has a form that is not supported here.
    """
    for method in (*ID_PASSES.methods, *WEBHOOKS.methods):
        if not method.GetOptions().HasExtension(annotations_pb2.http):
            continue
        rule = method.GetOptions().Extensions[annotations_pb2.http]
        verb = rule.WhichOneof("pattern")
        path = getattr(rule, verb)
        if verb not in {"get", "post"} or "{" in path or rule.additional_bindings:
            raise ValueError(f"{method.full_name} has an annotation of another kind")
        if (rule.body == "*") != (verb == "post") or (verb == "get" and method.input_type.fields):
            raise ValueError(f"{method.full_name}: a POST has a body, a GET has no fields")
        yield HttpRoute(verb.upper(), path, method)


WATCH: Final[MethodDescriptor] = ID_PASSES.methods_by_name["WatchIdPasses"]
