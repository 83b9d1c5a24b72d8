"""The protos as callers in other languages meet them."""

import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

from idpass.v1 import (
    PROTO_DIR,
    error_reason_pb2,
    id_pass_pb2,
    id_pass_service_pb2,
    webhook_pb2,
    webhook_service_pb2,
)
from kit.paths import ROOT
from kit.support import BUF, grpcurl_path

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
    # No namespace is called IdPass: in C# the message IdPass would be out of reach beside it.
    assert options == {
        "csharp_namespace": "Idpass.V1",
        "go_package": "idpass/v1;idpassv1",
        "java_multiple_files": True,
        "java_outer_classname": f"{stem.title().replace('_', '')}Proto",
        "java_package": "com.idpass.v1",
        "objc_class_prefix": "IDP",
        "php_namespace": r"Idpass\V1",
        "ruby_package": "Idpass::V1",
    }


@pytest.mark.parametrize("module", [id_pass_service_pb2, webhook_service_pb2])
def test_the_reasons_of_errors_come_with_each_service(module: ModuleType) -> None:
    file = described(module)
    public = [file.dependency[index] for index in file.public_dependency]
    assert public == [error_reason_pb2.DESCRIPTOR.name]


def export(*folder: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "idpass.v1.export", *folder]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def files(folder: Path) -> dict[str, bytes]:
    """The content of each file, by its path in the folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_an_exported_folder_has_all_that_its_protos_import(tmp_path: Path) -> None:
    done = export(tmp_path / "deep" / "down")
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    written = files(tmp_path / "deep" / "down")
    described_here = FileDescriptorSet.FromString(written.pop("idpass.binpb")).file
    assert {file.name for file in described_here} == set(written)
    assert {name for file in described_here for name in file.dependency} <= set(written)
    for module in MODULES:
        name = module.DESCRIPTOR.name
        assert written[name] == (ROOT / "protos" / name).read_bytes()
        (here,) = (file for file in described_here if file.name == name)
        assert here.source_code_info.location, "comments"
        here.ClearField("source_code_info")
        for field in (field for message in here.message_type for field in message.field):
            field.ClearField("json_name")
        assert here == described(module)


def test_make_exports_the_same(tmp_path: Path) -> None:
    make = ["make", "--no-print-directory", "--dry-run", "export-protos", f"DIR={tmp_path}/a b"]
    made = subprocess.run(make, cwd=ROOT, capture_output=True, text=True, check=True)
    _, *words = shlex.split(made.stdout.splitlines()[-1])
    assert words == ["-m", "idpass.v1.export", f"{tmp_path}/a b"]


def test_buf_builds_an_exported_folder(tmp_path: Path) -> None:
    assert export(tmp_path).returncode == 0
    if BUF is None:
        pytest.skip("buf is not installed here")
    for source in (tmp_path, tmp_path / "idpass.binpb"):
        done = subprocess.run([BUF, "build", source], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_grpcurl_reads_the_descriptor_set() -> None:
    command = [grpcurl_path(), "-protoset", str(PROTO_DIR / "idpass.binpb"), "list"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True)
    assert listed.stdout.split() == ["idpass.v1.IdPassService", "idpass.v1.WebhookService"]


@pytest.mark.parametrize(
    ("name", "status", "told"),
    [
        ("{}", 1, "Cannot write the protos to {}: it is not empty; name a new folder"),
        ("{}/mine.txt", 1, "Cannot write the protos to {}/mine.txt: File exists"),
        ("{}/mine.txt/x", 1, "{}/mine.txt/x: Not a directory"),
        ("", 2, "DIR is empty; name a new folder"),
    ],
)
def test_an_export_that_cannot_be_made_changes_nothing(
    tmp_path: Path, name: str, status: int, told: str
) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    done = export(name.format(tmp_path))
    assert done.returncode == status
    assert told.format(tmp_path) in done.stderr
    assert "Traceback" not in done.stderr
    assert files(tmp_path) == {"mine.txt": b"mine"}
