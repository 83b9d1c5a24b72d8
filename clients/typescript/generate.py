"""Generates the TypeScript client's messages from protos/: src/gen, committed and never edited.

    generate.py            write them
    generate.py --check    fail if the committed ones differ from what the protos give

Runs in the environment of protos/generate.py, with protoc-gen-es from node_modules. Google's
messages come along: protobuf-es has a package for its own well-known types only.
"""

import argparse
import filecmp
import shutil
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "protos"))
from generate import compile_protos  # noqa: E402 found by the line above

GEN = HERE / "src/gen"
PLUGIN = HERE / "node_modules/.bin/protoc-gen-es"
GOOGLE = (
    "google/api/annotations.proto",
    "google/api/http.proto",
    "google/rpc/error_details.proto",
    "google/rpc/status.proto",
    "google/type/money.proto",
)


def generate(out: Path) -> None:
    compile_protos(
        f"--plugin=protoc-gen-es={PLUGIN}",
        f"--es_out={out}",
        "--es_opt=target=ts,import_extension=js",
        *GOOGLE,
    )


def stale(out: Path) -> list[str]:
    """The files that differ from the committed ones, or exist in one place only."""
    names = {
        path.relative_to(folder).as_posix()
        for folder in (out, GEN)
        for path in folder.rglob("*.ts")
    }
    _, different, missing = filecmp.cmpfiles(out, GEN, sorted(names), shallow=False)
    return different + missing


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true")
    if not PLUGIN.exists():
        sys.exit(f"{PLUGIN} is missing: make typescript installs it")
    if parser.parse_args().check:
        with tempfile.TemporaryDirectory() as folder:
            generate(Path(folder))
            if differences := stale(Path(folder)):
                sys.exit(f"generated code is stale: {', '.join(differences)}; run make generate")
        return
    shutil.rmtree(GEN, ignore_errors=True)
    GEN.mkdir(parents=True)
    generate(GEN)


if __name__ == "__main__":
    main()
