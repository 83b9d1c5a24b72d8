"""Generates everything derived from the protos: messages, stubs, the OpenAPI document, buf's image.

    generate.py              write the generated code
    generate.py --check      fail if the committed code differs from what the protos give
    generate.py --baseline   write protos/baseline.binpb, which later protos must not break

Runs in an environment of its own (protos/requirements.txt). buf's image is made here, because
Google's protos come from a wheel and not from buf's registry.
"""

import argparse
import filecmp
import sys
import tempfile
from importlib import resources
from pathlib import Path

from google.rpc import status_pb2
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
STUBS = ROOT / "clients/python/src"
PACKAGE = Path("idpass/v1")
OPENAPI = ROOT / "server/idpass_server/gateway/openapi.json"
IMAGE = ROOT / "build/protos.binpb"
BASELINE = PROTOS / "baseline.binpb"


def compile_protos(*arguments: str, only: str = "*.proto") -> None:
    well_known = resources.files("grpc_tools") / "_proto"
    googleapis = Path(status_pb2.__file__).parents[2]
    files = [path.relative_to(PROTOS).as_posix() for path in sorted((PROTOS / PACKAGE).glob(only))]
    if protoc.main(
        ["protoc", f"-I{PROTOS}", f"-I{well_known}", f"-I{googleapis}", *arguments, *files]
    ):
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


def write_image(path: Path, *, source_info: bool) -> None:
    path.parent.mkdir(exist_ok=True)
    compile_protos(
        "--include_imports",
        f"--descriptor_set_out={path}",
        *["--include_source_info"] * source_info,
    )


def openapi() -> str:
    """The OpenAPI document, by the server's own module, from the messages just generated."""
    sys.path[:0] = [str(STUBS), str(ROOT / "server")]
    from idpass_server.gateway.openapi import document  # noqa: PLC0415 needs the two folders

    return document(IMAGE.read_bytes())


def stale(out: Path) -> list[str]:
    """The generated files that differ from the committed ones, or exist in one place only."""
    names = {path.name for folder in (out, STUBS) for path in (folder / PACKAGE).glob("*_pb2*")}
    _, different, missing = filecmp.cmpfiles(
        out / PACKAGE, STUBS / PACKAGE, sorted(names), shallow=False
    )
    return different + missing


def main() -> None:
    parser = argparse.ArgumentParser()
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true")
    what.add_argument("--baseline", action="store_true")
    arguments = parser.parse_args()
    if arguments.baseline:
        write_image(BASELINE, source_info=False)
        return
    write_image(IMAGE, source_info=True)
    if not arguments.check:
        generate(STUBS)
        OPENAPI.write_text(openapi())
        return
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        differences = stale(Path(folder))
        if openapi() != OPENAPI.read_text():
            differences.append(OPENAPI.name)
        if differences:
            sys.exit(f"generated code is stale: {', '.join(differences)}; run make generate")


if __name__ == "__main__":
    main()
