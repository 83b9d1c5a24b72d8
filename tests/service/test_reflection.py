"""gRPC server reflection as both its versions, with the tools that use them."""

import base64
import json
import subprocess
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.rpc import error_details_pb2
from grpc_reflection.v1alpha import reflection_pb2

from kit.support import BUF, Service, grpcurl_path

VERSIONS = ("v1", "v1alpha")
SERVICES = {
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
    "idpass.v1.IdPassService",
    "idpass.v1.WebhookService",
}


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def ask(service: Service, version: str, *requests: bytes) -> list[Any]:
    """The answers to requests of one stream."""
    method: Any = service.channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=None,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    return list(method(iter(requests), timeout=10))


def request(**asked: Any) -> bytes:
    written: bytes = reflection_pb2.ServerReflectionRequest(**asked).SerializeToString()
    return written


def buf_curl(address: str, target: str, version: str, *more: str) -> Any:
    if BUF is None:
        pytest.skip("buf is not installed here")
    protocol = ("--http2-prior-knowledge", "--protocol", "grpc")
    reflecting = ("--reflect", "--reflect-protocol", f"grpc-{version}")
    command = [BUF, "curl", *protocol, *reflecting, *more, f"http://{address}/{target}"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_stranger_calls_by_reflection_alone(service: Service, version: str) -> None:
    method = "idpass.v1.IdPassService"
    asked = json.dumps({"request_id": f"r-{version}"})
    made = buf_curl(service.address, f"{method}/RegisterIdPass", version, "-d", asked)
    assert made.returncode == 0, made.stderr
    body = json.dumps({"id": json.loads(made.stdout)["idPass"]["id"]})
    first = buf_curl(service.address, f"{method}/CancelIdPass", version, "-d", body)
    assert json.loads(first.stdout)["status"] == "ID_PASS_STATUS_CANCELLED"
    second = buf_curl(service.address, f"{method}/CancelIdPass", version, "-d", body)
    assert second.returncode != 0
    error = json.loads(second.stderr)
    assert error["code"] == "failed_precondition"
    details = {d["type"]: base64.b64decode(d["value"] + "==") for d in error["details"]}
    info = error_details_pb2.ErrorInfo.FromString(details["google.rpc.ErrorInfo"])
    assert info.reason == "PASS_ALREADY_CANCELLED"
    assert info.metadata["feeRefunded"] == "true"


def grpcurl(service: Service, *words: str) -> str:
    command = [grpcurl_path(), "-plaintext", service.address, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_grpcurl_lists_and_describes_both_versions(service: Service) -> None:
    assert set(grpcurl(service, "list").split()) == SERVICES
    for version in VERSIONS:
        told = grpcurl(service, "describe", f"grpc.reflection.{version}.ServerReflection")
        assert f"rpc ServerReflectionInfo ( stream .grpc.reflection.{version}." in told
    told = grpcurl(service, "describe", "idpass.v1.ErrorReason")
    assert "ERROR_REASON_PASS_ALREADY_CANCELLED = 6;" in told


def test_services_are_listed(service: Service, version: str) -> None:
    (answer,) = ask(service, version, request(list_services=""))
    assert {each.name for each in answer.list_services_response.service} == SERVICES


@pytest.mark.parametrize(
    "symbol",
    [
        "idpass.v1.IdPassService",
        "idpass.v1.IdPassService.CancelIdPass",
        "idpass.v1.IdPassService.WatchIdPasses",
        "idpass.v1.CancelRequest",
        "idpass.v1.ErrorReason",
        "grpc.health.v1.Health.Check",
        "grpc.reflection.v1.ServerReflection.ServerReflectionInfo",
        "grpc.reflection.v1alpha.ServerReflection.ServerReflectionInfo",
        "google.api.http",
    ],
)
def test_services_methods_and_messages_are_found(
    service: Service, version: str, symbol: str
) -> None:
    (answer,) = ask(service, version, request(file_containing_symbol=symbol))
    assert not answer.HasField("error_response"), answer.error_response
    file = FileDescriptorProto.FromString(answer.file_descriptor_response.file_descriptor_proto[0])
    assert symbol.startswith(file.package)
    (again,) = ask(service, version, request(file_by_filename=file.name))
    assert again.file_descriptor_response == answer.file_descriptor_response


def test_the_reasons_of_errors_come_with_the_service(service: Service, version: str) -> None:
    symbol = request(file_containing_symbol="idpass.v1.IdPassService")
    (answer,) = ask(service, version, symbol)
    files = [
        FileDescriptorProto.FromString(each)
        for each in answer.file_descriptor_response.file_descriptor_proto
    ]
    assert "ErrorReason" in {enum.name for file in files for enum in file.enum_type}


def test_extensions_are_found(service: Service, version: str) -> None:
    options = "google.protobuf.MethodOptions"
    (numbers,) = ask(service, version, request(all_extension_numbers_of_type=options))
    (number,) = numbers.all_extension_numbers_response.extension_number
    extension = {"containing_type": options, "extension_number": number}
    (answer,) = ask(service, version, request(file_containing_extension=extension))
    file = FileDescriptorProto.FromString(answer.file_descriptor_response.file_descriptor_proto[0])
    assert file.name == "google/api/annotations.proto"


NOT_FOUND = [
    request(file_containing_symbol="idpass.v1.Nothing"),
    request(file_containing_symbol=""),
    request(file_containing_symbol="idpass\0v1"),
    request(file_containing_symbol=".idpass.v1.IdPassService"),
    request(file_containing_symbol="a." * 100_000),
    request(file_by_filename=""),
    request(file_by_filename="../../etc/passwd"),
    request(file_containing_extension={}),
    request(
        file_containing_extension={
            "containing_type": "google.protobuf.MethodOptions",
            "extension_number": -1,
        }
    ),
    request(
        file_containing_extension={
            "containing_type": "idpass.v1.CancelRequest",
            "extension_number": 1,
        }
    ),
    request(all_extension_numbers_of_type="idpass.v1.IdPassStatus"),
    request(all_extension_numbers_of_type="idpass.v1.IdPassService"),
]
MALFORMED = [
    b"",
    b"\xf8\x01\x01",  # a field that nobody knows
    b"\x22\xff",  # a length without its bytes
    b"\x22\x02\xff\xfe",  # no UTF-8
    b"\x00",  # field 0
]


def test_a_bad_request_is_refused_and_the_stream_goes_on(service: Service, version: str) -> None:
    good = request(list_services="")
    for bad, status in [
        *((each, grpc.StatusCode.NOT_FOUND) for each in NOT_FOUND),
        *((each, grpc.StatusCode.INVALID_ARGUMENT) for each in MALFORMED),
    ]:
        refused, answer = ask(service, version, bad, good)
        assert refused.error_response.error_code == status.value[0], bad
        assert answer.HasField("list_services_response"), bad
