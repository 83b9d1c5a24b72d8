"""Every method, by every kind of caller: what the contract's descriptors name is all there is."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from idpass import IdPassClient, PermissionDenied, Unauthenticated
from idpass.v1 import id_pass_pb2 as pb
from idpass.v1 import id_pass_service_pb2 as service_pb
from idpass_server.api import wire
from idpass_server.api.identity import Permission
from idpass_server.api.servicer import IdPassServicer
from idpass_server.api.webhook_servicer import WebhookServicer
from kit.contract import NEEDS
from kit.guarded import ALL, Guarded, caller, rows
from kit.support import Service, Told, bearer, cli, refused

METHODS: list[MethodDescriptor] = [*wire.ID_PASSES.methods, *wire.WEBHOOKS.methods]
STRANGERS = {
    "no credentials": (),
    "an unknown token": bearer("nobody-token"),
    "a malformed header": (("authorization", "ann-token"),),
    "two tokens": (*bearer("ann-token"), *bearer("ann-token")),
}
methods = pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)


def request_about(message: Message, pass_id: str) -> Any:
    """A valid request, which names the pass wherever a pass can be named."""
    for field in message.DESCRIPTOR.fields:
        if field.name in {"id", "supersedes"}:
            setattr(message, field.name, pass_id)
        elif field.name == "to_status":
            setattr(message, field.name, pb.ID_PASS_STATUS_OPENED)
        elif field.name == "url":
            setattr(message, field.name, "https://example.com/hook")
        elif field.name == "sequence" and not message.DESCRIPTOR.name.startswith("Watch"):
            setattr(message, field.name, 1)
        elif field.name == "requests":
            request_about(getattr(message, field.name).add(), pass_id)
    return message


def invalid(message: Message) -> Any:
    """A request with every scalar field wrong that can be."""
    for field in message.DESCRIPTOR.fields:
        if field.is_repeated:
            continue
        if field.type == FieldDescriptor.TYPE_STRING:
            setattr(message, field.name, "\x01" * 1000)
        elif field.type in {FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_INT64}:
            setattr(message, field.name, -1)
        elif field.type == FieldDescriptor.TYPE_ENUM:
            setattr(message, field.name, 99)
    return message


def call(
    server: Guarded, method: MethodDescriptor, request: Message, metadata: Any
) -> Message | None:
    """The answer, or the first of a stream; None where a stream ends without one."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    kind = server.channel.unary_stream if method.server_streaming else server.channel.unary_unary
    stub: Any = kind(
        path,
        request_serializer=type(request).SerializeToString,
        response_deserializer=GetMessageClass(method.output_type).FromString,
    )
    answer = stub(request, metadata=metadata, timeout=10)
    if not method.server_streaming:
        return answer  # type: ignore[no-any-return]
    first = next(answer, None)
    answer.cancel()
    return first


def new(method: MethodDescriptor) -> Message:
    return GetMessageClass(method.input_type)()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    everything = set(ALL.split())
    running = Guarded(
        tmp_path_factory.mktemp("access"),
        caller("ann"),
        caller("bob", "beta"),
        *(caller(f"only-{each}", "acme", each) for each in everything),
        *(caller(f"not-{each}", "acme", " ".join(everything - {each})) for each in everything),
    )
    yield running
    running.stop()


def test_every_rpc_says_which_permission_it_needs() -> None:
    declared = {
        method.name: getattr(servicer, method.name).permission
        for service, servicer in (
            (wire.ID_PASSES, IdPassServicer),
            (wire.WEBHOOKS, WebhookServicer),
        )
        for method in service.methods
    }
    assert {method.name for method in METHODS} == set(NEEDS), "say here what a new rpc needs"
    assert declared == NEEDS
    assert set(declared.values()) == set(Permission)


@methods
@pytest.mark.parametrize("who", STRANGERS)
@pytest.mark.parametrize("make", ["valid", "invalid"])
def test_a_stranger_is_turned_away_before_anything_else_is_looked_at(
    server: Guarded, method: MethodDescriptor, who: str, make: str
) -> None:
    pass_id = server.with_token("ann-token").register().id_pass.id
    before = rows(server.url, "acme")
    request = request_about(new(method), pass_id) if make == "valid" else invalid(new(method))
    error = refused(lambda: call(server, method, request, STRANGERS[who]))
    assert (error.code, error.reason) == (
        grpc.StatusCode.UNAUTHENTICATED,
        "UNAUTHENTICATED_CALLER",
    )
    assert pass_id not in told_in_all(error)
    assert rows(server.url, "acme") == before


