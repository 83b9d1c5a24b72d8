"""Callers in other languages: the exported protos, generated, compiled, and called.

The programs in languages.md are built and run as they are shown, and others like them: each cancels
a pass at a real server, repeats the call, and is refused once, so that an error's details are read,
too. What is not installed here is skipped by its name.

Blind to: .NET, whose libraries Debian has not, so that C# is checked for its syntax only; to newer
generators than Debian's and those of languages/package-lock.json; to Rust, Swift, Dart and others.
"""

import base64
import os
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from idpass.v1.id_pass_service_pb2 import CancelRequest
from idpass.v1.id_pass_service_pb2_grpc import IdPassServiceStub
from kit.documents import PAGES, blocks, command
from kit.shell import Shell
from kit.support import Service

PAGE = "languages.md"
SOURCES = Path(__file__).parent / "languages"
IDPASS = "idpass/v1/*.proto"
GOOGLE = "google/api/*.proto google/rpc/*.proto google/type/*.proto"
WELL_KNOWN = "google/protobuf/*.proto"
GO = "protoc -I protos --go_out"
JAVA = "mkdir -p generated"


class Workshop:
    """A folder with the exported protos, where code is generated, compiled and run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._shell = Shell(folder)
        self.run(command(PAGE, "python -m idpass.v1.export"))

    def run(self, *words: str | Path, **env: str) -> str:
        """What a command writes; it fails the test if the command fails.

        Args:
            words: the command. One alone is for a shell.
            env: variables beside those of this process.
        """
        line = words if len(words) > 1 else ("sh", "-euc", *words)
        done = subprocess.run(
            line,
            cwd=self.folder,
            env=self._shell.env | env,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{words}\n{done.stdout}{done.stderr}"
        return done.stdout

    def generate(self, into: str, files: str, *options: str) -> Path:
        """Runs protoc.

        Args:
            into: a new folder for what it writes.
            files: patterns, from the protos' folder on.
            options: its options, with the folder as OUT.
        """
        out = self.folder / into
        out.mkdir(parents=True)
        chosen = " ".join(option.replace("OUT", str(out)) for option in options)
        self.run(f"cd protos && protoc -I. {chosen} {files}")
        return out


def need(program: str, package: str) -> str:
    """The path of a program; skips the test where it is not installed."""
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"no {program} here: apt-get install {package}")
    return path


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    need("protoc", "protobuf-compiler")
    return Workshop(tmp_path)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = Service(tmp_path_factory.mktemp("server") / "idpass.db")
    yield service
    service.stop()


def check_calls(workshop: Workshop, server: Service, *program: str | Path, **env: str) -> None:
    """Has a program cancel a pass twice with one request_id, and then one that is complete."""
    in_flight = server.register().id_pass.id
    for _ in range(2):
        told = workshop.run(*program, server.address, in_flight, **env)
        assert told == "cancelled, fee refunded: true\n"
    complete = server.register().id_pass.id
    for status in ("opened", "in_progress", "complete"):
        server.advance(complete, status)
    told = workshop.run(*program, server.address, complete, **env)
    assert told == "refused: PASS_COMPLETE\n"


def shown(workshop: Workshop, language: str, name: str) -> Path:
    """The program that the page shows, as a file."""
    (text,) = blocks(language, PAGES[PAGE])
    path = workshop.folder / name
    path.write_text(text)
    return path


def test_grpc_repeats_what_the_service_config_says() -> None:
    """By its Python: the channel's options are the same in each language."""
    (config,) = blocks("json", PAGES[PAGE])
    answers = iter([grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNAVAILABLE, None])

    def answer(_request: bytes, context: grpc.ServicerContext) -> bytes:
        code = next(answers)
        if code is not None:
            context.abort(code, "not now")
        return b""

    method: Any = grpc.unary_unary_rpc_method_handler(answer)
    handler = grpc.method_handlers_generic_handler(
        "idpass.v1.IdPassService", {"CancelIdPass": method}
    )
    with ThreadPoolExecutor(1) as pool:
        unavailable = grpc.server(pool, [handler])
        port = unavailable.add_insecure_port("127.0.0.1:0")
        unavailable.start()
        options = [("grpc.service_config", config)]
        with grpc.insecure_channel(f"127.0.0.1:{port}", options) as channel:
            IdPassServiceStub(channel).CancelIdPass(CancelRequest(), timeout=30)
        unavailable.stop(None)
    assert list(answers) == [], "repeated twice"


