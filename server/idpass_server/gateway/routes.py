"""The HTTP routes of the contract, read from the google.api.http annotations in the protos."""

import re
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


UUID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
"""What a variable in a path stands for."""
_VARIABLE: Final = re.compile(r"\{(\w+)\}")


class HttpRoute(NamedTuple):
    """A path, its verb in upper case, and the method that it calls.

    A path may have a variable, such as `{id}`, which is the only field of the request. It stands
    for UUIDs only, so that no word of another path can be taken for one.
    """

    verb: str
    path: str
    method: MethodDescriptor

    @property
    def request(self) -> Descriptor:
        return self.method.input_type

    @property
    def variable(self) -> str | None:
        """The field that the path has, or None."""
        found = _VARIABLE.search(self.path)
        return found[1] if found else None

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
        for binding in (rule, *rule.additional_bindings):
            verb = binding.WhichOneof("pattern")
            route = HttpRoute(verb.upper(), getattr(binding, verb), method)
            _check(route, binding.body)
            yield route


def _check(route: HttpRoute, body: str) -> None:
    """
    Raises:
        ValueError: an annotation has a form that is not supported here.
    """
    if route.verb not in {"GET", "POST"} or (body == "*") != (route.verb == "POST"):
        raise ValueError(f"{route.method.full_name}: only GET, and POST with a body, are supported")
    variables = _VARIABLE.findall(route.path)
    if route.verb == "GET" and variables != [field.name for field in route.request.fields]:
        raise ValueError(f"{route.method.full_name}: a GET has its only field in its path, or none")
    if len(variables) != route.path.count("{") or (variables and route.verb == "POST"):
        raise ValueError(f"{route.path}: only a GET has a variable, and it is a field's name")


WATCH: Final[MethodDescriptor] = ID_PASSES.methods_by_name["WatchIdPasses"]
