"""Generates everything derived from the protos: messages, stubs, descriptors, the OpenAPI document.

    generate.py              write the generated code, and what the packages carry beside it
    generate.py --check      fail if the committed code differs from what the protos give
    generate.py --baseline   write protos/baseline.binpb, which later protos must not break

Runs in an environment of its own (protos/requirements.txt). Google's protos come from wheels, not
from buf's registry. Those that ours import are copied into the client's package, where a symbolic
link leads to ours, so that its folder of protos needs nothing else.
"""

import argparse
import filecmp
import shutil
import sys
import tempfile
from importlib import resources
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.rpc import status_pb2
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
STUBS = ROOT / "clients/python/src"
PACKAGE = Path("idpass/v1")
OPENAPI = ROOT / "server/idpass_server/gateway/openapi.json"
IMAGE = ROOT / "build/protos.binpb"
BASELINE = PROTOS / "baseline.binpb"
CARRIED = Path("idpass/protos")
DESCRIPTORS = CARRIED / "idpass.binpb"
WELL_KNOWN = Path(str(resources.files("grpc_tools"))) / "_proto"
GOOGLEAPIS = Path(status_pb2.__file__).parents[2]
# No proto imports it, but every error carries its messages.
DETAILS = "google/rpc/error_details.proto"


def compile_protos(*arguments: str, only: str = "*.proto") -> None:
    files = [path.relative_to(PROTOS).as_posix() for path in sorted((PROTOS / PACKAGE).glob(only))]
    folders = [f"-I{folder}" for folder in (PROTOS, WELL_KNOWN, GOOGLEAPIS)]
    if protoc.main(["protoc", *folders, *arguments, *files]):
        sys.exit("protoc failed")


def generate(out: Path) -> None:
    bin_folder = Path(sys.executable).parent
    compile_protos(
        f"--plugin=protoc-gen-mypy={bin_folder / 'protoc-gen-mypy'}",
        f"--python_out={out}",
        f"--mypy_out=quiet:{out}",
    )
    compile_protos(
        f"--plugin=protoc-gen-mypy_grpc={bin_folder / 'protoc-gen-mypy_grpc'}",
        f"--grpc_python_out={out}",
        f"--mypy_grpc_out=quiet:{out}",
        only="*_service.proto",
    )


def write_image(path: Path, *, comments: bool) -> None:
    """Writes a FileDescriptorSet of the protos and all they need, with our own comments or none."""
    path.parent.mkdir(exist_ok=True)
    compile_protos(
        "--include_imports", "--include_source_info", f"--descriptor_set_out={path}", DETAILS
    )
    files = FileDescriptorSet.FromString(path.read_bytes())
    for file in files.file:
        if not (comments and file.package == "idpass.v1"):
            file.ClearField("source_code_info")
    path.write_bytes(files.SerializeToString(deterministic=True))


def carry(out: Path) -> None:
    """Writes what the client's package carries besides our protos: descriptors, Google's protos."""
    image = IMAGE.read_bytes()
    shutil.rmtree(out / CARRIED / "google", ignore_errors=True)
    for file in FileDescriptorSet.FromString(image).file:
        if file.package != "idpass.v1":
            (out / CARRIED / file.name).parent.mkdir(parents=True, exist_ok=True)
            source = WELL_KNOWN if file.package == "google.protobuf" else GOOGLEAPIS
            shutil.copyfile(source / file.name, out / CARRIED / file.name)
    (out / DESCRIPTORS).write_bytes(image)


def openapi() -> str:
    """The OpenAPI document, by the server's own module, from the messages just generated."""
    sys.path[:0] = [str(STUBS), str(ROOT / "server")]
    from idpass_server.gateway.openapi import document  # noqa: PLC0415 needs the two folders

    return document(IMAGE.read_bytes())


def stale(out: Path) -> list[str]:
    """The generated files that differ from the committed ones, or exist in one place only."""
    names = {
        path.relative_to(folder).as_posix()
        for folder in (out, STUBS)
        for pattern in (f"{PACKAGE}/*_pb2*", f"{CARRIED}/google/**/*.proto", f"{DESCRIPTORS}")
        for path in folder.glob(pattern)
    }
    _, different, missing = filecmp.cmpfiles(out, STUBS, sorted(names), shallow=False)
    return different + missing


def main() -> None:
    parser = argparse.ArgumentParser()
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true")
    what.add_argument("--baseline", action="store_true")
    arguments = parser.parse_args()
    if arguments.baseline:
        write_image(BASELINE, comments=False)
        return
    write_image(IMAGE, comments=True)
    if not arguments.check:
        generate(STUBS)
        carry(STUBS)
        OPENAPI.write_text(openapi())
        return
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        carry(Path(folder))
        differences = stale(Path(folder))
        if openapi() != OPENAPI.read_text():
            differences.append(OPENAPI.name)
        if differences:
            sys.exit(f"generated code is stale: {', '.join(differences)}; run make generate")


if __name__ == "__main__":
    main()
