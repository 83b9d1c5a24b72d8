"""The rival in C++: built where a compiler and the libraries are, and seen to answer right."""

import hashlib
import shutil
import subprocess
from pathlib import Path
from typing import Final

import google.type

from idpass_server.store.sqlite.checkpoints import CHECKPOINT_PAGES
from idpass_server.store.sqlite.file import CACHE_KIB

ROOT: Final = Path(__file__).parents[2]
BUILT: Final = ROOT / "build" / "bench" / "rival"
SOURCE: Final = Path(__file__).with_name("rival_server.cc")
SERVICE: Final = "idpass/v1/id_pass_service"
PROTOS: Final = (
    *("idpass/v1/id_pass", "idpass/v1/error_reason"),
    *("google/api/annotations", "google/api/http", "google/rpc/status", "google/type/money"),
)
LIBRARIES: Final = ("grpc++", "protobuf", "sqlite3", "libcrypto")
TOOLS: Final = ("g++", "protoc", "grpc_cpp_plugin", "pkg-config")
PACKAGES: Final = (
    "g++ pkg-config protobuf-compiler protobuf-compiler-grpc libgrpc++-dev libsqlite3-dev"
)
FLAGS: Final = ("-std=c++17", "-O2", "-DNDEBUG")


class CannotBuild(Exception):
    """The message says why."""


def build() -> Path:
    """Returns the program, from build/ if nothing has changed; making it takes a minute.

    Raises:
        CannotBuild: it cannot be had on this machine.
    """
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        raise CannotBuild(f"there is no {', '.join(missing)}; on Debian: apt install {PACKAGES}")
    versions = "".join(_run("pkg-config", "--modversion", library) for library in LIBRARIES)
    protos = sorted((ROOT / "protos" / "idpass").rglob("*.proto"))
    folder = BUILT / _digest(f"{FLAGS} {_run('g++', '--version')} {versions}".encode(), *protos)
    folder.mkdir(parents=True, exist_ok=True)
    generated = folder / "generated"
    if not generated.exists():
        _generate(generated)
    program = folder / f"rival_server-{_digest(b'', SOURCE)}"
    if not program.exists():
        objects = [_compiled(source, generated) for source in sorted(generated.rglob("*.cc"))]
        objects.append(_compiled(SOURCE, generated))
        libraries = _run("pkg-config", "--libs", *LIBRARIES).split()
        _make(program, "g++", *objects, *libraries, "-lpthread")
    return program


def _generate(generated: Path) -> None:
    unfinished = generated.with_suffix(".new")
    unfinished.mkdir(exist_ok=True)
    # Google's own protos come with the package that has them for Python.
    packages = Path(google.type.__path__[0]).parents[1]
    protoc = ("protoc", f"-I{ROOT / 'protos'}", f"-I{packages}")
    _run(*protoc, f"--cpp_out={unfinished}", *(f"{proto}.proto" for proto in (SERVICE, *PROTOS)))
    plugin = shutil.which("grpc_cpp_plugin")
    plugged = (f"--plugin=protoc-gen-grpc={plugin}", f"--grpc_out={unfinished}")
    _run(*protoc, *plugged, f"{SERVICE}.proto")
    unfinished.rename(generated)


def _compiled(source: Path, generated: Path) -> str:
    compiled = generated.parent / f"{source.stem}-{_digest(b'', source)}.o"
    if not compiled.exists():
        options = _run("pkg-config", "--cflags", *LIBRARIES).split()
        _make(compiled, "g++", *FLAGS, f"-I{generated}", *options, "-c", str(source))
    return str(compiled)


def _make(made: Path, *command: str) -> None:
    unfinished = made.with_name(f"{made.name}.new")
    _run(*command, "-o", str(unfinished))
    unfinished.rename(made)


def _digest(content: bytes, *files: Path) -> str:
    found = hashlib.sha256(content)
    for file in files:
        found.update(file.read_bytes())
    return found.hexdigest()[:16]


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotBuild(f"{command[0]} failed: {done.stderr.strip()[-2_000:]}")
    return done.stdout


def command(program: Path, db: Path) -> list[str]:
    """The command that serves a database with the settings of the service's own connection."""
    return [str(program), str(db), str(CHECKPOINT_PAGES), str(CACHE_KIB)]