@methods
@pytest.mark.parametrize("make", ["valid", "invalid"])
def test_whoever_lacks_the_permission_is_told_which_and_nothing_else(
    server: Guarded, method: MethodDescriptor, make: str
) -> None:
    pass_id = server.with_token("ann-token").register().id_pass.id
    before = rows(server.url, "acme")
    request = request_about(new(method), pass_id) if make == "valid" else invalid(new(method))
    needed = NEEDS[method.name]
    error = refused(lambda: call(server, method, request, bearer(f"not-{needed}-token")))
    assert (error.code, error.reason) == (
        grpc.StatusCode.PERMISSION_DENIED,
        "METHOD_NOT_PERMITTED",
    )
    assert error.metadata == {"permission": needed}
    assert error.message == f"This caller lacks the permission '{needed}'."
    assert pass_id not in told_in_all(error)
    assert rows(server.url, "acme") == before


@methods
def test_the_one_permission_is_enough(server: Guarded, method: MethodDescriptor) -> None:
    pass_id = server.with_token("ann-token").register().id_pass.id
    request = request_about(new(method), pass_id)
    token = bearer(f"only-{NEEDS[method.name]}-token")
    if method.containing_service == wire.WEBHOOKS:
        # This server sends none, which is said only to those who may ask.
        error = refused(lambda: call(server, method, request, token))
        assert error.reason == "WEBHOOKS_DISABLED"
        return
    assert call(server, method, request, token) is not None


@methods
def test_the_right_caller_of_an_invalid_request_is_told_what_is_wrong(
    server: Guarded, method: MethodDescriptor
) -> None:
    request = invalid(new(method))
    if request == new(method) and method.name != "BatchCancelIdPasses":
        assert method.name in {"GetAccount", "ListWebhooks"}  # nothing can be wrong with it
        return
    error = refused(lambda: call(server, method, request, bearer("ann-token")))
    assert error.reason == "INVALID_REQUEST"


@methods
def test_for_a_caller_of_another_account_there_is_nothing(
    server: Guarded, method: MethodDescriptor
) -> None:
    pass_id = server.with_token("ann-token").register().id_pass.id
    before = rows(server.url, "acme")
    request = request_about(new(method), pass_id)
    try:
        answer = call(server, method, request, bearer("bob-token"))
    except grpc.RpcError as error:
        disabled = method.containing_service == wire.WEBHOOKS
        expected = grpc.StatusCode.FAILED_PRECONDITION if disabled else grpc.StatusCode.NOT_FOUND
        assert error.code() == expected
    else:
        assert method.name in {"BatchCancelIdPasses", "ListIdPasses", "GetAccount"}
        if isinstance(answer, service_pb.BatchCancelResponse):
            assert answer.results[0].error.code == grpc.StatusCode.NOT_FOUND.value[0]
            assert answer.cancelled_count == 0
        elif isinstance(answer, pb.Account):
            assert answer.id == "beta"
            assert (answer.slots_in_use, answer.last_sequence) == (0, 0)
        else:
            assert isinstance(answer, service_pb.ListResponse)
            assert not answer.id_passes
    assert rows(server.url, "acme") == before


def told_in_all(error: Told) -> str:
    return f"{error.message} {error.trailing}"


# -- what is open to all

REFLECTION = ("v1", "v1alpha")


def reflect(server: Service, version: str) -> set[str]:
    method = server.channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    (answer,) = method(iter([request]), timeout=10)
    return {service.name for service in answer.list_services_response.service}


@pytest.mark.parametrize("version", REFLECTION)
def test_health_is_open_and_reflection_is_off_where_there_is_a_callers_file(
    guarded: Guarded, version: str
) -> None:
    health = health_pb2_grpc.HealthStub(guarded.channel)
    assert health.Check(health_pb2.HealthCheckRequest(), timeout=10).status == 1
    with pytest.raises(grpc.RpcError) as caught:
        reflect(guarded, version)
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_reflection_can_be_turned_on_for_everyone(tmp_path: Path) -> None:
    server = Guarded(tmp_path, caller("ann"), reflection=True)
    for version in REFLECTION:
        assert "idpass.v1.IdPassService" in reflect(server, version)
    server.stop()


def test_reflection_can_be_turned_off_where_everyone_may_call(tmp_path: Path) -> None:
    server = Service(tmp_path / "idpass.db", reflection=False)
    for version in REFLECTION:
        with pytest.raises(grpc.RpcError) as caught:
            reflect(server, version)
        assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
    server.stop()


def test_the_client_calls_with_its_token(guarded: Guarded) -> None:
    with IdPassClient(guarded.address, token="ann-token") as client:
        pass_id = client.register().id_pass.id
        assert client.cancel(pass_id).fee_refunded
    with (
        IdPassClient(guarded.address, token="eve-token") as client,
        pytest.raises(PermissionDenied),
    ):
        client.cancel(pass_id)
    with IdPassClient(guarded.address) as client, pytest.raises(Unauthenticated):
        client.cancel(pass_id)


def test_mock_data_are_for_everyone(tmp_path: Path) -> None:
    file = tmp_path / "callers.toml"
    file.write_text(caller("ann"))
    done = cli("serve", "--sandbox", "--http", "127.0.0.1:0", "--callers", str(file))
    assert done.returncode == 2
    assert "whose mock data are for everyone" in done.stderr