def test_protoc_compiles_the_folder_alone(workshop: Workshop) -> None:
    """Even without the protos that it finds beside itself."""
    bare = workshop.folder / "bin" / "protoc"
    bare.parent.mkdir()
    shutil.copy(need("protoc", "protobuf-compiler"), bare)
    files = f"{IDPASS} {GOOGLE} {WELL_KNOWN}"
    workshop.run(f"cd protos && ../bin/protoc -I. --descriptor_set_out=../set.binpb {files}")


def test_go(workshop: Workshop, server: Service) -> None:
    go = need("go", "golang")
    need("protoc-gen-go", "protoc-gen-go")
    need("protoc-gen-go-grpc", "protoc-gen-go-grpc")
    libraries = Path("/usr/share/gocode")
    for place, package in (
        ("google.golang.org/grpc", "golang-google-grpc-dev"),
        ("github.com/golang/protobuf/proto/wire.go", "golang-github-golang-protobuf-1-5-dev"),
    ):
        if not (libraries / "src" / place).exists():
            pytest.skip(f"no {place} here: apt-get install {package}")
    workshop.run(command(PAGE, GO))
    (workshop.folder / "src").mkdir()
    (workshop.folder / "idpass").rename(workshop.folder / "src/idpass")
    program = shown(workshop, "go", "cancel.go")
    path = f"{workshop.folder}{os.pathsep}{libraries}"
    workshop.run(go, "build", "-o", "cancel", program, GO111MODULE="off", GOPATH=path)
    check_calls(workshop, server, workshop.folder / "cancel")


def jars() -> str:
    """The class path of gRPC for Java, as Debian has it."""
    folder = Path("/usr/share/java")
    names = "grpc-*.jar perfmark-api.jar proto-google-common-protos.jar protobuf.jar guava.jar"
    names += " failureaccess.jar gson.jar netty-*.jar jsr305.jar geronimo-annotation-1.3-spec.jar"
    found = [path for name in names.split() for path in sorted(folder.glob(name))]
    if not any(path.name == "grpc-netty.jar" for path in found):
        pytest.skip("no gRPC for Java here: apt-get install libgrpc-java")
    return os.pathsep.join(map(str, found))


def test_java(workshop: Workshop, server: Service) -> None:
    javac = need("javac", "default-jdk-headless")
    need("grpc_java_plugin", "protobuf-compiler-grpc-java-plugin")
    path = f"classes{os.pathsep}{jars()}"
    workshop.run(command(PAGE, JAVA))
    # Debian's proto-google-common-protos is older than ErrorInfo.
    workshop.generate("google", "google/rpc/error_details.proto", "--java_out=OUT")
    program = shown(workshop, "java", "Cancel.java")
    sources = [
        each
        for root in ("generated", "google")
        for each in (workshop.folder / root).rglob("*.java")
    ]
    workshop.run(javac, "-Xlint:-options", "-d", "classes", "-cp", path, program, *sources)
    check_calls(workshop, server, "java", "-cp", path, "Cancel")


def test_cpp(workshop: Workshop) -> None:
    """Compiled up to the types: a program of it takes minutes to build."""
    compiler = need("g++", "g++")
    plugin = need("grpc_cpp_plugin", "protobuf-compiler-grpc")
    if not Path("/usr/include/grpcpp/grpcpp.h").is_file():
        pytest.skip("no gRPC for C++ here: apt-get install libgrpc++-dev")
    out = workshop.generate(
        "generated",
        f"{IDPASS} {GOOGLE}",
        "--cpp_out=OUT",
        f"--plugin=protoc-gen-grpc={plugin}",
        "--grpc_out=OUT",
    )
    for source in (*sorted(out.glob("idpass/v1/*_service*.cc")), SOURCES / "cancel.cc"):
        workshop.run(compiler, "-std=c++17", "-fsyntax-only", "-I", out, source)


