"""What the two packages say of themselves: one version, and metadata that are true."""

import re
import tomllib
from typing import Any

import pytest

import idpass
from idpass_server import extras
from kit.paths import ROOT

SERVER = tomllib.loads((ROOT / "pyproject.toml").read_text())
CLIENT = tomllib.loads((ROOT / "clients/python/pyproject.toml").read_text())


def test_both_packages_take_their_version_from_one_place() -> None:
    paths = {
        (ROOT / folder / project["tool"]["hatch"]["version"]["path"]).resolve()
        for folder, project in ((".", SERVER), ("clients/python", CLIENT))
    }
    assert paths == {(ROOT / "clients/python/src/idpass/__init__.py").resolve()}


def test_the_server_requires_the_client_of_its_own_version() -> None:
    required = [each for each in SERVER["project"]["dependencies"] if "idpass-client" in each]
    assert required == [f"idpass-client=={idpass.__version__}"]
    readme = (ROOT / "clients/python/README.md").read_text()
    assert set(re.findall(r"idpass_client-([\d.]+)-", readme)) == {idpass.__version__}


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
