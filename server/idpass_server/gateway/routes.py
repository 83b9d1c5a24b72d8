"""The HTTP routes of the contract, as the google.api.http annotations in the protos say."""

from collections.abc import Iterator
from typing import Final, NamedTuple

from google.api import annotations_pb2
from google.protobuf.descriptor import Descriptor, MethodDescriptor

from idpass.v1 import id_pass_service_pb2

SERVICE: Final = id_pass_service_pb2.DESCRIPTOR.services_by_name["IdPassService"]
EVENTS_PATH: Final = "/idpass/events"
"""Server-sent events over WatchIdPasses: the one method that has no annotation."""

MAX_BODY_BYTES: Final = 2_500_000
"""Size of a body with items, whose message the service bounds; it is shorter than the JSON."""
SMALL_BODY_BYTES: Final = 16_384
"""Size of any other body; the longest that is valid, every character escaped, is half of it."""


class HttpRoute(NamedTuple):
    verb: str
    path: str
    method: MethodDescriptor

    @property
    def request(self) -> Descriptor:
        return self.method.input_type

    @property
    def max_body_bytes(self) -> int:
        """Large only where a request has items, whose number decides its size."""
        items = any(f.is_repeated and f.message_type is not None for f in self.request.fields)
        return MAX_BODY_BYTES if items else SMALL_BODY_BYTES

    @property
    def rpc(self) -> str:
        return f"/{SERVICE.full_name}/{self.method.name}"


def routes() -> Iterator[HttpRoute]:
    """Raises: ValueError: an annotation says more than is understood here."""
    for method in SERVICE.methods:
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


WATCH: Final[MethodDescriptor] = SERVICE.methods_by_name["WatchIdPasses"]
