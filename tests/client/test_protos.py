"""The protos as callers in other languages meet them."""

from types import ModuleType

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto

from idpass.v1 import (
    error_reason_pb2,
    id_pass_pb2,
    id_pass_service_pb2,
    webhook_pb2,
    webhook_service_pb2,
)
from kit.paths import ROOT

MODULES = (
    error_reason_pb2,
    id_pass_pb2,
    id_pass_service_pb2,
    webhook_pb2,
    webhook_service_pb2,
)


def described(module: ModuleType) -> FileDescriptorProto:
    return FileDescriptorProto.FromString(module.DESCRIPTOR.serialized_pb)


def test_every_proto_is_here() -> None:
    names = {
        path.relative_to(ROOT / "protos").as_posix() for path in ROOT.glob("protos/**/*.proto")
    }
    assert names == {module.DESCRIPTOR.name for module in MODULES}


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.DESCRIPTOR.name)
def test_every_proto_has_a_place_in_every_language(module: ModuleType) -> None:
    file = described(module)
    stem = file.name.rpartition("/")[2].removesuffix(".proto")
    options = {field.name: value for field, value in file.options.ListFields()}
    assert options == {
        "csharp_namespace": "IdPass.V1",
        "go_package": "idpass/v1;idpassv1",
        "java_multiple_files": True,
        "java_outer_classname": f"{stem.title().replace('_', '')}Proto",
        "java_package": "com.idpass.v1",
        "objc_class_prefix": "IDP",
        "php_namespace": r"IdPass\V1",
        "ruby_package": "IdPass::V1",
    }


@pytest.mark.parametrize("module", [id_pass_service_pb2, webhook_service_pb2])
def test_the_reasons_of_errors_come_with_each_service(module: ModuleType) -> None:
    file = described(module)
    public = [file.dependency[index] for index in file.public_dependency]
    assert public == [error_reason_pb2.DESCRIPTOR.name]
