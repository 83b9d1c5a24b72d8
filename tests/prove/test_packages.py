"""Promise: what is released has all that it needs, and works where nothing else is.

Means: both packages are built from the tree, then from their own source archives, and the wheels
are installed in an environment with what they require and no more; the commands run there, the
documented installation does, and what an extra would bring is named.

Blind spots: other Pythons and systems than this machine's (see client/matrix.py for the client's).
"""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import idpass
from kit.deployed import instruction, instructions, words
from kit.documents import command
from kit.paths import ROOT
from kit.shell import Shell

# A file of each kind that a source archive must have.
CLIENT_FILES = {
    "README.md",
    "LICENSE",
    "src/idpass/py.typed",
    "src/idpass/v1/id_pass_pb2.py",
    "src/idpass/protos/idpass/v1/id_pass_service.proto",
}
SERVER_FILES = {
    "README.md",
    "LICENSE",
    "CHANGELOG.md",
    "protos/idpass/v1/id_pass_service.proto",
    "server/docs/operating.md",
    "server/requirements.txt",
    "server/deploy/Containerfile",
    "server/idpass_server/gateway/openapi.json",
    "server/idpass_server/gateway/static/sandbox.html",
}


def run(*words: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL"))}
    return subprocess.run(
        list(map(str, words)), capture_output=True, text=True, check=False, env=environment, cwd=cwd
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both packages, each as a source archive and as the wheel made from that."""
    folder = tmp_path_factory.mktemp("dist")
    for project in (ROOT / "clients/python", ROOT):
        done = run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, project)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commands of an environment with the two wheels, and what they require and no more."""
    folder = tmp_path_factory.mktemp("environment")
    pins = folder / "constraints.txt"
    locked = re.findall(
        r"^([\w.-]+)(?:\[.*?\])?(==[^\\\n]+)",
        (ROOT / "server/requirements.txt").read_text(),
        re.MULTILINE,
    )
    pins.write_text("".join(f"{name}{version}\n" for name, version in locked))
    assert run(sys.executable, "-m", "venv", folder / "venv").returncode == 0
    client, server = sorted(built.glob("*.whl"))
    pip = (folder / "venv/bin/python", "-m", "pip", "--disable-pip-version-check")
    done = run(*pip, "install", "--constraint", pins, f"{client}[cli]", server)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "venv/bin"


@pytest.mark.parametrize(
    ("package", "expected"), [("idpass_client", CLIENT_FILES), ("idpass_server", SERVER_FILES)]
)
def test_a_source_archive_has_what_its_readers_look_for(
    built: Path, package: str, expected: set[str]
) -> None:
    name = f"{package}-{idpass.__version__}"
    with tarfile.open(built / f"{name}.tar.gz") as archive:
        files = {member.removeprefix(f"{name}/") for member in archive.getnames()}
    assert expected <= files
    assert not [file for file in files if file.endswith((".pyc", ".db")) or "/tests/" in file]


def test_the_protos_come_with_both_wheels(built: Path, installed: Path, tmp_path: Path) -> None:
    done = run(installed / "python", "-m", "idpass.v1.export", tmp_path / "protos", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    protos = {
        path.relative_to(tmp_path / "protos").as_posix(): path.read_bytes()
        for path in (tmp_path / "protos").rglob("*")
        if path.is_file()
    }
    assert protos["idpass/v1/id_pass_service.proto"] == (
        (ROOT / "protos/idpass/v1/id_pass_service.proto").read_bytes()
    )
    for wheel in built.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            carried = {
                name.partition("/protos/")[2]: archive.read(name)
                for name in archive.namelist()
                if "/protos/" in name
            }
        assert carried == protos, wheel.name


def test_the_wheels_work_where_nothing_else_is(installed: Path) -> None:
    for program in ("idpass", "idpass-server"):
        told = run(installed / program, "--version")
        assert told.stdout == f"{program}, version {idpass.__version__}\n"
    demo = run(installed / "idpass-server", "demo")
    assert demo.returncode == 0, demo.stderr
    assert demo.stdout.endswith("Every row is as the lifecycle says.\n")


def test_the_documented_installation_works(built: Path, tmp_path: Path) -> None:
    assert run(sys.executable, "-m", "venv", tmp_path / "venv").returncode == 0
    path = f"{tmp_path / 'venv/bin'}{os.pathsep}{os.environ['PATH']}"
    places = {"server/": f"{ROOT}/server/", "dist/": f"{built}/"}
    shell = Shell(tmp_path, places, {"PATH": path})
    shell.run(command("operating.md", "pip install"))
    assert (tmp_path / "venv/bin/idpass-server").is_file()
    shell.run("idpass-server demo && python -c 'import idpass_server.gateway.serving'")


def test_what_an_extra_would_bring_is_named_and_can_be_installed(installed: Path) -> None:
    serve = (installed / "idpass-server", "serve", "--listen", "127.0.0.1:0", "--sandbox")
    refused = run(*serve, "--http", "127.0.0.1:0")
    assert refused.returncode != 0
    assert "--http needs" in refused.stderr
    found = re.search(r"pip install ((?:'\S+?' ?)+)", refused.stderr)
    assert found, refused.stderr
    packages = re.findall(r"'(\S+?)'", found[1])
    pip = (installed / "python", "-m", "pip", "--disable-pip-version-check")
    assert run(*pip, "install", *packages).returncode == 0
    imported = run(installed / "python", "-c", "import idpass_server.gateway.serving")
    assert imported.returncode == 0, imported.stderr


def test_the_image_is_made_from_what_is_copied_into_it(tmp_path: Path) -> None:
    places = {"/opt/idpass": f"{tmp_path}/opt", "python": sys.executable}
    (tmp_path / "src").mkdir()
    stages = 0
    for name, rest in instructions():
        stages += name == "FROM"
        if stages > 1:
            break
        if name == "COPY":
            *sources, target = rest.split()
            for source in sources:
                to = tmp_path / "src" / target
                to = to / source if target == "./" else to
                to.parent.mkdir(parents=True, exist_ok=True)
                if (ROOT / source).is_dir():
                    shutil.copytree(ROOT / source, to, symlinks=True)
                else:
                    shutil.copy(ROOT / source, to)
        elif name == "RUN":
            program, *arguments = words(rest)
            program = places.get(program, program.replace("/opt/idpass", places["/opt/idpass"]))
            arguments = [each.replace("/opt/idpass", places["/opt/idpass"]) for each in arguments]
            done = run(program, *arguments, cwd=tmp_path / "src")
            assert done.returncode == 0, done.stdout + done.stderr
    (entry,) = words(instruction("ENTRYPOINT"))
    demo = run(tmp_path / "opt/bin" / entry, "demo")
    assert demo.stdout.endswith("Every row is as the lifecycle says.\n"), demo.stderr
