"""The files of server/deploy as a machine takes them: instructions, settings, manifests."""

import json
import re
import shlex
from typing import Any, Final

import yaml

from kit.paths import ROOT

DEPLOY: Final = ROOT / "server/deploy"
UNIT: Final = DEPLOY / "systemd/idpass-server.service"
CONTAINERFILE: Final = DEPLOY / "Containerfile"


def instructions() -> list[tuple[str, str]]:
    """The Containerfile's instructions, each with what follows it."""
    lines = [line for line in CONTAINERFILE.read_text().splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [
        (name, rest.strip())
        for name, _, rest in (line.partition(" ") for line in joined.splitlines())
        if name
    ]


def instruction(name: str) -> str:
    """The last instruction of a kind."""
    return [rest for each, rest in instructions() if each == name][-1]


def words(text: str) -> list[str]:
    """The words of a command in exec form."""
    found: list[str] = json.loads(text)
    return found


def image_env() -> dict[str, str]:
    """The image's variables, without PATH."""
    pairs = [each.partition("=") for each in shlex.split(instruction("ENV"))]
    return {name: value for name, _, value in pairs if name != "PATH"}


def unit(name: str) -> list[str]:
    """The values of a setting of the unit, in their order."""
    return re.findall(rf"^{name}=(.*)$", UNIT.read_text(), re.MULTILINE)


def manifests(*files: str) -> list[dict[str, Any]]:
    """The documents of Kubernetes files; of all of them by default."""
    paths = [DEPLOY / "kubernetes" / file for file in files]
    paths = paths or sorted((DEPLOY / "kubernetes").glob("*.yaml"))
    return [each for path in paths for each in yaml.safe_load_all(path.read_text())]


def pod(file: str, kind: str) -> dict[str, Any]:
    """The pod that a manifest of some kind makes."""
    (made,) = (each for each in manifests(file) if each["kind"] == kind)
    spec: dict[str, Any] = made["spec"]["template"]["spec"]
    return spec