def test_ruby(workshop: Workshop, server: Service) -> None:
    ruby = need("ruby", "ruby-grpc")
    plugin = need("grpc_ruby_plugin", "protobuf-compiler-grpc")
    if subprocess.run([ruby, "-e", "require 'grpc'"], capture_output=True, check=False).returncode:
        pytest.skip("no gRPC for Ruby here: apt-get install ruby-grpc")
    out = workshop.generate(
        "generated",
        f"{IDPASS} {GOOGLE}",
        "--ruby_out=OUT",
        f"--plugin=protoc-gen-grpc={plugin}",
        "--grpc_out=OUT",
    )
    check_calls(workshop, server, ruby, "-I", out, SOURCES / "cancel.rb")


def test_php(workshop: Workshop) -> None:
    """There is no gRPC for PHP here: its request is compared with Python's."""
    php = need("php", "php-cli")
    plugin = need("grpc_php_plugin", "protobuf-compiler-grpc")
    library = Path("/usr/share/php")
    if not (library / "Google/Protobuf").is_dir():
        pytest.skip("no protobuf for PHP here: apt-get install php-google-protobuf")
    out = workshop.generate(
        "generated",
        f"{IDPASS} {GOOGLE}",
        "--php_out=OUT",
        f"--plugin=protoc-gen-grpc={plugin}",
        "--grpc_out=OUT",
    )
    for file in sorted(out.rglob("*Client.php")):
        workshop.run(php, "-l", file)
    path = f"include_path={out}{os.pathsep}{library}"
    written = workshop.run(php, "-d", path, SOURCES / "request.php", "01")
    request = CancelRequest.FromString(base64.b64decode(written))
    assert (request.id, request.request_id, request.reason) == ("01", "cancel-01", 1)


def test_csharp(workshop: Workshop) -> None:
    """The messages are generated; they and the program shown are checked for their syntax only."""
    out = workshop.generate("generated", IDPASS, "--csharp_out=OUT", "--csharp_opt=base_namespace=")
    files = sorted(out.glob("Idpass/V1/*.cs"))
    assert [file.stem for file in files] == [
        "ErrorReason",
        "IdPass",
        "IdPassService",
        "Webhook",
        "WebhookService",
    ]
    mcs = need("mcs", "mono-mcs")
    for file in (*files, shown(workshop, "csharp", "Program.cs")):
        workshop.run(mcs, "--parse", file)


@pytest.mark.parametrize(
    ("language", "expected"),
    [
        ("kotlin", "com/idpass/v1/CancelRequestKt.kt"),
        ("objc", "idpass/v1/IdPassService.pbobjc.h"),
        ("pyi", "idpass/v1/id_pass_service_pb2.pyi"),
    ],
)
def test_what_protoc_itself_generates(workshop: Workshop, language: str, expected: str) -> None:
    out = workshop.generate("generated", IDPASS, f"--{language}_out=OUT")
    assert (out / expected).is_file()


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """A folder with what TypeScript's generators make, compiled."""
    need("protoc", "protobuf-compiler")
    npm = need("npm", "npm")
    workshop = Workshop(tmp_path_factory.mktemp("node"))
    for name in ("package.json", "package-lock.json", "tsconfig.json", "cancel.ts"):
        shutil.copy(SOURCES / name, workshop.folder)
    installed = subprocess.run(
        [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"],
        cwd=workshop.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if installed.returncode:
        pytest.skip(f"npm cannot get the generators: {installed.stderr[-300:]}")
    programs = workshop.folder / "node_modules/.bin"
    files = f"{IDPASS} {GOOGLE}"
    for name, generator, option in (
        ("protobuf-es", "es", "target=ts"),
        ("protobuf-ts", "ts", "client_grpc1,force_server_none"),
        ("ts-proto", "ts_proto", "outputServices=grpc-js,esModuleInterop=true"),
    ):
        workshop.generate(
            f"generated/{name}",
            files,
            f"--plugin=protoc-gen-{generator}={programs}/protoc-gen-{generator}",
            f"--{generator}_out=OUT",
            f"--{generator}_opt={option}",
        )
    workshop.run(programs / "tsc", "--project", ".")
    return workshop


@pytest.mark.parametrize("generator", ["protobuf-es", "protobuf-ts", "ts-proto", "proto-loader"])
def test_typescript(node: Workshop, server: Service, generator: str) -> None:
    """protobuf-es with connect-es, the next two with grpc-js; the last reads the protos itself."""
    check_calls(node, server, "node", "built/cancel.js", generator)
