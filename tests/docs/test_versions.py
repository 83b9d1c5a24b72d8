"""What the packages say of themselves: one version, and metadata that are true."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

import idpass
from idpass_server import extras
from kit.documents import PAGES
from kit.paths import ROOT
from kit.shell import Shell
from kit.support import Service

SERVER = tomllib.loads((ROOT / "pyproject.toml").read_text())
CLIENT = tomllib.loads((ROOT / "clients/python/pyproject.toml").read_text())


def test_both_packages_take_their_version_from_one_place() -> None:
    paths = {
        (ROOT / folder / project["tool"]["hatch"]["version"]["path"]).resolve()
        for folder, project in ((".", SERVER), ("clients/python", CLIENT))
    }
    assert paths == {(ROOT / "clients/python/src/idpass/__init__.py").resolve()}


def test_the_typescript_client_has_the_version_too() -> None:
    folder = ROOT / "clients/typescript"
    package = json.loads((folder / "package.json").read_text())
    locked = json.loads((folder / "package-lock.json").read_text())
    (sent,) = re.findall(r'VERSION = "(.+)"', (folder / "src/version.ts").read_text())
    pages = (folder / "README.md").read_text() + PAGES["languages.md"]
    named = set(re.findall(r"idpass-client-([\d.]+)\.tgz", pages))
    assert {package["version"], locked["version"], sent, *named} == {idpass.__version__}
    assert locked["packages"][""]["dependencies"] == package["dependencies"]


def test_the_server_requires_the_client_of_its_own_version() -> None:
    required = [each for each in SERVER["project"]["dependencies"] if "idpass-client" in each]
    assert required == [f"idpass-client=={idpass.__version__}"]


def test_the_wheels_that_documents_install_have_the_version() -> None:
    for page in ("clients/python/README.md", "server/docs/operating.md"):
        named = re.findall(r"idpass_(?:client|server)-([\d.]+)-", (ROOT / page).read_text())
        assert set(named) == {idpass.__version__}, page


def test_the_readmes_command_line_is_installed_with_the_rest(
    service: Service, tmp_path: Path
) -> None:
    shown = re.findall(r"`\.venv/bin/(idpass [^`]+)`", PAGES["README.md"])
    assert shown == ["idpass register", "idpass cancel ID"]
    shell = Shell(tmp_path, env={"IDPASS_ADDRESS": service.address})
    registered = shell.run(shown[0]).stdout
    pass_id = re.findall(r"^id +([0-9a-f-]{36})$", registered, re.MULTILINE)[0]
    told = shell.run(shown[1].replace("ID", pass_id)).stdout
    assert told.startswith(f"{pass_id}  cancelled (was new), AUD 4.50 refunded")


def test_the_version_has_its_dated_chapter_in_the_changelog() -> None:
    chapters = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    version, _, date = chapters[1].partition(" - ")
    assert chapters[0] == "Unreleased"
    assert version == idpass.__version__
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", date)


@pytest.mark.parametrize("project", [SERVER["project"], CLIENT["project"]], ids=lambda p: p["name"])
def test_the_oldest_python_that_is_allowed_is_the_oldest_that_is_listed(project: Any) -> None:
    listed = re.findall(r"Python :: 3\.(\d+)", "\n".join(project["classifiers"]))
    assert project["requires-python"] == f">=3.{min(map(int, listed))}"
    assert list(map(int, listed)) == list(range(int(listed[0]), int(listed[-1]) + 1))


@pytest.mark.parametrize("extra", SERVER["project"]["optional-dependencies"])
def test_an_extra_that_is_missing_is_told_by_the_packages_it_brings(extra: str) -> None:
    declared = SERVER["project"]["optional-dependencies"][extra]
    message = extras.missing("--this", ModuleNotFoundError("no", name="that"), extra)
    assert message.startswith("--this needs that, which is not installed.")

    def names(requirements: list[str]) -> list[str]:
        return sorted(re.split(r"[<>=!~]", each)[0] for each in requirements)

    assert names(extras.requirements(extra)) == names(declared)
    for requirement in extras.requirements(extra):
        assert f"'{requirement}'" in message
